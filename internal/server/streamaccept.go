package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// shortagePause is how long listeners rest when the host is short of descriptors or memory and there is no connection to close,
// unless one closes by itself.
const shortagePause = time.Second

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

// stop has nothing to do: see streamLoop.stop.
func (a *streamListener) stop() error { return nil }

func (a *streamListener) pulse() (*sys.Socket, *atomic.Uint64) { return a.socket, &a.beats }

// accept takes connections from a listener, and all there are when Serve ends.
func (l *streamLoop) accept(a *streamListener) error {
	a.beats.Add(1)
	most := acceptsAtOnce
	if l.end.Load() != 0 {
		most = acceptsAtEnd
	}
	for range most {
		fd, remote, own, err := a.accept()
		switch {
		case err == nil:
			var from portmap.Caller
			if a.local {
				from = l.localCaller(fd)
			} else {
				from = l.remoteCaller(fd, a.v6, remote, own)
			}
			l.enter(fd, from)
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case ofConnection(err):
		case isBroken(err):
			return fmt.Errorf("serve %s: %w", a.name, err)
		default:
			if !l.shortage(a, err) {
				return nil
			}
		}
	}
	return nil
}

func (a *streamListener) accept() (fd int, remote, own netip.AddrPort, err error) {
	if a.local {
		fd, err = sys.AcceptLocal(a.fd)
		return fd, remote, own, err
	}
	return sys.AcceptTCP(a.fd)
}

// ofConnection tells whether an error of accept(2) is about a connection that came to nothing, and not about the
// listener: Linux reports such errors there, and the next call may succeed.
func ofConnection(err error) bool {
	for _, e := range [...]syscall.Errno{
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT,
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENONET,
		syscall.EOPNOTSUPP, syscall.ETIMEDOUT, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isBroken tells whether an error of accept(2) or recvmmsg(2) says that the descriptor can't be served any more. After any
// other one the next call may succeed.
func isBroken(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) ||
		errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ENOTSOCK) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EFAULT)
}

// ofHost tells whether an error of accept(2) is a shortage of the process or the host. The connection stays in the
// listener's queue.
func ofHost(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// enter begins to serve a new connection, if there is a place for it. Where a bound in all is reached, the idlest TCP connection
// is closed for it, one from another host if there is any; a caller from another host gets no place of one on this host, which
// never has more than its share.
func (l *streamLoop) enter(fd int, from portmap.Caller) {
	s, limits := l.server, l.server.limits.Load()
	b := bounds{limits.MaxConnections, limits.MaxConnectionsEach, limits.Descriptors}
	p := peerOf(&from)
	if from.Loopback && from.Transport != portmap.Local {
		p = s.ownPeer(fd, &from, b.each)
	}
	for {
		e := s.connections.enter(&from, p, b)
		if e == entered {
			break
		}
		if e == refused || !l.closeOne(e == fullOwn, from.Loopback) {
			s.refuse(&from)
			_ = syscall.Close(fd)
			return
		}
	}
	c := l.add(fd, from, p)
	if c == nil {
		return
	}
	if s.config.Keeper != nil && c.local() && !from.Self && l.end.Load() == 0 {
		c.keeping = &keeping{conn: sys.ConnectionOf(c.fd)}
	}
}

// add begins to serve a connection that is counted. It returns nil if it can't be watched.
func (l *streamLoop) add(fd int, from portmap.Caller, p peer) *streamConnection {
	c := &streamConnection{fd: fd, active: l.now, peer: p, stream: stream{
		portmapper: l.server.config.Portmapper,
		records:    oncrpc.RecordReader{Limit: l.server.limits.Load().MaxRecord},
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
		return nil
	}
	if !c.local() {
		l.put(c, idle)
	}
	return c
}

// close ends a connection. What others hold of it they have to look up in the table again.
func (l *streamLoop) close(c *streamConnection) {
	c.leave()
	if !c.isKept() {
		l.drop(c)
		return
	}
	_ = syscall.Shutdown(c.fd, syscall.SHUT_WR) // the client is to see the end before the Keeper closes its descriptor
	l.forget(c, func() { l.drop(c) })
}

// drop ends a connection that the Keeper doesn't have, or that is left to the next process.
func (l *streamLoop) drop(c *streamConnection) {
	c.leave()
	_ = syscall.Close(c.fd) // every reply was handed over, or can't be
	l.giveBack(c)
	l.unhold(c)
	l.unread.octets -= c.owes
	c.owes = 0
	l.table[c.slot] = nil
	l.free = append(l.free, c.slot)
	l.open--
	l.rested = min(l.rested, l.now) // a descriptor has come free
	l.server.connections.exit(&c.stream.from, c.peer)
}

// closeOne closes the TCP connection that brought nothing for the longest time of those that came into their state first, and
// tells whether there was one. It is one from another host if there is any, unless onlyOwn is true, and one of this host only if
// ours is true.
func (l *streamLoop) closeOne(onlyOwn, ours bool) bool {
	for peers := foreign; peers == foreign || peers == own && ours; peers++ {
		if peers == foreign && onlyOwn {
			continue
		}
		var idlest *streamConnection
		for i := range l.lists[peers] {
			if c := l.lists[peers][i].first; c != nil && (idlest == nil || c.active < idlest.active) {
				idlest = c
			}
		}
		if idlest != nil {
			l.close(idlest)
			return true
		}
	}
	return false
}

// shortage gets a descriptor back if that may help, or else lets the listeners rest.
func (l *streamLoop) shortage(a *streamListener, err error) (closed bool) {
	closed = ofHost(err) && l.closeOne(false, true)
	l.server.isShort(a.name, err)
	if !closed && !l.resting {
		l.resting, l.rested = true, l.now+shortagePause
		if err := l.watchListeners(false); err != nil {
			l.server.config.Log.Debug("rest listeners", "err", err)
		}
	}
	return closed
}

// isShort logs that a listener can't take connections, mostly for want of descriptors or memory.
func (s *Server) isShort(listener string, err error) {
	if !s.short.begins() {
		return
	}
	text := "connections can't be accepted; trying again"
	if ofHost(err) {
		text = "short of file descriptors or memory: idle TCP connections are closed for new ones"
	}
	tcp, local, _ := s.Connections()
	s.config.Log.Warn(text, "listener", listener, "err", err, "connections", tcp+local)
}

// refuse logs that a connection has to be closed at once.
func (s *Server) refuse(from *portmap.Caller) {
	if !s.refused.begins() {
		return
	}
	who := []any{"from", from.Remote}
	if from.Transport == portmap.Local {
		who[1] = "local socket"
	}
	if from.HasUID {
		who = append(who, "uid", from.UID)
	}
	s.config.Log.Warn("a connection was refused: its address or user has too many, or there is no place; "+
		"further ones within a minute are not reported", who...)
}
