package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// shortagePause is how long a listener rests when the host is short of descriptors or memory and there is no connection
// to close, unless one closes by itself.
const shortagePause = time.Second

// deadlineListener is a *net.UnixListener.
type deadlineListener interface {
	net.Listener
	SetDeadline(t time.Time) error
}

// An acceptLoop serves a local listening socket: see [streamLoop] for TCP's.
type acceptLoop struct {
	server   *Server
	socket   *sys.Socket
	name     string
	listener deadlineListener
	pause    func() // waits in a shortage
	beats    atomic.Uint64
}

func newAcceptLoop(s *Server, socket *sys.Socket) (*acceptLoop, error) {
	name := nameOf(socket)
	listener, ok := socket.Listener.(deadlineListener)
	if !ok {
		return nil, fmt.Errorf("serve %s: a %T has no deadline to stop it by", name, socket.Listener)
	}
	return &acceptLoop{
		server:   s,
		socket:   socket,
		name:     name,
		listener: listener,
		pause:    func() { s.pause(shortagePause, s.connections.freed) },
	}, nil
}

func (l *acceptLoop) stop() error { return l.listener.SetDeadline(longAgo()) }

func (l *acceptLoop) pulse() (*sys.Socket, *atomic.Uint64) { return l.socket, &l.beats }

func (l *acceptLoop) run(started func()) error {
	started()
	for {
		conn, err := l.listener.Accept()
		l.beats.Add(1)
		switch {
		case err == nil:
			l.server.open(conn, keeping{})
		case errors.Is(err, os.ErrDeadlineExceeded) && l.server.stopping.Load():
			if !outlives(l.socket) {
				l.drain()
			}
			return nil
		case ofConnection(err):
		case ofHost(err):
			l.shortage(err)
		default:
			return fmt.Errorf("serve %s: %w", l.name, err)
		}
	}
}

// drain takes the connections that were made before Serve ended; what they have sent is answered. It has drainWait for
// all of them: under a stream of new ones there is no other end, and each that is taken is one that the next daemon can't
// serve.
func (l *acceptLoop) drain() {
	end := time.Now().Add(drainWait)
	if l.listener.SetDeadline(end) != nil {
		return
	}
	for time.Now().Before(end) {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.server.open(conn, keeping{})
	}
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

// ofHost tells whether an error of accept(2) is a shortage of the process or the host. The connection stays in the
// listener's queue.
func ofHost(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// shortage gets a descriptor back from the TCP connection that was idle longest, or else waits.
func (l *acceptLoop) shortage(err error) {
	closed := l.server.streams.closeIdlest(true) || l.server.connections.closeIdlest()
	l.server.isShort(l.name, err)
	if !closed {
		l.pause()
	}
}

// isShort logs that a listener can't take connections for want of descriptors or memory.
func (s *Server) isShort(listener string, err error) {
	if s.short.begins() {
		tcp, local, _ := s.Connections()
		s.config.Log.Warn("short of file descriptors or memory: idle TCP connections are closed for new ones",
			"listener", listener, "err", err, "connections", tcp+local)
	}
}

// open starts to serve a connection.
func (s *Server) open(conn net.Conn, k keeping) {
	sc, ok := conn.(streamConn)
	if !ok {
		_ = conn.Close()
		return
	}
	c, err := newConnection(s, sc)
	if err != nil {
		_ = conn.Close() // it is closed already: no other error is possible
		return
	}
	c.keeping = k
	c.identify()
	var b bounds // none for one that was served already
	if l := s.limits.Load(); !k.adopted {
		b = bounds{l.MaxConnections, l.MaxConnectionsEach, l.Descriptors}
	}
	added := s.connections.add(c, b)
	if !added && s.connections.crowded(c, b) && s.streams.closeIdlest(c.own()) {
		added = s.connections.add(c, b)
	}
	if !added {
		s.refuse(&c.stream.from)
		_ = conn.Close()
		return
	}
	go func() {
		defer s.streams.freed()
		defer s.connections.remove(c)
		c.serve()
	}()
}

// refuse logs that a connection has to be closed at once.
func (s *Server) refuse(from *portmap.Caller) {
	if s.refused.begins() {
		s.config.Log.Warn("a connection was refused: its address or user has too many, or there is no place; "+
			"further ones within a minute are not reported", "from", from.Remote, "uid", from.UID)
	}
}
