package server

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

const (
	// streamEvents is how many connections with input are served before the loop looks for more.
	streamEvents = 128
	// acceptsAtOnce is how many connections are taken from a listener before those that are open are served again.
	acceptsAtOnce = 64
	// acceptsAtEnd is how many are taken when Serve ends: no listener's queue is longer, but under a stream of new ones
	// there would be no other end.
	acceptsAtEnd = 4096
)

// A streamLoop serves every TCP socket and all their connections in one goroutine, by epoll(7). A goroutine for each
// connection, as local ones have, is 4 KiB and a wake-up for each call.
type streamLoop struct {
	server    *Server
	poller    *sys.Poller
	listeners []*streamListener

	// Only the loop's goroutine uses what follows.
	table    []*streamConnection // by slot; nil where it is free
	free     []uint32
	idle     streamList // waits for calls
	pending  streamList // for the rest of a record
	blocked  streamList // for the client to read
	lingers  streamList
	ready    []*streamConnection // have records to be answered
	in       *[readSize]byte
	out      replies // of a turn
	parts    [][]byte
	gather   sys.Gather
	now      time.Duration // of the Server's clock, when the last wait ended
	draining bool
	resting  bool          // listeners aren't watched, for want of descriptors
	rested   time.Duration // until then

	open int // connections

	wishes chan wish
	retry  atomic.Bool // a descriptor may have come free
	broken atomic.Pointer[streamListener]
	end    atomic.Int64
	ended  chan struct{} // closed when run has returned
	failed error         // why, once it has
}

// A streamListener is one of its sockets.
type streamListener struct {
	loop   *streamLoop
	socket *sys.Socket
	name   string
	fd     int
	v6     bool
	beats  atomic.Uint64
	closed <-chan struct{} // by its owner, while it is served
}

// listenerToken is the token of the first listener; those of connections are their slots.
const listenerToken = 1 << 32

