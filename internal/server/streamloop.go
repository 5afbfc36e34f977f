package server

import (
	"fmt"
	"net"
	"sync"
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

// A streamLoop serves every TCP and local socket and all their connections in one goroutine at a time, by epoll(7). A goroutine
// for each connection is 4 KiB and a wake-up for each call.
type streamLoop struct {
	server    *Server
	poller    *sys.Poller
	listeners []*streamListener

	// Only the goroutine whose shift it is uses what follows.
	shift    *shift
	table    []*streamConnection // by slot; nil where it is free
	free     []uint32
	lists    streamLists
	ready    []*streamConnection // have records to be answered
	now      time.Duration       // of the Server's clock, when the last wait ended
	draining bool
	resting  bool          // listeners aren't watched, for want of descriptors
	rested   time.Duration // until then
	open     int           // connections
	many     bool          // calls of one client have just come
	pass     int           // how many times not to look for more of these
	passes   int           // what pass was when that was last in vain
	late     int           // shifts that are over and whose goroutines still do something
	busy     int           // how many of these answer a call
	slow     bool          // a call that may wait was answered since the last wait
	parked   []*streamConnection
	unread   unread

	mu      sync.Mutex
	through []func() // what these have left to be done

	broken atomic.Pointer[streamListener]
	end    atomic.Int64
	ended  chan struct{} // closed when the last shift is over
	failed error         // why, once it is
}

// A streamListener is one of its sockets.
type streamListener struct {
	loop   *streamLoop
	socket *sys.Socket
	name   string
	fd     int
	local  bool
	v6     bool
	beats  atomic.Uint64
	closed <-chan struct{} // by its owner, while it is served
}

// listenerToken is the token of the first listener; those of connections are their slots.
const listenerToken = 1 << 32

// newStreamLoop returns a loop for listening TCP and local sockets.
func newStreamLoop(s *Server, sockets []*sys.Socket) (*streamLoop, error) {
	l := &streamLoop{server: s, ended: make(chan struct{})}
	l.shift = l.newShift()
	l.limit()
	for _, socket := range sockets {
		fd, err := sys.Served(socket)
		if err != nil {
			l.release()
			return nil, fmt.Errorf("serve %s: %w", nameOf(socket), err)
		}
		a := &streamListener{loop: l, socket: socket, name: nameOf(socket), fd: fd, local: socket.Path != "", v6: socket.Addr.Addr().Is6()}
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

// run is a shift: it ends when everything was answered after stop, or with an error, or when another one has begun.
func (l *streamLoop) run() {
	for l.failed == nil && !(l.draining && l.open == 0) {
		l.failed = l.once()
	}
	for _, c := range l.table {
		if c != nil && !c.away {
			l.abandon(c)
		}
	}
	for l.late > 0 { // no goroutine outlives Serve
		time.Sleep(time.Millisecond)
		l.takeBack()
	}
	for _, c := range l.table {
		if c != nil {
			l.abandon(c)
		}
	}
	l.release()
	close(l.ended)
}

// abandon closes a connection at the end.
func (l *streamLoop) abandon(c *streamConnection) {
	if c.isKept() {
		_ = syscall.Shutdown(c.fd, syscall.SHUT_WR)
		l.server.config.Keeper.Forget(c.keeping.conn)
		c.keeping.kept = false
	}
	l.drop(c)
}

// once waits and serves everything that has come.
func (l *streamLoop) once() error {
	n, err := l.wait()
	if isBroken(err) {
		return err
	}
	if err != nil { // it says nothing about the descriptors: look again
		l.server.config.Log.Debug("wait for connections", "err", err)
		time.Sleep(time.Millisecond)
		n = 0
	}
	l.now, l.slow = l.server.clock(), false
	l.takeBack()
	for i := range n {
		e := l.poller.Event(i)
		if e.Token >= listenerToken {
			if err := l.accept(l.listeners[e.Token-listenerToken]); err != nil {
				return err
			}
			continue
		}
		c := l.table[e.Token]
		if c != nil && c.away {
			c.ignored = c.ignored || l.poller.Ignore(c.fd) == nil
			continue
		}
		if c != nil && e.Readable {
			l.readable(c)
		}
		if c = l.table[e.Token]; c != nil && !c.away && e.Writable {
			l.writable(c)
		}
	}
	l.turns()
	l.slowTurns()
	l.limit()
	l.expire()
	l.shed()
	return l.controls()
}

const (
	// manyCalls is how many calls of one client make it likely that more of it come at once: it has many in flight, and goes on
	// when it has the replies.
	manyCalls = 16
	// lookFor is how long the loop looks for these before it sleeps, about the time in which a client wakes up and sends.
	// To be woken oneself takes as long again.
	lookFor = 50 * time.Microsecond
	// mostPasses is how many times in a row the loop may sleep at once because it had looked in vain.
	mostPasses = 1024
)

// wait waits for something to do and returns how many events the poller has.
func (l *streamLoop) wait() (int, error) {
	timeout := l.timeout()
	look := l.many && timeout != 0
	if look {
		l.many = false
	}
	if look && l.pass > 0 {
		l.pass--
		look = false
	}
	if look {
		n, woken, err := l.poller.Look(lookFor)
		if n > 0 || err != nil {
			l.passes = 0
			return n, err
		}
		if woken { // somebody asks for something: see once
			return 0, nil
		}
		l.passes = min(2*l.passes+1, mostPasses)
		l.pass = l.passes
		timeout = l.timeout()
	}
	n, _, err := l.poller.Wait(timeout)
	return n, err
}

// limit takes the time limits as they are now.
func (l *streamLoop) limit() {
	limits := l.server.limits.Load()
	for i := range l.lists {
		p := &l.lists[i]
		p[idle].limit, p[pending].limit = limits.IdleTimeout, limits.RecordTimeout
		p[blocked].limit, p[lingers].limit, p[young].limit = limits.WriteTimeout, lingerTime, limits.KeepAfter
	}
}

// turns gives a turn to each connection that has records left.
func (l *streamLoop) turns() {
	for range len(l.ready) {
		c := l.ready[0]
		l.ready = l.ready[1:] // the rest is for the next shift if this one is late
		switch {
		case l.table[c.slot] != c || c.away || c.unsent != nil: // closed meanwhile, or not reading
		case c.in != nil:
			l.answer(c)
		default:
			l.readable(c) // drain what it has sent
		}
	}
	if len(l.ready) == 0 {
		l.ready = nil
	}
}

// timeout is how long to wait: until a connection's time is over, or something else has to be done.
func (l *streamLoop) timeout() time.Duration {
	if len(l.ready) > 0 || len(l.parked) > 0 && l.busy == 0 {
		return 0
	}
	next := time.Duration(-1)
	sooner := func(t time.Duration) {
		if next < 0 || t < next {
			next = t
		}
	}
	for i := range l.lists {
		for j := range l.lists[i] {
			if due, ok := l.lists[i][j].due(); ok {
				sooner(due)
			}
		}
	}
	if l.resting {
		sooner(l.rested)
	}
	if end := time.Duration(l.end.Load()); l.draining && l.now < end {
		sooner(end)
	}
	if next < 0 {
		return -1
	}
	return max(next-l.server.clock(), 0)
}

// expire closes the connections whose time is over.
func (l *streamLoop) expire() {
	for i := range l.lists {
		for j := range l.lists[i] {
			list := &l.lists[i][j]
			for due, ok := list.due(); ok && due <= l.now; due, ok = list.due() {
				if j == young {
					l.lasted(list.first)
				} else {
					l.close(list.first)
				}
			}
		}
	}
}

// controls does what others asked for by a wake-up, and rests or ends rests.
func (l *streamLoop) controls() error {
	if a := l.broken.Load(); a != nil {
		return fmt.Errorf("serve %s: %w", a.name, net.ErrClosed)
	}
	if l.resting && !l.draining && l.now >= l.rested {
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
			if c != nil && !c.away {
				l.abandon(c)
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
	for len(l.parked) > 0 {
		if c := l.unpark(); c != nil && c.in != nil {
			l.ready = append(l.ready, c)
		}
	}
	for _, c := range l.table {
		switch {
		case c == nil || c.away || c.unsent != nil || c.in != nil:
		case c.linger:
			l.abandon(c)
		case l.handOver(c):
			l.drop(c)
		case l.awaitsRest(c):
			c.leave()
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
