package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// relayRig is an open relay, the socket that it answers by, a service to call and somebody who asks for it.
type relayRig struct {
	*Relay
	t       *testing.T
	socket  *sys.Socket
	service *net.UDPConn
	caller  *client
	replies chan []byte // what the portmapper was given to encode
}

func newRelayRig(t *testing.T, timeout time.Duration) *relayRig {
	r := &relayRig{
		Relay:   NewRelay(timeout),
		t:       t,
		socket:  listenUDP(t, addrPort("0.0.0.0:0")),
		service: newService(t),
		replies: make(chan []byte, 2*DefaultMaxInFlight),
	}
	New(Config{Relay: r.Relay, Portmapper: &fake{
		remote: func(_ *portmap.RemoteCall, reply []byte) { r.replies <- reply },
	}})
	r.open([]*sys.Socket{r.socket, listenTCP(t)})
	t.Cleanup(func() { r.close(longAgo()) })
	// Connected to another of our addresses than 127.0.0.1: an answer has to come from there.
	r.caller = dial(t, &sys.Socket{Netid: "udp", Addr: r.local()})
	return r
}

func newService(t *testing.T) *net.UDPConn {
	t.Helper()
	service, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback4))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close() })
	if err := service.SetDeadline(time.Now().Add(aWhile)); err != nil {
		t.Fatal(err)
	}
	return service
}

func (r *relayRig) local() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), r.socket.Addr.Port())
}

// call is what the caller asks for.
func (r *relayRig) call(xid uint32, args string) portmap.RemoteCall {
	return portmap.RemoteCall{
		From: portmap.Caller{
			Transport: portmap.UDP,
			Remote:    r.caller.LocalAddr().(*net.UDPAddr).AddrPort(),
			Local:     r.local(),
		},
		XID:       xid,
		Version:   2,
		Procedure: 5,
		Target:    r.service.LocalAddr().(*net.UDPAddr).AddrPort(),
		Program:   100099,
		Vers:      3,
		Proc:      4,
		Args:      []byte(args),
	}
}

func (r *relayRig) forward(c portmap.RemoteCall) {
	r.t.Helper()
	if err := r.Forward(c); err != nil {
		r.t.Fatalf("Forward: %v", err)
	}
}

// receive takes a call as the service.
func (r *relayRig) receive() (oncrpc.Call, netip.AddrPort) {
	r.t.Helper()
	buf := make([]byte, 65536)
	n, from, err := r.service.ReadFromUDPAddrPort(buf)
	if err != nil {
		r.t.Fatalf("the service waits for a call: %v", err)
	}
	c, err := oncrpc.ParseCall(buf[:n])
	if err != nil {
		r.t.Fatal(err)
	}
	return c, from
}

// answer sends a reply as the service.
func (r *relayRig) answer(xid uint32, rest string, to netip.AddrPort) {
	r.t.Helper()
	send(r.t, r.service, xid, rest, to)
}

func send(t *testing.T, conn *net.UDPConn, xid uint32, rest string, to netip.AddrPort) {
	t.Helper()
	b := append(binary.BigEndian.AppendUint32(nil, xid), rest...)
	if _, err := conn.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

// expectFailure waits for the portmapper to be told that there is no reply.
func (r *relayRig) expectFailure() {
	r.t.Helper()
	select {
	case reply := <-r.replies:
		if reply != nil {
			r.t.Errorf("reply %.40q, want none", reply)
		}
	case <-time.After(aWhile):
		r.t.Fatal("the relay doesn't give up")
	}
	r.caller.expectDatagram("remote failed")
}

func TestRelayForwards(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	c := r.call(77, "arguments...")
	r.forward(c)
	copy(c.Args, "overwritten!") // by the next call in the server's buffer
	got, from := r.receive()
	if got.Program != 100099 || got.Version != 3 || got.Procedure != 4 || string(got.Args) != "arguments..." {
		t.Errorf("the service was called with %+v", got)
	}
	if got.Cred.Flavor != oncrpc.AuthNone || len(got.Cred.Body) != 0 || got.Verf.Flavor != oncrpc.AuthNone {
		t.Errorf("credential %v, verifier %v, want AUTH_NONE", got.Cred, got.Verf)
	}
	if !from.Addr().Unmap().IsLoopback() || from.Port() == r.socket.Addr.Port() {
		t.Errorf("the service was called from %v", from)
	}
	r.answer(got.XID, "result", from)
	r.caller.expectDatagram("remote:result")
}

func TestRelayForwardsOverIPv6(t *testing.T) {
	if !sys.IPv6Available() {
		t.Skip("this host has no IPv6")
	}
	r := newRelayRig(t, time.Hour)
	r.socket = listenUDP(t, addrPort("[::1]:0"))
	r.open([]*sys.Socket{r.socket})
	r.caller = dial(t, r.socket)
	var err error
	if r.service, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addrPort("[::1]:0"))); err != nil {
		t.Fatal(err)
	}
	defer r.service.Close()
	c := r.call(1, "")
	c.From.Transport, c.From.Local = portmap.UDP6, r.socket.Addr
	r.forward(c)
	got, from := r.receive()
	r.answer(got.XID, "six", from)
	r.caller.expectDatagram("remote:six")
}

