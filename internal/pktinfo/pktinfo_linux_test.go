package pktinfo

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// The kernel tells to which address a datagram was sent, on sockets of either version of IP and of both, and what
// AppendControl says in return makes the answer leave from there.
func TestAnswerFromTheAddressAsked(t *testing.T) {
	for _, tt := range []struct{ listen, network, to string }{
		{"udp4", "udp4", "127.0.0.1"},
		{"udp4", "udp4", "127.0.0.5"},
		{"udp4", "udp4", "127.1.2.3"},
		{"udp6", "udp6", "::1"},
		{"udp", "udp6", "::1"},
		{"udp", "udp4", "127.0.0.5"},
	} {
		server, err := net.ListenUDP(tt.listen, nil)
		if err != nil {
			if errors.Is(err, syscall.EAFNOSUPPORT) {
				t.Logf("%s: %v", tt.listen, err)
				continue
			}
			t.Fatal(err)
		}
		defer server.Close()
		if !Enable(server) {
			t.Fatalf("%s: the kernel doesn't tell arrivals", tt.listen)
		}
		to := netip.AddrPortFrom(netip.MustParseAddr(tt.to), server.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		client, err := net.DialUDP(tt.network, nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Logf("%s %v: %v", tt.network, to, err) // a host without IPv6
			continue
		}
		defer client.Close()
		if _, err := client.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		in, control := make([]byte, 100), make([]byte, Size)
		_, n, _, from, err := server.ReadMsgUDPAddrPort(in, control)
		if err != nil {
			t.Fatal(err)
		}
		a := Parse(control[:n])
		if a.Local != to.Addr() || a.Ifindex == 0 || a.Group {
			t.Errorf("%s %v: %+v", tt.listen, to, a)
		}
		if _, _, err := server.WriteMsgUDPAddrPort([]byte("answer"), a.AppendControl(nil), from); err != nil {
			t.Errorf("%s %v: %v", tt.listen, to, err)
			continue
		}
		if n, err := client.Read(in); err != nil || string(in[:n]) != "answer" { // a connected socket takes no other source
			t.Errorf("%s %v: %q, %v", tt.listen, to, in[:n], err)
		}
	}
}

// message4 is what the kernel says of a datagram over IPv4.
func message4(ifindex byte, ours, to [4]byte) []byte {
	b, data := appendMessage(nil, syscall.IPPROTO_IP, syscall.IP_PKTINFO, size4)
	copy(data, Arrival{Ifindex: uint32(ifindex)}.native())
	copy(data[4:], ours[:])
	copy(data[8:], to[:])
	return b
}

func (a Arrival) native() []byte {
	_, data := appendMessage(nil, 0, 0, size6)
	link := Arrival{Local: netip.MustParseAddr("fe80::1"), Ifindex: a.Ifindex}
	copy(data, link.AppendControl(nil)[syscall.SizeofCmsghdr:])
	return data[16:20]
}

func TestParse(t *testing.T) {
	ours, broadcast := [4]byte{10, 0, 0, 5}, [4]byte{10, 0, 0, 255}
	addr := netip.AddrFrom4(ours)
	v6 := Arrival{Local: netip.MustParseAddr("2001:db8::5")}
	link := Arrival{Local: netip.MustParseAddr("fe80::5"), Ifindex: 7}
	foreign, _ := appendMessage(nil, syscall.SOL_SOCKET, syscall.SCM_TIMESTAMP, 16)
	both := append(Arrival{Local: netip.MustParseAddr("::ffff:10.0.0.9")}.AppendControl(nil), message4(3, ours, ours)...)
	group, data := appendMessage(nil, syscall.IPPROTO_IPV6, syscall.IPV6_PKTINFO, size6)
	copy(data, netip.MustParseAddr("ff02::202").AsSlice())
	short, _ := appendMessage(nil, syscall.IPPROTO_IP, syscall.IP_PKTINFO, size4-1)
	long, _ := appendMessage(nil, syscall.IPPROTO_IP, syscall.IP_PKTINFO, size4)
	for i := range 8 {
		long[i] = 0xff
	}
	for _, tt := range []struct {
		name    string
		control []byte
		want    Arrival
	}{
		{"nothing", nil, Arrival{}},
		{"IPv4", message4(3, ours, ours), Arrival{Local: addr, Ifindex: 3}},
		{"a broadcast", message4(3, ours, broadcast), Arrival{Local: addr, Ifindex: 3, Group: true}},
		{"a group, and no address of ours", message4(3, [4]byte{}, [4]byte{224, 0, 0, 1}), Arrival{Ifindex: 3, Group: true}},
		{"before Enable", message4(0, [4]byte{}, ours), Arrival{}},
		{"IPv6", v6.AppendControl(nil), v6},
		{"IPv6 link-local", link.AppendControl(nil), link},
		{"IPv6 group", group, Arrival{Group: true}},
		{"both", both, Arrival{Local: addr, Ifindex: 3}},
		{"behind another", append(bytes.Clone(foreign), message4(3, ours, ours)...), Arrival{Local: addr, Ifindex: 3}},
		{"too short", short, Arrival{}},
		{"longer than the buffer", long, Arrival{}},
	} {
		if got := Parse(tt.control); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		for n := range tt.control {
			Parse(tt.control[:n]) // must not panic
		}
	}
	if got := (Arrival{Ifindex: 3}).AppendControl(nil); got != nil {
		t.Errorf("without an address: % x", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message4(3, [4]byte{10, 0, 0, 5}, [4]byte{10, 0, 0, 5}))
	f.Add(Arrival{Local: netip.MustParseAddr("fe80::5"), Ifindex: 7}.AppendControl(nil))
	f.Fuzz(func(t *testing.T, control []byte) {
		a := Parse(control)
		if a.Local.IsValid() && !a.Group && a.Local.Is6() && !a.Local.IsLinkLocalUnicast() {
			if got := Parse(a.AppendControl(nil)); got.Local != a.Local {
				t.Errorf("%+v became %+v", a, got)
			}
		}
	})
}

func TestZeroAllocations(t *testing.T) {
	control := message4(3, [4]byte{10, 0, 0, 5}, [4]byte{10, 0, 0, 5})
	out := make([]byte, 0, Size)
	if n := testing.AllocsPerRun(100, func() { out = Parse(control).AppendControl(out[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
