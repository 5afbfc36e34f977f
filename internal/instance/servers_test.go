package instance

import (
	"net"
	"net/netip"
	"os"
	"testing"
)

func TestServersOf(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	port := netip.MustParseAddrPort(udp.LocalAddr().String()).Port()
	found, err := ServersOf([]Endpoint{
		endpoint("tcp", tcp.Addr().String()),
		{Netid: "udp", Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)},
		endpoint("tcp", gone.Addr().String()),
		endpoint("sctp", tcp.Addr().String()),
	})
	if err != nil || len(found) != 4 {
		t.Fatalf("%+v, %v", found, err)
	}
	for i, want := range []int{os.Getpid(), os.Getpid(), 0, 0} {
		if found[i].Process.PID != want || want == 0 && len(found[i].Sockets) != 0 {
			t.Errorf("%d: %+v, want the pid %d", i, found[i], want)
		}
	}
	if none, err := ServersOf(nil); err != nil || len(none) != 0 {
		t.Errorf("of nothing: %v, %v", none, err)
	}
}