// The caller can't guess the xid, so it can't forge a reply.
func TestRelayXIDs(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	seen := map[uint32]bool{}
	for i := range uint32(8) {
		r.forward(r.call(i, ""))
		c, _ := r.receive()
		seen[c.XID] = true
	}
	small := 0
	for xid := range seen {
		if xid < 1<<16 {
			small++
		}
	}
	if len(seen) != 8 || small > 2 {
		t.Errorf("xids %v don't look random", seen)
	}
}

// A retransmission is not forwarded while the call is in flight; another call of the same caller is.
func TestRelayDuplicates(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	changes := []func(c *portmap.RemoteCall){
		func(c *portmap.RemoteCall) {},
		func(c *portmap.RemoteCall) { c.XID++ },
		func(c *portmap.RemoteCall) { c.Version = 3 },
		func(c *portmap.RemoteCall) { c.Procedure = 10 },
		func(c *portmap.RemoteCall) { c.From.Remote = addrPort("127.0.0.1:1") },
		func(c *portmap.RemoteCall) { c.From.Ifindex = 5 },
	}
	for round := range 2 {
		for i, change := range changes {
			c := r.call(1, fmt.Sprintf("%d.%d ", round, i))
			change(&c)
			r.forward(c)
			c.Args = []byte("duplicate   ")
			r.forward(c)
		}
		for i := range changes {
			got, from := r.receive()
			if want := fmt.Sprintf("%d.%d ", round, i); string(got.Args) != want {
				t.Fatalf("call %q, want %q", got.Args, want)
			}
			r.answer(got.XID, "", from)
		}
		r.done.Wait() // what is answered isn't in flight any more, and may come again
	}
}

func TestRelayTimeout(t *testing.T) {
	r := newRelayRig(t, 10*time.Millisecond)
	r.forward(r.call(1, ""))
	r.receive() // and no answer
	r.expectFailure()
}

func TestRelayRefused(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	c := r.call(1, "")
	r.service.Close()
	r.forward(c)
	r.expectFailure()
}

func TestRelayCallThatCannotBeSent(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	c := r.call(1, strings.Repeat("x", 1<<16)) // longer than any datagram
	for range 2 {                              // the second is no retransmission of one in flight
		if err := r.Forward(c); err == nil || !strings.Contains(err.Error(), c.Target.String()) {
			t.Errorf("Forward: %v, want an error that names the target", err)
		}
	}
	if len(r.flights) != 0 || len(r.perCaller) != 0 {
		t.Error("a call that couldn't be sent takes room")
	}
}

func TestRelayIgnoresWrongReplies(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	r.forward(r.call(1, ""))
	got, from := r.receive()
	r.answer(got.XID+1, "wrong xid", from)
	send(t, newService(t), got.XID, "wrong source", from)
	if _, err := r.service.WriteToUDPAddrPort([]byte{1, 2, 3}, from); err != nil {
		t.Fatal(err)
	}
	r.answer(got.XID, "right", from)
	r.caller.expectDatagram("remote:right")
}

func TestRelayReplySizes(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	r.forward(r.call(1, ""))
	got, from := r.receive()
	longest := strings.Repeat("x", maxReply-4)
	r.answer(got.XID, longest, from)
	r.caller.expectDatagram("remote:" + longest)
	<-r.replies

	r.forward(r.call(2, ""))
	got, from = r.receive()
	r.answer(got.XID, longest+"x", from)
	r.expectFailure()
}

// Calls that nobody answers lock nobody out: the oldest is given up, that of the same caller where one has its share.
func TestRelayLimits(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	number := 0
	call := func(caller string) portmap.RemoteCall {
		number++
		c := r.call(uint32(number), fmt.Sprintf("%04d", number))
		c.From.Remote = addrPort(caller)
		return c
	}
	forwarded := func(c portmap.RemoteCall) {
		t.Helper()
		r.forward(c)
		if got, _ := r.receive(); string(got.Args) != string(c.Args) {
			t.Fatalf("the service got %q, want %q", got.Args, c.Args)
		}
	}
	inFlight := func(caller string) (n int, oldest uint32) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for k := range r.flights {
			if k.remote.Addr() == addrPort(caller).Addr() {
				if n++; oldest == 0 || k.xid < oldest {
					oldest = k.xid
				}
			}
		}
		return n, oldest
	}
	go func() {
		for {
			select {
			case <-r.replies:
			case <-t.Context().Done():
				return
			}
		}
	}()
	const share = DefaultMaxInFlight / callerShare
	callers := []string{"127.0.0.1:9", "127.0.0.2:9", "127.0.0.3:9", "127.0.0.4:9"}
	for _, caller := range callers {
		for range share {
			forwarded(call(caller))
		}
	}
	// A retransmission is silent even then.
	again := call(callers[3])
	number--
	again.XID = uint32(number)
	r.forward(again)
	if n, oldest := inFlight(callers[1]); n != share || oldest != share+1 {
		t.Fatalf("%d calls, the oldest %d", n, oldest)
	}
	forwarded(call("127.0.0.2:10")) // another port makes no other caller
	if n, oldest := inFlight(callers[1]); n != share || oldest != share+2 {
		t.Errorf("after one more of a caller with its share: %d calls, the oldest %d, want %d, %d", n, oldest, share, share+2)
	}
	if n, oldest := inFlight(callers[0]); n != share || oldest != 1 {
		t.Errorf("another caller then has %d calls, the oldest %d", n, oldest)
	}
	for i := range 2 * DefaultMaxInFlight {
		forwarded(call(fmt.Sprintf("127.0.1.%d:9", i)))
	}
	for _, caller := range callers {
		if n, _ := inFlight(caller); n != 0 {
			t.Errorf("%d calls of %s are older than those of others", n, caller)
		}
	}
	if len(r.flights) != DefaultMaxInFlight {
		t.Errorf("%d calls are in flight, want %d", len(r.flights), DefaultMaxInFlight)
	}
	r.close(longAgo())
	if len(r.flights) != 0 || len(r.perCaller) != 0 {
		t.Errorf("%d calls and %d callers are left", len(r.flights), len(r.perCaller))
	}
}

