package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

const (
	// DefaultRelayTimeout is how long a service has to answer a relayed call. Callers by UDP send again after 3 to 5
	// seconds, and most have given up after 10. rpcbind waits 300 s, in which 64 calls that nobody answers keep
	// everybody else from being served.
	DefaultRelayTimeout = 10 * time.Second
	// DefaultMaxInFlight is how many relayed calls may wait for an answer, as many as rpcbind's. Each has a socket.
	DefaultMaxInFlight = 64
	// callerShare is which part of them one address may have. Beyond it, its oldest call is given up for its newest: as with
	// rpcbind, calls that nobody answers don't lock anybody out.
	callerShare = 4
	// maxReply is the size in octets of the longest answer of a service that is taken, rpcbind's limit.
	maxReply = 9000
)

// ErrRelayClosed says that the relay's server isn't serving.
var ErrRelayClosed = errors.New("server: the relay is not open")

// A Relay makes the calls that callers ask a portmapper to make for them. It is made first, then given to the
// portmapper, and then with the portmapper to [New]. Between Serve's begin and end it is open.
type Relay struct {
	timeout    time.Duration
	portmapper Portmapper
	log        *slog.Logger
	done       sync.WaitGroup

	mu        sync.Mutex
	opened    bool
	limit     int       // of flights
	end       time.Time // when every call has to be over; zero until close
	sockets   []*sys.Socket
	flights   map[flightKey]*flight
	perCaller map[netip.Addr]int
	admitted  uint64 // how many calls were
}

var _ portmap.Relay = (*Relay)(nil)

// NewRelay returns a Relay that waits so long for the answer of a service; zero stands for [DefaultRelayTimeout].
func NewRelay(timeout time.Duration) *Relay {
	if timeout == 0 {
		timeout = DefaultRelayTimeout
	}
	return &Relay{
		timeout:   timeout,
		limit:     DefaultMaxInFlight,
		flights:   make(map[flightKey]*flight),
		perCaller: make(map[netip.Addr]int),
	}
}

// SetLimit changes how many calls may wait for an answer.
func (r *Relay) SetLimit(calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = calls
}

func (r *Relay) bind(p Portmapper, log *slog.Logger) { r.portmapper, r.log = p, log }

// open lets calls in, which are answered by the UDP sockets among these.
func (r *Relay) open(sockets []*sys.Socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened = true
	for _, s := range sockets {
		if s.Packet != nil {
			r.sockets = append(r.sockets, s)
		}
	}
}

// close lets no more calls in, gives those in flight until end, and returns when they are over.
func (r *Relay) close(end time.Time) {
	r.mu.Lock()
	r.opened, r.end = false, end
	for _, f := range r.flights {
		if f.conn != nil && f.deadline.After(end) {
			_ = f.conn.SetReadDeadline(end)
		}
	}
	r.mu.Unlock()
	r.done.Wait()
}

// flightKey tells one call from another; a retransmission has the same.
type flightKey struct {
	remote                  netip.AddrPort
	ifindex                 uint32 // the scope of a link-local remote
	xid, version, procedure uint32
}

// A flight is a relayed call that waits for the service's answer.
type flight struct {
	relay  *Relay
	key    flightKey
	call   portmap.RemoteCall // without Args
	socket *sys.PacketConn    // to answer by
	xid    uint32             // ours

	number uint64 // in the order of admission

	// Relay.mu guards what follows until the flight's goroutine has started.
	conn     *net.UDPConn
	deadline time.Time
	left     bool // it has no slot any more
}

// Forward sends the call to its Target by a connected socket of its own: the kernel passes on no other peer's datagrams,
// and tells when nobody is there. The xid is random and the credential AUTH_NONE, so nothing of what the caller claimed
// to be reaches the service. When all slots are taken the oldest call is given up. The errors are [ErrRelayClosed] and those of
// the socket.
func (r *Relay) Forward(c portmap.RemoteCall) error {
	f, err := r.admit(&c)
	if f == nil || err != nil {
		return err
	}
	if err := f.send(c.Args); err != nil {
		f.leave()
		f.relay.done.Done()
		return fmt.Errorf("forward a call of program %d to %v: %w", c.Program, c.Target, err)
	}
	go f.wait()
	return nil
}

