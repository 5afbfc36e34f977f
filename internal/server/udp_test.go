package server

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

func TestUDPAnswersCalls(t *testing.T) {
	udp := listenUDP(t, loopback4)
	start(t, Config{Portmapper: &fake{}}, udp)
	a, b := dial(t, udp), dial(t, udp)
	a.send([]byte("one"))
	a.send(nil) // an empty datagram is a datagram
	b.send([]byte("two"))
	a.send([]byte("!silence"))
	a.send([]byte("three"))
	a.expectDatagram("re:one")
	a.expectDatagram("re:")
	a.expectDatagram("re:three")
	b.expectDatagram("re:two")
}

// A caller gets its answer from the address that it called: its socket takes no other.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	udp := listenUDP(t, addrPort("0.0.0.0:0"))
	start(t, Config{Portmapper: &fake{}}, udp)
	for _, a := range []string{"127.0.0.1", "127.0.0.2", "127.7.7.7"} {
		c := dial(t, &sys.Socket{Netid: "udp", Addr: netip.AddrPortFrom(netip.MustParseAddr(a), udp.Addr.Port())})
		c.send([]byte("call"))
		c.expectDatagram("re:call")
	}
}

func TestUDPCaller(t *testing.T) {
	lo := loopbackIndex(t)
	for _, test := range []struct {
		listen, ask string
		transport   portmap.Transport
	}{
		{"0.0.0.0:0", "127.0.0.3", portmap.UDP},
		{"127.0.0.1:0", "127.0.0.1", portmap.UDP},
		{"[::]:0", "::1", portmap.UDP6},
	} {
		t.Run(test.listen, func(t *testing.T) {
			if strings.Contains(test.listen, "::") && !sys.IPv6Available() {
				t.Skip("this host has no IPv6")
			}
			callers := make(chan portmap.Caller, 1)
			udp := listenUDP(t, addrPort(test.listen))
			start(t, Config{
				Portmapper: &fake{observe: func(_ []byte, from portmap.Caller) { callers <- from }},
				Loopback:   func(i uint32) bool { return i == lo },
			}, udp)
			local := netip.AddrPortFrom(netip.MustParseAddr(test.ask), udp.Addr.Port())
			c := dial(t, &sys.Socket{Netid: "udp", Addr: local})
			c.send([]byte("call"))
			want := portmap.Caller{
				Transport: test.transport,
				Remote:    c.LocalAddr().(*net.UDPAddr).AddrPort(),
				Local:     local,
				Ifindex:   lo,
				Loopback:  true,
				Hops:      64,
			}
			if got := <-callers; got != want {
				t.Errorf("caller %+v\nwant   %+v", got, want)
			}
		})
	}
}

func TestUDPCallerOfADatagram(t *testing.T) {
	s := New(Config{Portmapper: &fake{}, Loopback: func(i uint32) bool { return i < 2 }})
	socket := &sys.Socket{Netid: "udp6", Addr: addrPort("[::]:111"), DualStack: true}
	l := &packetLoop{server: s, socket: socket}
	for _, test := range []struct {
		name string
		d    sys.Datagram
		want portmap.Caller
	}{
		{
			"IPv4 on a dual-stack socket",
			sys.Datagram{
				Remote:  addrPort("192.0.2.1:700"),
				Local:   netip.MustParseAddr("192.0.2.9"),
				Ifindex: 2,
				Hops:    63,
			},
			portmap.Caller{
				Transport: portmap.UDP,
				Remote:    addrPort("192.0.2.1:700"),
				Local:     addrPort("192.0.2.9:111"),
				Ifindex:   2,
				Hops:      63,
			},
		},
		{
			"multicast, to no address of ours",
			sys.Datagram{Remote: addrPort("[fe80::1]:700"), Ifindex: 1, Multicast: true},
			portmap.Caller{
				Transport: portmap.UDP6,
				Remote:    addrPort("[fe80::1]:700"),
				Local:     netip.AddrPortFrom(netip.Addr{}, 111),
				Ifindex:   1,
				Loopback:  true,
				Multicast: true,
			},
		},
		{
			"an interface that the kernel didn't tell is not loopback",
			sys.Datagram{Remote: addrPort("127.0.0.1:7"), Local: netip.MustParseAddr("127.0.0.1")},
			portmap.Caller{
				Transport: portmap.UDP,
				Remote:    addrPort("127.0.0.1:7"),
				Local:     addrPort("127.0.0.1:111"),
			},
		},
	} {
		if got := l.caller(&test.d); got != test.want {
			t.Errorf("%s: caller %+v\nwant %+v", test.name, got, test.want)
		}
	}
}