// Who has the answer may use the xid again at once.
func TestRelaySameXIDAfterTheAnswer(t *testing.T) {
	r := newRelayRig(t, time.Hour)
	for i := range 300 {
		r.forward(r.call(7, fmt.Sprintf("%04d", i)))
		got, from := r.receive()
		if want := fmt.Sprintf("%04d", i); string(got.Args) != want {
			t.Fatalf("the service got %q, want %q", got.Args, want)
		}
		r.answer(got.XID, "yes", from)
		<-r.replies
		r.caller.expectDatagram("remote:yes")
	}
}

func TestRelayIsOpenOnlyWhileServing(t *testing.T) {
	relay := NewRelay(0)
	if relay.timeout != DefaultRelayTimeout {
		t.Errorf("timeout %v, want the default", relay.timeout)
	}
	udp, service := listenUDP(t, loopback4), newService(t)
	replies := make(chan []byte, 1)
	failed := make(chan error, 1)
	p := &fake{remote: func(_ *portmap.RemoteCall, reply []byte) { replies <- reply }}
	p.observe = func(call []byte, from portmap.Caller) {
		failed <- relay.Forward(portmap.RemoteCall{
			From:   from,
			Target: service.LocalAddr().(*net.UDPAddr).AddrPort(),
			Args:   call,
		})
	}
	if err := relay.Forward(portmap.RemoteCall{}); !errors.Is(err, ErrRelayClosed) {
		t.Errorf("Forward before Serve: %v", err)
	}
	s := start(t, Config{Portmapper: p, Relay: relay}, udp)
	c := dial(t, udp)
	c.send([]byte("!call"))
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	// The service doesn't answer, and would have 10 s, but the server ends.
	s.stop(t)
	select {
	case reply := <-replies:
		if reply != nil {
			t.Errorf("reply %q", reply)
		}
	default:
		t.Error("a call outlived Serve")
	}
	c.expectDatagram("remote failed")
	if err := relay.Forward(portmap.RemoteCall{}); !errors.Is(err, ErrRelayClosed) {
		t.Errorf("Forward after Serve: %v", err)
	}
}

func TestRelaySocketOf(t *testing.T) {
	socket := func(a string, dual bool) *sys.Socket {
		return &sys.Socket{Addr: addrPort(a), DualStack: dual, Packet: new(sys.PacketConn)}
	}
	any4, any6, dual := socket("0.0.0.0:111", false), socket("[::]:111", false), socket("[::]:222", true)
	one, six := socket("192.0.2.1:111", false), socket("[2001:db8::1]:111", false)
	r := NewRelay(0)
	r.open([]*sys.Socket{any4, one, any6, six, dual})
	for _, test := range []struct {
		transport portmap.Transport
		local     netip.AddrPort
		want      *sys.Socket
	}{
		{portmap.UDP, addrPort("192.0.2.1:111"), one},
		{portmap.UDP, addrPort("192.0.2.2:111"), any4},
		{portmap.UDP6, addrPort("[2001:db8::1]:111"), six},
		{portmap.UDP6, addrPort("[::1]:111"), any6},
		{portmap.UDP6, netip.AddrPortFrom(netip.Addr{}, 111), any6},
		{portmap.UDP, netip.AddrPortFrom(netip.Addr{}, 111), any4},
		{portmap.UDP, addrPort("192.0.2.1:222"), dual},
		{portmap.UDP6, addrPort("[::1]:222"), dual},
		{portmap.UDP, addrPort("192.0.2.1:333"), nil},
	} {
		var want *sys.PacketConn
		if test.want != nil {
			want = test.want.Packet
		}
		got := r.socketOf(&portmap.Caller{Transport: test.transport, Local: test.local})
		if got != want {
			t.Errorf("%v to %v: the wrong socket", test.transport, test.local)
		}
	}
}
