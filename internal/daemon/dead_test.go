package daemon

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// entryOf returns the table's entry for an address.
func entryOf(t *testing.T, netid rpcbind.Netid, addr string) *registry.Entry {
	t.Helper()
	table := registry.New()
	if err := table.Set(rpcbind.RPCB{Program: 300001, Version: 1, Netid: netid, Addr: addr, Owner: "1000"}); err != nil {
		t.Fatal(err)
	}
	return table.Lookup(300001, 1, netid)
}

// TestWhoseServerIsDead asks about addresses of this host, at which nobody is bound, and about others.
func TestWhoseServerIsDead(t *testing.T) {
	own := netip.MustParseAddr("192.0.2.1")
	asked := ""
	d := newDeadServers(slog.New(slog.DiscardHandler), func(a netip.Addr) bool { return a == own }, &sys.Owners{})
	d.bound = func(netid string, addr netip.AddrPort) (bool, error) {
		asked = netid + " " + addr.String()
		return false, nil
	}
	d.receives = func(string, netip.AddrPort) bool { return false }
	for _, c := range []struct {
		netid rpcbind.Netid
		addr  string
		asked string // "" is not at all: then it counts as alive
	}{
		{"tcp", "0.0.0.0.8.1", "tcp 0.0.0.0:2049"},
		{"UDP", "127.0.0.1.8.1", "udp 127.0.0.1:2049"},
		{"udp", "127.1.2.3.8.1", "udp 127.1.2.3:2049"},
		{"tcp6", "::.8.1", "tcp6 [::]:2049"},
		{"udp6", "::1.8.1", "udp6 [::1]:2049"},
		{"tcp", "192.0.2.1.8.1", "tcp 192.0.2.1:2049"},
		{"tcp", "192.0.2.2.8.1", ""},
		{"tcp6", "2001:db8::1.8.1", ""},
		{"local", "/run/service.sock", ""},
		{"rdma", "0.0.0.0.8.1", ""},
		{"sctp", "127.0.0.1.8.1", ""},
	} {
		asked = ""
		if dead := d.isDead(entryOf(t, c.netid, c.addr), "1000"); dead != (c.asked != "") || asked != c.asked {
			t.Errorf("%s %s: dead %v, asked about %q; want %q", c.netid, c.addr, dead, asked, c.asked)
		}
	}
	e := entryOf(t, "tcp", "0.0.0.0.8.1")
	e.Own = true
	if d.isDead(e, "1000") {
		t.Error("our own is dead")
	}
}

func TestWhereTheKernelDoesntTellNobodyIsDead(t *testing.T) {
	var log strings.Builder
	d := newDeadServers(slog.New(slog.NewTextHandler(&log, nil)), func(netip.Addr) bool { return false }, &sys.Owners{})
	d.bound = func(string, netip.AddrPort) (bool, error) { return false, errors.New("forbidden") }
	for range 3 {
		if d.isDead(entryOf(t, "tcp", "0.0.0.0.8.1"), "1000") {
			t.Error("dead")
		}
	}
	if n := strings.Count(log.String(), "forbidden"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

// TestDeadByTheKernel asks the kernel about a port that is bound, and no more a moment later.
func TestDeadByTheKernel(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if _, err := sys.Bound("tcp", addr); err != nil {
		t.Skipf("this kernel doesn't tell who is bound: %v", err)
	}
	d := newDeadServers(slog.New(slog.DiscardHandler), func(netip.Addr) bool { return false }, &sys.Owners{})
	for _, a := range []netip.AddrPort{addr, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())} {
		if d.isDead(entryOf(t, "tcp", rpcbind.UAddr(a)), "1000") {
			t.Errorf("%v is bound, but dead", a)
		}
	}
	l.Close()
	if !d.isDead(entryOf(t, "tcp", rpcbind.UAddr(addr)), "1000") {
		t.Errorf("%v isn't bound, but isn't dead", addr)
	}
}
