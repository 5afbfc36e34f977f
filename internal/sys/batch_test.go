package sys

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBatchRoundTrip(t *testing.T) {
	needIPv6(t)
	tests := []struct {
		name          string
		server        *PacketConn
		client        *PacketConn
		to            netip.Addr // the server's address that the client uses
		batch, octets int
	}{
		{"udp", mustUDP(t, "127.0.0.1:0").Packet, mustUDP(t, "127.0.0.1:0").Packet, netip.MustParseAddr("127.0.0.1"), 8, 2000},
		{"udp wildcard", mustUDP(t, "0.0.0.0:0").Packet, mustUDP(t, "127.0.0.1:0").Packet, netip.MustParseAddr("127.3.2.1"), 3, 2000},
		{"udp6", mustUDP(t, "[::1]:0").Packet, mustUDP(t, "[::1]:0").Packet, netip.MustParseAddr("::1"), 8, 2000},
		{"udp6 wildcard", mustUDP(t, "[::]:0").Packet, mustUDP(t, "[::1]:0").Packet, netip.MustParseAddr("::1"), 1, 2000},
		{"dual stack, IPv4 caller", dualStackUDP(t), mustUDP(t, "127.0.0.1:0").Packet, netip.MustParseAddr("127.3.2.1"), 8, 2000},
		{"dual stack, IPv6 caller", dualStackUDP(t), mustUDP(t, "[::1]:0").Packet, netip.MustParseAddr("::1"), 8, 2000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			to := netip.AddrPortFrom(test.to, test.server.LocalAddr().Port())
			var calls []Datagram
			for _, octets := range []int{40, 0, 1, 2000, 1999, 4, 56} {
				calls = append(calls, Datagram{Payload: bytes.Repeat([]byte{byte(octets)}, octets), Remote: to})
			}
			client, server := NewBatch(test.batch, test.octets), NewBatch(test.batch, test.octets)
			if err := client.Write(test.client, calls); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < len(calls); {
				got := read(t, server, test.server)
				for i, d := range got {
					want := Datagram{Remote: test.client.LocalAddr(), Local: test.to, Ifindex: 1}
					checkDatagram(t, fmt.Sprintf("call %d", n+i), d, want, calls[n+i].Payload)
				}
				// The answer is the call: same payload, back from the address it was sent to.
				if err := server.Write(test.server, got); err != nil {
					t.Fatal(err)
				}
				n += len(got)
			}
			for n := 0; n < len(calls); {
				got := read(t, client, test.client)
				for i, d := range got {
					want := Datagram{Remote: to, Local: test.client.LocalAddr().Addr(), Ifindex: 1}
					checkDatagram(t, fmt.Sprintf("answer %d", n+i), d, want, calls[n+i].Payload)
				}
				n += len(got)
			}
		})
	}
}

