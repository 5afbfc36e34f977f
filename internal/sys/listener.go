package sys

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Listener is a listening TCP or local socket that isn't under the runtime's poller, which would wake a thread for each new
// connection beside the one that takes it: see [Poller], [AcceptTCP] and [AcceptLocal].
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	addr net.Addr

	once   sync.Once
	closed chan struct{}
}

// adopt takes over fd, a listening stream socket, and closes it on error.
func adopt(fd int, name string) (*Listener, error) {
	sa, err := unix.Getsockname(fd)
	if err == nil {
		err = unix.SetNonblock(fd, false) // for os.NewFile; who accepts from it doesn't wait there
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("getsockname", err)
	}
	l := &Listener{file: os.NewFile(uintptr(fd), name), addr: net.TCPAddrFromAddrPort(addrPort(sa)), closed: make(chan struct{})}
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		l.addr = &net.UnixAddr{Name: u.Name, Net: "unix"}
	}
	if l.raw, err = l.file.SyscallConn(); err == nil {
		err = l.control(func(fd int) error { return unix.SetNonblock(fd, true) })
	}
	if err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

func (l *Listener) control(f func(fd int) error) error { return control(l, f) }

// SyscallConn returns the socket for system calls.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.raw, nil }

// Addr returns what the socket is bound to.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close closes the socket.
func (l *Listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = l.file.Close()
	})
	return err
}

// Closed is closed with the listener.
func (l *Listener) Closed() <-chan struct{} { return l.closed }

// acceptStep is how often an Accept looks whether the listener was closed.
const acceptStep = 10 * time.Millisecond

// Accept waits for a connection, a *net.TCPConn or *net.UnixConn. It is for those who take few: see [AcceptTCP].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		var conn net.Conn
		err := l.control(func(fd int) error {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(acceptStep.Milliseconds())); err != nil {
				return err
			}
			accepted, err := AcceptLocal(fd) // of TCP as well, without the addresses
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(accepted), "connection")
			defer f.Close()
			conn, err = net.FileConn(f)
			return err
		})
		select {
		case <-l.closed:
			if conn != nil {
				conn.Close()
			}
			return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.Addr(), Err: net.ErrClosed}
		default:
		}
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			continue
		}
		return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.Addr(), Err: err}
	}
}