// admit makes room for a call. Nil and no error say that it is in flight already.
func (r *Relay) admit(c *portmap.RemoteCall) (*flight, error) {
	key := flightKey{c.From.Remote, c.From.Ifindex, c.XID, c.Version, c.Procedure}
	caller := c.From.Remote.Addr()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.flights[key]; ok {
		return nil, nil
	}
	socket := r.socketOf(&c.From)
	if !r.opened || socket == nil {
		return nil, ErrRelayClosed
	}
	if r.perCaller[caller] >= max(1, r.limit/callerShare) {
		r.giveUp(func(f *flight) bool { return f.key.remote.Addr() == caller })
	}
	for len(r.flights) >= max(1, r.limit) {
		r.giveUp(func(*flight) bool { return true })
	}
	r.admitted++
	// The xid can't be guessed: it is of the runtime's ChaCha8, with a key of the kernel's.
	f := &flight{relay: r, key: key, call: *c, socket: socket, xid: rand.Uint32(), number: r.admitted}
	f.call.Args = nil
	r.flights[key] = f
	r.perCaller[caller]++
	r.done.Add(1)
	return f, nil
}

// giveUp ends the oldest of those calls. The lock is held.
func (r *Relay) giveUp(of func(*flight) bool) {
	var oldest *flight
	for _, f := range r.flights {
		if of(f) && (oldest == nil || f.number < oldest.number) {
			oldest = f
		}
	}
	if oldest != nil {
		r.free(oldest)
	}
}

// free takes a call's slot and ends the wait for its answer. The lock is held.
func (r *Relay) free(f *flight) {
	if f.left {
		return
	}
	f.left = true
	if f.conn != nil {
		_ = f.conn.Close()
	}
	delete(r.flights, f.key)
	caller := f.key.remote.Addr()
	if r.perCaller[caller]--; r.perCaller[caller] == 0 {
		delete(r.perCaller, caller)
	}
}

// socketOf returns the socket that the call came by: the one bound to the address that the call was sent to, or else one
// bound to any address of that family, as the kernel chose. It is nil if that isn't ours.
func (r *Relay) socketOf(from *portmap.Caller) *sys.PacketConn {
	var wildcard *sys.PacketConn
	for _, s := range r.sockets {
		if s.Addr.Port() != from.Local.Port() {
			continue
		}
		if s.Addr.Addr() == from.Local.Addr() {
			return s.Packet
		}
		if s.Addr.Addr().IsUnspecified() && (s.DualStack || s.Addr.Addr().Is6() == from.Transport.IPv6()) {
			wildcard = s.Packet
		}
	}
	return wildcard
}

// send sends the call and sets the time by which it has to be answered.
func (f *flight) send(args []byte) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.call.Target))
	if err != nil {
		return err
	}
	f.relay.mu.Lock()
	f.conn, f.deadline = conn, time.Now().Add(f.relay.timeout)
	if f.left { // given up meanwhile
		_ = conn.Close()
	}
	if end := f.relay.end; !end.IsZero() && f.deadline.After(end) {
		f.deadline = end
	}
	err = conn.SetReadDeadline(f.deadline)
	f.relay.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = conn.Write(oncrpc.AppendCall(nil, oncrpc.Call{
		XID:       f.xid,
		Program:   f.call.Program,
		Version:   f.call.Vers,
		Procedure: f.call.Proc,
		Args:      args,
	}))
	return err
}

// leave gives the slot back.
func (f *flight) leave() {
	f.relay.mu.Lock()
	defer f.relay.mu.Unlock()
	f.relay.free(f)
}

// wait waits for the answer of the service and passes it on. The slot is free before that: the caller may use the xid again
// as soon as it has the answer.
func (f *flight) wait() {
	defer f.relay.done.Done()
	reply := f.receive()
	f.leave()
	out := f.relay.portmapper.AppendRemoteReply(nil, &f.call, reply)
	if len(out) == 0 {
		return
	}
	answer := [1]sys.Datagram{{
		Payload: out,
		Remote:  f.call.From.Remote,
		Local:   f.call.From.Local.Addr(),
		Ifindex: f.call.From.Ifindex,
	}}
	if err := sys.NewBatch(1, 1).Write(f.socket, answer[:]); err != nil {
		f.relay.log.Debug("the answer to a remote call could not be sent", "err", err)
	}
}

// receive returns the service's reply, or nil when there is none: it came too late, was too long, or nobody listens
// there, of which the kernel tells at once (ECONNREFUSED).
func (f *flight) receive() []byte {
	buf := make([]byte, maxReply+1)
	for {
		n, err := f.conn.Read(buf)
		switch {
		case err != nil || n > maxReply:
			return nil
		case n >= 4 && binary.BigEndian.Uint32(buf) == f.xid:
			return buf[:n]
		}
		// Anything else is a late answer to an earlier owner of our port, or forged.
	}
}