func checkDatagram(t *testing.T, what string, got, want Datagram, payload []byte) {
	t.Helper()
	if !bytes.Equal(got.Payload, payload) {
		t.Errorf("%s: payload of %d octets differs from the %d sent", what, len(got.Payload), len(payload))
	}
	if got.Remote != want.Remote || got.Local != want.Local || got.Ifindex != want.Ifindex ||
		got.Multicast != want.Multicast || got.Truncated != want.Truncated {
		got.Payload = nil
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestBatchTruncated(t *testing.T) {
	server, client := mustUDP(t, "127.0.0.1:0"), mustUDP(t, "127.0.0.1:0")
	b := NewBatch(4, 100)
	out := []Datagram{
		{Payload: bytes.Repeat([]byte{1}, 101), Remote: server.Addr},
		{Payload: bytes.Repeat([]byte{2}, 100), Remote: server.Addr},
	}
	if err := b.Write(client.Packet, out); err != nil {
		t.Fatal(err)
	}
	want := Datagram{Remote: client.Addr, Local: server.Addr.Addr(), Ifindex: 1}
	var got []Datagram
	for len(got) < 2 {
		for _, d := range read(t, b, server.Packet) {
			d.Payload = bytes.Clone(d.Payload)
			got = append(got, d)
		}
	}
	checkDatagram(t, "100 octets", got[1], want, out[1].Payload)
	want.Truncated = true
	checkDatagram(t, "101 octets", got[0], want, out[0].Payload[:100])
}

func TestBatchWriteSkipsRefused(t *testing.T) {
	needIPv6(t)
	server, client := mustUDP(t, "127.0.0.1:0"), mustUDP(t, "127.0.0.1:0")
	good := func(n byte) Datagram { return Datagram{Payload: []byte{n}, Remote: server.Addr} }
	tooLong := Datagram{Payload: make([]byte, 65508), Remote: server.Addr}
	notOurs := Datagram{Payload: []byte{0}, Remote: server.Addr, Local: netip.MustParseAddr("192.0.2.99")}
	wrongFamily := Datagram{Payload: []byte{0}, Remote: at("::1", 9)}
	mixed := Datagram{Payload: []byte{0}, Remote: server.Addr, Local: netip.IPv6Loopback()}
	tests := []struct {
		name  string
		out   []Datagram
		errno syscall.Errno
		want  []byte
	}{
		{"none refused", []Datagram{good(1), good(2), good(3)}, 0, []byte{1, 2, 3}},
		{"nothing to send", nil, 0, nil},
		{"first", []Datagram{tooLong, good(2), good(3)}, unix.EMSGSIZE, []byte{2, 3}},
		{"middle", []Datagram{good(1), tooLong, good(3)}, unix.EMSGSIZE, []byte{1, 3}},
		{"last", []Datagram{good(1), good(2), tooLong}, unix.EMSGSIZE, []byte{1, 2}},
		{"two in a row", []Datagram{good(1), tooLong, notOurs, good(4)}, unix.EMSGSIZE, []byte{1, 4}},
		{"wrong family", []Datagram{good(1), wrongFamily, good(3), tooLong}, unix.EAFNOSUPPORT, []byte{1, 3}},
		{"two families", []Datagram{mixed, good(2)}, unix.EAFNOSUPPORT, []byte{2}},
		{"no address", []Datagram{{Payload: []byte{0}}, good(2)}, unix.EAFNOSUPPORT, []byte{2}},
		{"wrong family second", []Datagram{tooLong, wrongFamily, good(3)}, unix.EMSGSIZE, []byte{3}},
		{"wrong family first", []Datagram{wrongFamily, tooLong, good(3)}, unix.EAFNOSUPPORT, []byte{3}},
		{"all", []Datagram{tooLong, wrongFamily}, unix.EMSGSIZE, nil},
	}
	for _, test := range tests {
		for _, size := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%s, batch of %d", test.name, size), func(t *testing.T) {
				b := NewBatch(size, 100)
				err := b.Write(client.Packet, test.out)
				switch {
				case test.errno == 0 && err != nil:
					t.Errorf("Write: %v", err)
				case test.errno != 0 && err == nil:
					t.Error("Write reported no error")
				case test.errno != 0 && !errors.Is(err, test.errno):
					t.Errorf("Write: %v, want the first error, %v", err, test.errno)
				}
				var got []byte
				for len(got) < len(test.want) {
					for _, d := range read(t, b, server.Packet) {
						got = append(got, d.Payload...)
					}
				}
				if !bytes.Equal(got, test.want) {
					t.Errorf("arrived: %v, want %v", got, test.want)
				}
			})
		}
	}
}

// echo sends n datagrams from client to server and back from server to client, one batch each way.
func echo(tb testing.TB, client, server *PacketConn, cb, sb *Batch, calls []Datagram) {
	if err := cb.Write(client, calls); err != nil {
		tb.Fatal(err)
	}
	for n := 0; n < len(calls); {
		got, err := sb.Read(server)
		if err != nil {
			tb.Fatal(err)
		}
		if err := sb.Write(server, got); err != nil {
			tb.Fatal(err)
		}
		n += len(got)
	}
	for n := 0; n < len(calls); {
		got, err := cb.Read(client)
		if err != nil {
			tb.Fatal(err)
		}
		n += len(got)
	}
}

func echoSetup(tb testing.TB, addr string, n int) (client, server *PacketConn, cb, sb *Batch, calls []Datagram) {
	var socks [2]*Socket
	for i := range socks {
		s, err := ListenUDP(netip.MustParseAddrPort(addr))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { s.Close() })
		socks[i] = s
	}
	for range n {
		calls = append(calls, Datagram{Payload: make([]byte, 56), Remote: socks[1].Addr})
	}
	return socks[0].Packet, socks[1].Packet, NewBatch(n, 512), NewBatch(n, 512), calls
}

