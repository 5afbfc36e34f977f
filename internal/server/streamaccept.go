package server

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// run is that of a [loop]: the one goroutine of all listeners serves them.
func (a *streamListener) run(started func()) error {
	started()
	select {
	case <-a.loop.ended:
	case <-a.closed:
		a.loop.broken.Store(a)
		a.loop.poller.Wake()
		<-a.loop.ended
	}
	return a.loop.failed
}

func (a *streamListener) stop() error {
	a.loop.stop(time.Now().Add(grace))
	return nil
}

func (a *streamListener) pulse() (*sys.Socket, *atomic.Uint64) { return a.socket, &a.beats }

// accept takes connections from a listener, and all there are when Serve ends.
func (l *streamLoop) accept(a *streamListener) error {
	a.beats.Add(1)
	most := acceptsAtOnce
	if l.end.Load() != 0 {
		most = acceptsAtEnd
	}
	for range most {
		fd, remote, local, err := sys.AcceptTCP(a.fd)
		switch {
		case err == nil:
			l.add(fd, l.identify(fd, a.v6, remote, local))
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case ofConnection(err):
		case ofHost(err):
			if !l.shortage(a, err) {
				return nil
			}
		default:
			return fmt.Errorf("serve %s: %w", a.name, err)
		}
	}
	return nil
}

// add begins to serve a connection. Where a bound in all is reached, the idlest is closed for it, one from another host if
// there is any; a caller from another host gets no place of one on this host.
func (l *streamLoop) add(fd int, from portmap.Caller) {
	s, limits := l.server, l.server.limits.Load()
	b := bounds{limits.MaxConnections, limits.MaxConnectionsEach, limits.Descriptors}
	for {
		entered, room := s.connections.enter(from.Loopback, peerOf(&from), b)
		if entered {
			break
		}
		if !room || !l.closeOne(from.Loopback) {
			s.refuse(&from)
			_ = syscall.Close(fd)
			return
		}
	}
	c := &streamConnection{fd: fd, active: l.now, stream: stream{
		portmapper: s.config.Portmapper,
		records:    oncrpc.RecordReader{Limit: limits.MaxRecord},
		from:       from,
	}}
	if n := len(l.free); n > 0 {
		c.slot, l.free = l.free[n-1], l.free[:n-1]
		l.table[c.slot] = c
	} else {
		c.slot = uint32(len(l.table))
		l.table = append(l.table, c)
	}
	l.open++
	if l.poller.Watch(fd, uint64(c.slot), true, false) != nil {
		l.close(c)
		return
	}
	l.idle.add(c, l.now)
}

// close ends a connection. What others hold of it they have to look up in the table again.
func (l *streamLoop) close(c *streamConnection) {
	_ = syscall.Close(c.fd) // every reply was handed over, or can't be
	c.leave()
	l.giveBack(c)
	l.table[c.slot] = nil
	l.free = append(l.free, c.slot)
	l.open--
	l.server.connections.exit(peerOf(&c.stream.from))
}

// closeOne closes the connection that brought nothing for the longest time of those that came into their state first, and
// tells whether there was one. It is one from another host if there is any, and one of this host only if own is true.
func (l *streamLoop) closeOne(own bool) bool {
	var idlest *streamConnection
	for _, list := range l.lists() {
		c := list.first
		for c != nil && c.stream.from.Loopback {
			c = c.next
		}
		if c != nil && (idlest == nil || c.active < idlest.active) {
			idlest = c
		}
	}
	for _, list := range l.lists() {
		if c := list.first; own && c != nil && (idlest == nil || idlest.stream.from.Loopback && c.active < idlest.active) {
			idlest = c
		}
	}
	if idlest == nil {
		return false
	}
	l.close(idlest)
	return true
}

// shortage gets a descriptor back, or else lets the listeners rest.
func (l *streamLoop) shortage(a *streamListener, err error) (closed bool) {
	closed = l.closeOne(true) || l.server.connections.closeIdlest()
	l.server.isShort(a.name, err)
	if !closed && !l.resting {
		l.resting, l.rested = true, l.now+shortagePause
		l.retry.Store(false)
		if err := l.watchListeners(false); err != nil {
			l.server.config.Log.Debug("rest listeners", "err", err)
		}
	}
	return closed
}

// A wish is another goroutine's for a connection to be closed.
type wish struct {
	own     bool // see closeOne
	granted chan bool
}

// closeIdlest is closeOne for other goroutines. The connection's descriptor is free when it returns.
func (l *streamLoop) closeIdlest(own bool) bool {
	if l == nil {
		return false
	}
	w := wish{own, make(chan bool, 1)}
	select {
	case l.wishes <- w:
		l.poller.Wake()
	case <-l.ended:
		return false
	}
	select {
	case closed := <-w.granted:
		return closed
	case <-l.ended:
		return false
	}
}

// grant does what closeIdlest asks for.
func (l *streamLoop) grant() {
	for {
		select {
		case w := <-l.wishes:
			w.granted <- l.closeOne(w.own)
		default:
			return
		}
	}
}

// freed is called when a descriptor came free elsewhere.
func (l *streamLoop) freed() {
	if l != nil && !l.retry.Swap(true) {
		l.poller.Wake()
	}
}
