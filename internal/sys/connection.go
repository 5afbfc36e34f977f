package sys

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Connection is a TCP or local connection that is in no poller of the runtime's. It is a [syscall.Conn] of which only
// Control does anything.
type Connection struct{ fd int }

// ConnectionOf returns the connection that has this descriptor, and is its owner now.
func ConnectionOf(fd int) *Connection { return &Connection{fd} }

// NewConnection returns a nonblocking duplicate of the connection that f is, if it has another end.
func NewConnection(f *os.File) (*Connection, error) {
	number := f.Fd()
	if _, err := unix.Getpeername(int(number)); err != nil {
		return nil, os.NewSyscallError("getpeername", err)
	}
	switch k, err := kindOf(int(number)); {
	case err != nil:
		return nil, err
	case k.typ != unix.SOCK_STREAM || !k.fits():
		return nil, unix.ESOCKTNOSUPPORT
	}
	fd, err := unix.FcntlInt(number, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("set O_NONBLOCK", err)
	}
	return &Connection{fd}, nil
}

// Ends returns the addresses of a TCP connection, and local if c is a local one. They have no zone and are never IPv4-mapped;
// v6 tells that the socket is of family AF_INET6.
func (c *Connection) Ends() (remote, own netip.AddrPort, v6, local bool) {
	if sa, err := unix.Getpeername(c.fd); err == nil {
		remote = addrPort(sa)
	}
	sa, _ := unix.Getsockname(c.fd)
	_, v6 = sa.(*unix.SockaddrInet6)
	_, local = sa.(*unix.SockaddrUnix)
	return remote, addrPort(sa), v6, local
}

// FD returns the descriptor.
func (c *Connection) FD() int { return c.fd }

// Close closes the connection.
func (c *Connection) Close() error { return os.NewSyscallError("close", unix.Close(c.fd)) }

// SyscallConn returns c.
func (c *Connection) SyscallConn() (syscall.RawConn, error) { return c, nil }

// Control calls f with the descriptor.
func (c *Connection) Control(f func(fd uintptr)) error {
	f(uintptr(c.fd))
	return nil
}

// Read is not supported.
func (c *Connection) Read(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Write is not supported.
func (c *Connection) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