func TestBatchAllocates(t *testing.T) {
	needIPv6(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		client, server, cb, sb, calls := echoSetup(t, addr, 16)
		if n := testing.AllocsPerRun(200, func() { echo(t, client, server, cb, sb, calls) }); n != 0 {
			t.Errorf("%s: %v allocations for a batch of 16 there and back, want 0", addr, n)
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1, 32} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			client, server, cb, sb, calls := echoSetup(b, "127.0.0.1:0", size)
			b.ReportAllocs()
			for b.Loop() {
				echo(b, client, server, cb, sb, calls)
			}
		})
	}
}

func TestBatchReadEnds(t *testing.T) {
	start := func(c *PacketConn) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := NewBatch(2, 100).Read(c)
			done <- err
		}()
		return done
	}
	t.Run("deadline", func(t *testing.T) {
		s := mustUDP(t, "127.0.0.1:0")
		done := start(s.Packet)
		if err := s.Packet.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v, want os.ErrDeadlineExceeded", err)
		}
		// The socket serves on when the deadline is taken away.
		b := NewBatch(1, 100)
		if err := b.Write(s.Packet, []Datagram{{Payload: []byte("x"), Remote: s.Addr}}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(s.Packet); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v, want os.ErrDeadlineExceeded although a datagram waits", err)
		}
		if got := read(t, b, s.Packet); string(got[0].Payload) != "x" {
			t.Errorf("Read: %q, want x", got[0].Payload)
		}
	})
	t.Run("close", func(t *testing.T) {
		s := mustUDP(t, "127.0.0.1:0")
		done := start(s.Packet)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v, want net.ErrClosed", err)
		}
		if err := NewBatch(1, 1).Write(s.Packet, []Datagram{{Remote: s.Addr}}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v, want net.ErrClosed", err)
		}
		if err := s.Packet.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetReadDeadline: %v, want net.ErrClosed", err)
		}
		if err := s.Packet.JoinGroup(netip.MustParseAddr("ff02::202"), 1); err == nil {
			t.Error("JoinGroup after Close succeeded")
		}
		if err := s.Packet.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
	})
}

// With IP_RECVERR the kernel reports an ICMP error about an earlier datagram as errno of the next call.
func TestBatchStepsOverICMP(t *testing.T) {
	gone := mustUDP(t, "127.0.0.1:0")
	gone.Close()
	s := mustUDP(t, "127.0.0.1:0")
	recverr := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1) }
	if err := control(s.Packet.file, recverr); err != nil {
		t.Fatal(err)
	}
	b := NewBatch(1, 100)
	refused := []Datagram{{Payload: []byte("nobody"), Remote: gone.Addr}}
	self := []Datagram{{Payload: []byte("self"), Remote: s.Addr}}
	for _, step := range [][]Datagram{self, refused, refused} { // loopback delivers the ICMP error within the call
		if err := b.Write(s.Packet, step); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	if got := read(t, b, s.Packet); string(got[0].Payload) != "self" {
		t.Errorf("Read: %q, want self", got[0].Payload)
	}
	for _, step := range [][]Datagram{refused, self} {
		if err := b.Write(s.Packet, step); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	if got := read(t, b, s.Packet); string(got[0].Payload) != "self" {
		t.Errorf("Read after a pending error in Write: %q, want self", got[0].Payload)
	}
}

func TestListenUDPBuffer(t *testing.T) {
	s := mustUDP(t, "127.0.0.1:0")
	var got int
	err := control(s.Packet.file, func(fd int) (err error) {
		got, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := 2 * receiveOctets // the kernel doubles what is asked for
	if os.Geteuid() != 0 {
		var maximum int
		text, err := os.ReadFile("/proc/sys/net/core/rmem_max")
		if err != nil {
			t.Skipf("the limit for unprivileged users is unknown: %v", err)
		}
		if _, err := fmt.Sscan(strings.TrimSpace(string(text)), &maximum); err != nil {
			t.Fatal(err)
		}
		want = 2 * min(receiveOctets, maximum)
	}
	if got != want {
		t.Errorf("receive buffer of %d octets, want %d", got, want)
	}
}
