package sys

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A TCPListener is a listening TCP socket that isn't under the runtime's poller, which would wake a thread for each new
// connection beside the one that takes it: see [Poller] and [AcceptTCP].
type TCPListener struct {
	file *os.File
	raw  syscall.RawConn
	addr netip.AddrPort

	once   sync.Once
	closed chan struct{}
}

// newTCPListener takes over fd, a listening TCP socket, and closes it on error.
func newTCPListener(fd int, name string) (*TCPListener, error) {
	sa, err := unix.Getsockname(fd)
	if err == nil {
		err = unix.SetNonblock(fd, false) // for os.NewFile; who accepts from it doesn't wait there
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("getsockname", err)
	}
	l := &TCPListener{file: os.NewFile(uintptr(fd), name), addr: addrPort(sa), closed: make(chan struct{})}
	if l.raw, err = l.file.SyscallConn(); err == nil {
		err = l.control(func(fd int) error { return unix.SetNonblock(fd, true) })
	}
	if err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

func (l *TCPListener) control(f func(fd int) error) error { return control(l, f) }

// SyscallConn returns the socket for system calls.
func (l *TCPListener) SyscallConn() (syscall.RawConn, error) { return l.raw, nil }

// Addr returns what the socket is bound to.
func (l *TCPListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Close closes the socket.
func (l *TCPListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = l.file.Close()
	})
	return err
}

// Closed is closed with the listener.
func (l *TCPListener) Closed() <-chan struct{} { return l.closed }

// acceptStep is how often an Accept looks whether the listener was closed.
const acceptStep = 10 * time.Millisecond

// Accept waits for a connection, a *net.TCPConn. It is for those who take few: see [AcceptTCP].
func (l *TCPListener) Accept() (net.Conn, error) {
	for {
		var conn net.Conn
		err := l.control(func(fd int) error {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(acceptStep.Milliseconds())); err != nil {
				return err
			}
			accepted, _, _, err := AcceptTCP(fd)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(accepted), "tcp")
			defer f.Close()
			conn, err = net.FileConn(f)
			return err
		})
		select {
		case <-l.closed:
			if conn != nil {
				conn.Close()
			}
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		default:
		}
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			continue
		}
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
	}
}
