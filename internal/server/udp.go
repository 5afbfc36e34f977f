package server

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

const (
	// batchSize is how many datagrams are read, and replies written, by one system call.
	batchSize = 32
	// datagramSize is the room for a received datagram in octets, rpcbind's. Of a longer one the rest is not seen.
	datagramSize = 9000
	// repliesKept is the largest buffer of replies in octets that a packetLoop keeps from one batch to the next.
	// A reply that turns out too large for a datagram may have passed through the buffer in full.
	repliesKept = 1 << 20
)

// memoryPause is how long a socket rests that couldn't be read, mostly because the kernel had no memory.
const memoryPause = 100 * time.Millisecond

// A packetLoop serves a UDP socket.
type packetLoop struct {
	server  *Server
	socket  *sys.Socket
	batch   *sys.Batch
	out     []sys.Datagram
	replies []byte           // the payloads of out
	callers []portmap.Caller // of the batch

	starved episode // it can't be read
	unsent  episode // it refuses to send
	beats   atomic.Uint64
}

func newPacketLoop(s *Server, socket *sys.Socket) *packetLoop {
	return &packetLoop{
		server:  s,
		socket:  socket,
		batch:   sys.NewBatch(batchSize, datagramSize),
		out:     make([]sys.Datagram, 0, batchSize),
		replies: make([]byte, 0, batchSize*portmap.MaxDatagram),
		callers: make([]portmap.Caller, 0, batchSize),
	}
}

func (l *packetLoop) stop() error { return l.socket.Packet.SetReadDeadline(longAgo()) }

func (l *packetLoop) pulse() (*sys.Socket, *atomic.Uint64) { return l.socket, &l.beats }

func (l *packetLoop) run(started func()) error {
	started()
	for {
		err := l.once()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && l.server.stopping.Load():
			if outlives(l.socket) {
				return nil
			}
			return l.drain()
		case isBroken(err):
			return fmt.Errorf("serve %s %v: %w", l.socket.Netid, l.socket.Addr, err)
		default: // ENOBUFS and ENOMEM, mostly
			if l.starved.begins() {
				l.server.config.Log.Warn("calls can't be received; trying again", "err", err)
			}
			l.server.pause(memoryPause, nil)
		}
	}
}

// drain answers the datagrams that the socket holds when Serve ends. Nobody else sets the deadline any more: stop was
// called once, and that is what led here.
func (l *packetLoop) drain() error {
	for end := time.Now().Add(grace); time.Now().Before(end); {
		if err := l.socket.Packet.SetReadDeadline(time.Now().Add(drainWait)); err != nil {
			return nil // closed: nothing is left to answer
		}
		if l.once() != nil {
			return nil
		}
	}
	return nil
}

// once reads a batch of datagrams, waiting for the first, and answers it. The error is about reading.
func (l *packetLoop) once() error {
	in, err := l.batch.Read(l.socket.Packet)
	if err != nil {
		return err
	}
	read := l.server.clock()
	l.beats.Add(1)
	l.answer(in)
	l.write(l.batch, l.out)
	if tell := l.server.config.Answered; tell != nil {
		l.tell(tell, l.server.at(read), l.server.clock()-read)
	}
	return nil
}

// write sends replies, by a batch that is the calling goroutine's.
func (l *packetLoop) write(batch *sys.Batch, out []sys.Datagram) {
	if err := batch.Write(l.socket.Packet, out); err != nil && l.unsent.begins() {
		// Any caller can bring this about, with a source address that there is no route to, say.
		l.server.config.Log.Warn("a reply could not be sent; further ones within a minute are not reported", "err", err)
	}
}

// tell passes on who sent the calls of the batch, whose calls stand side by side at once.
func (l *packetLoop) tell(f func(from *portmap.Caller, calls int, at time.Time, took time.Duration), at time.Time, took time.Duration) {
	for i := 0; i < len(l.callers); {
		first := &l.callers[i]
		calls := 1
		for i++; i < len(l.callers) && l.callers[i].Remote.Addr() == first.Remote.Addr() && l.callers[i].Self == first.Self; i++ {
			calls++
		}
		if !first.Self {
			f(first, calls, at, took)
		}
	}
}

// answer fills l.out with the replies to the datagrams of in, but those that the worker takes.
func (l *packetLoop) answer(in []sys.Datagram) {
	out, replies := l.out[:0], l.replies[:0]
	l.callers = l.callers[:0]
	for i := range in {
		d := &in[i]
		start := len(replies)
		from := l.caller(d)
		if !from.Self && l.server.config.Portmapper.MayWait(d.Payload) {
			l.server.worker.take(l, d, &from)
			continue
		}
		l.callers = append(l.callers, from)
		replies = l.server.config.Portmapper.AppendReply(replies, d.Payload, from)
		if len(replies) == start {
			continue
		}
		// If a later append moves replies, this slice keeps the array that it is in.
		out = append(out, sys.Datagram{
			Payload: replies[start:],
			Remote:  d.Remote,
			Local:   d.Local,
			Ifindex: d.Ifindex,
		})
	}
	l.out = out
	if cap(replies) <= repliesKept {
		l.replies = replies
	}
}

// caller describes the sender of a datagram.
func (l *packetLoop) caller(d *sys.Datagram) portmap.Caller {
	transport := portmap.UDP6
	if d.Remote.Addr().Is4() { // on a dual-stack socket as well
		transport = portmap.UDP
	}
	return portmap.Caller{
		Transport: transport,
		Remote:    d.Remote,
		Local:     netip.AddrPortFrom(d.Local, l.socket.Addr.Port()),
		Ifindex:   d.Ifindex,
		Loopback:  d.Ifindex != 0 && l.server.config.Loopback(d.Ifindex),
		Multicast: d.Multicast,
		Hops:      d.Hops,
		Self:      l.server.probed.has(d.Remote),
	}
}