// Of a datagram that is longer than the buffer, the octets that were received count as the call.
func TestUDPLongDatagram(t *testing.T) {
	udp := listenUDP(t, loopback4)
	start(t, Config{Portmapper: &fake{}}, udp)
	c := dial(t, udp)
	c.send(bytes.Repeat([]byte("x"), datagramSize+500))
	c.expectDatagram("re:" + strings.Repeat("x", datagramSize))
}

// A reply that can't be sent keeps back no other, and is logged once.
func TestUDPReplyThatCannotBeSent(t *testing.T) {
	var log logged
	udp := listenUDP(t, loopback4)
	held, let := make(chan struct{}), make(chan struct{})
	p := portmapperFunc(func(dst, call []byte, _ portmap.Caller) []byte {
		switch string(call) {
		case "hold":
			held <- struct{}{}
			<-let
		case "large":
			return append(dst, make([]byte, 1<<17)...)
		}
		return append(dst, call...)
	})
	start(t, Config{Portmapper: p, Log: log.logger()}, udp)
	c := dial(t, udp)
	c.send([]byte("hold"))
	<-held
	// These are read as one batch.
	for _, call := range []string{"a", "large", "b", "large", "c"} {
		c.send([]byte(call))
	}
	close(let)
	for _, want := range []string{"hold", "a", "b", "c"} {
		c.expectDatagram(want)
	}
	c.send([]byte("large"))
	c.send([]byte("d"))
	c.expectDatagram("d")
	if n := log.count("could not be sent"); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
}

// An outsized reply must not make the buffer of replies stay large, and a batch's replies have to survive its growth.
func TestUDPRepliesBuffer(t *testing.T) {
	p := portmapperFunc(func(dst, call []byte, _ portmap.Caller) []byte {
		if string(call) == "huge" {
			return append(dst, make([]byte, 2*repliesKept)...)
		}
		return append(dst, call...)
	})
	l := newPacketLoop(New(Config{Portmapper: p}), listenUDP(t, loopback4))
	before := cap(l.replies)
	l.answer([]sys.Datagram{{Payload: []byte("first")}, {Payload: []byte("huge")}, {Payload: []byte("last")}})
	if len(l.out) != 3 || string(l.out[0].Payload) != "first" || string(l.out[2].Payload) != "last" {
		t.Errorf("%d replies, %.10q first", len(l.out), l.out[0].Payload)
	}
	if cap(l.replies) != before {
		t.Errorf("a buffer of %d octets is kept, want %d", cap(l.replies), before)
	}
}

// udpRig is a packetLoop and a caller, driven by one goroutine: the body of a test and a benchmark.
type udpRig struct {
	loop   *packetLoop
	caller net.Conn
	call   []byte
	buf    []byte
}

func newUDPRig(t testing.TB) *udpRig {
	udp := listenUDP(t, loopback4)
	return &udpRig{
		loop:   newPacketLoop(New(Config{Portmapper: &fake{}}), udp),
		caller: dial(t, udp),
		call:   make([]byte, 56), // a GETPORT with AUTH_NONE
		buf:    make([]byte, 100),
	}
}

// exchange sends n calls, has them answered, and takes the replies.
func (r *udpRig) exchange(t testing.TB, n int) {
	for range n {
		if _, err := r.caller.Write(r.call); err != nil {
			t.Fatal(err)
		}
	}
	for answered := 0; answered < n; answered += len(r.loop.out) {
		if err := r.loop.once(); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if got, err := r.caller.Read(r.buf); err != nil || got != len(r.call)+3 {
			t.Fatalf("reply of %d octets, %v", got, err)
		}
	}
}

func TestUDPAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: .ci/unit runs this without it as well")
	}
	for _, n := range []int{1, batchSize} {
		r := newUDPRig(t)
		if got := testing.AllocsPerRun(200, func() { r.exchange(t, n) }); got != 0 {
			t.Errorf("%v allocations for a batch of %d calls, want 0", got, n)
		}
	}
}

// The caller's two system calls for each datagram are part of what is measured.
func BenchmarkUDP(b *testing.B) {
	for _, n := range []int{1, batchSize} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			r := newUDPRig(b)
			b.ReportAllocs()
			for done := 0; done < b.N; done += n {
				r.exchange(b, n)
			}
		})
	}
}