// newStreamLoop returns a loop for listening TCP sockets.
func newStreamLoop(s *Server, sockets []*sys.Socket) (*streamLoop, error) {
	l := &streamLoop{
		server: s,
		in:     new([readSize]byte),
		out:    replies{own: make([]byte, 0, 4<<10)},
		wishes: make(chan wish, 1),
		ended:  make(chan struct{}),
	}
	l.limit()
	for _, socket := range sockets {
		fd, err := sys.ServedTCP(socket)
		if err != nil {
			l.release()
			return nil, fmt.Errorf("serve %s: %w", nameOf(socket), err)
		}
		a := &streamListener{loop: l, socket: socket, name: nameOf(socket), fd: fd, v6: socket.Addr.Addr().Is6()}
		if c, ok := socket.Listener.(interface{ Closed() <-chan struct{} }); ok {
			a.closed = c.Closed()
		}
		l.listeners = append(l.listeners, a)
	}
	var err error
	if l.poller, err = sys.NewPoller(streamEvents); err == nil {
		err = l.watchListeners(true)
	}
	if err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// release closes what is the loop's own.
func (l *streamLoop) release() {
	for _, a := range l.listeners {
		_ = syscall.Close(a.fd) // a duplicate
	}
	if l.poller != nil {
		_ = l.poller.Close()
	}
}

// watchListeners begins to watch the listeners, for the first time or again.
func (l *streamLoop) watchListeners(first bool) error {
	for i, a := range l.listeners {
		watch := l.poller.Change
		if first {
			watch = l.poller.Watch
		}
		if err := watch(a.fd, listenerToken+uint64(i), !l.resting, false); err != nil {
			return fmt.Errorf("serve %s: %w", a.name, err)
		}
	}
	return nil
}

// run is the part of the loop that its goroutine does. It ends when everything was answered after stop, or with an error.
func (l *streamLoop) run() {
	defer close(l.ended)
	defer l.release()
	for {
		if l.failed = l.once(); l.failed != nil || l.draining && l.open == 0 {
			break
		}
	}
	for _, c := range l.table {
		if c != nil {
			l.close(c)
		}
	}
}

// once waits and serves everything that has come.
func (l *streamLoop) once() error {
	n, err := l.poller.Wait(l.timeout())
	if err != nil {
		return err
	}
	l.now = l.server.clock()
	for i := range n {
		e := l.poller.Event(i)
		if e.Token >= listenerToken {
			if err := l.accept(l.listeners[e.Token-listenerToken]); err != nil {
				return err
			}
			continue
		}
		c := l.table[e.Token]
		if c != nil && e.Readable {
			l.readable(c)
		}
		if c = l.table[e.Token]; c != nil && e.Writable {
			l.writable(c)
		}
	}
	l.turns()
	l.limit()
	l.expire()
	l.grant()
	return l.controls()
}

// limit takes the time limits as they are now.
func (l *streamLoop) limit() {
	limits := l.server.limits.Load()
	l.idle.limit, l.pending.limit = limits.IdleTimeout, limits.RecordTimeout
	l.blocked.limit, l.lingers.limit = limits.WriteTimeout, lingerTime
}

// turns gives a turn to each connection that has records left.
func (l *streamLoop) turns() {
	ready := l.ready
	l.ready = nil
	for _, c := range ready {
		switch {
		case l.table[c.slot] != c || c.unsent != nil: // closed meanwhile, or not reading
		case c.in != nil:
			l.answer(c)
		default:
			l.readable(c) // drain what it has sent
		}
	}
}

// timeout is how long to wait: until a connection's time is over, or something else has to be done.
func (l *streamLoop) timeout() time.Duration {
	if len(l.ready) > 0 {
		return 0
	}
	next := time.Duration(-1)
	sooner := func(t time.Duration) {
		if next < 0 || t < next {
			next = t
		}
	}
	for _, list := range l.lists() {
		if due, ok := list.due(); ok {
			sooner(due)
		}
	}
	if l.resting {
		sooner(l.rested)
	}
	if l.draining {
		sooner(time.Duration(l.end.Load()))
	}
	if next < 0 {
		return -1
	}
	return max(next-l.server.clock(), 0)
}

func (l *streamLoop) lists() [4]*streamList {
	return [...]*streamList{&l.idle, &l.pending, &l.blocked, &l.lingers}
}

// expire closes the connections whose time is over.
func (l *streamLoop) expire() {
	for _, list := range l.lists() {
		for {
			due, ok := list.due()
			if !ok || due > l.now {
				break
			}
			l.close(list.first)
		}
	}
}

// controls does what others asked for by a wake-up, and rests or ends rests.
func (l *streamLoop) controls() error {
	if a := l.broken.Load(); a != nil {
		return fmt.Errorf("serve %s: %w", a.name, net.ErrClosed)
	}
	if l.resting && (l.now >= l.rested || l.retry.Swap(false)) {
		l.resting = false
		if err := l.watchListeners(false); err != nil {
			return err
		}
	}
	end := time.Duration(l.end.Load())
	if end == 0 {
		return nil
	}
	if !l.draining {
		return l.drain()
	}
	if l.now >= end {
		for _, c := range l.table {
			if c != nil {
				l.close(c)
			}
		}
	}
	return nil
}

// drain takes the connections that were made before Serve ended, and has what every one has sent answered.
func (l *streamLoop) drain() error {
	for _, a := range l.listeners {
		if outlives(a.socket) {
			continue
		}
		if err := l.accept(a); err != nil {
			return err
		}
	}
	// No more of them.
	l.resting, l.rested = true, time.Duration(l.end.Load())
	if err := l.watchListeners(false); err != nil {
		return err
	}
	l.draining = true
	for _, c := range l.table {
		switch {
		case c == nil || c.unsent != nil || c.in != nil:
		case c.linger || l.handOver(c):
			l.close(c)
		default:
			c.leave()
			l.ready = append(l.ready, c)
		}
	}
	return nil
}

// stop makes the loop answer what has come and be over at the time end at the latest.
func (l *streamLoop) stop(end time.Time) {
	l.end.CompareAndSwap(0, int64(end.Sub(l.server.epoch)))
	l.poller.Wake()
}
