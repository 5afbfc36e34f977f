package portmapper

import (
	"net"
	"net/netip"
	"testing"
)

// Where the interface is known it decides, whatever the addresses say: a neighbour can send from 127.0.0.1 where
// route_localnet is set (CVE-2020-8558).
func TestOnLoopback(t *testing.T) {
	p := New(Options{})
	p.look()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	local, far := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for _, i := range interfaces {
		if got, want := p.onLoopback(uint32(i.Index), local, local), i.Flags&net.FlagLoopback != 0; got != want {
			t.Errorf("interface %s: %v, want %v", i.Name, got, want)
		}
	}
	if p.onLoopback(1<<30, local, local) {
		t.Error("an interface that isn't there counts as loopback")
	}
	for _, tt := range []struct {
		remote, local netip.Addr
		want          bool
	}{
		{local, local, true},
		{local, netip.Addr{}, true},
		{local, netip.IPv4Unspecified(), true},
		{local, far, false},
		{far, local, false},
		{netip.Addr{}, netip.Addr{}, false},
	} {
		if got := p.onLoopback(0, tt.remote, tt.local); got != tt.want {
			t.Errorf("from %v to %v: %v, want %v", tt.remote, tt.local, got, tt.want)
		}
	}
}
