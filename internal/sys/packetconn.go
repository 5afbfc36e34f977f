package sys

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// receiveOctets is the receive buffer asked for, about 5,000 calls of the usual size with the kernel's bookkeeping: a
// boot storm of clients arrives faster than one read.
const receiveOctets = 4 << 20

// A PacketConn is a UDP socket that a Batch reads and writes. Any number of goroutines may use it, each with a Batch of its
// own.
//
// Its descriptor is not under the runtime's poller. That would be woken by each datagram that comes and by each that has
// left, a second thread and three system calls beside the two that a call needs. Read waits in the kernel instead: see
// [Batch.Read].
type PacketConn struct {
	file   *os.File
	raw    syscall.RawConn
	local  netip.AddrPort
	v6     bool // family AF_INET6
	closed atomic.Bool

	deadline atomic.Int64 // of Read, in nanoseconds since 1970; 0 for none
	alarm    *alarm       // rings while there is a deadline, and after Close
}

// newPacketConn takes over fd, a bound nonblocking UDP socket, and closes it on error.
func newPacketConn(fd int) (*PacketConn, error) {
	c, err := func() (*PacketConn, error) {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return nil, os.NewSyscallError("getsockname", err)
		}
		c := &PacketConn{local: addrPort(sa)}
		_, c.v6 = sa.(*unix.SockaddrInet6)
		if err := tellArrival(fd, c.v6); err != nil {
			return nil, err
		}
		raiseReceiveBuffer(fd)
		return c, nil
	}()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Before there is a File of it, which would put a nonblocking one under the poller.
	if err = letWait(fd); err == nil {
		c.alarm, err = newAlarm()
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	c.file = os.NewFile(uintptr(fd), "udp "+c.local.String())
	if c.raw, err = c.file.SyscallConn(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// letWait makes the socket one in which a read waits, for busyWait at most.
func letWait(fd int) error {
	tv := unix.NsecToTimeval(busyWait.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	return os.NewSyscallError("set O_NONBLOCK", unix.SetNonblock(fd, false))
}

// tellArrival makes the kernel attach IP_PKTINFO or IPV6_PKTINFO, and the hop limit, to each datagram. An IPv6 socket gets both: a dual-stack
// one describes its IPv4 datagrams better by the former, and to an IPv6-only one it does nothing.
func tellArrival(fd int, v6 bool) error {
	if v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_PKTINFO", err)
	}
	// A kernel that doesn't tell the hop limit is no reason not to serve: whoever needs it takes 0 for the worst.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	}
	return nil
}

// raiseReceiveBuffer asks for receiveOctets, past net.core.rmem_max where CAP_NET_ADMIN allows. A smaller buffer is no
// error: it only loses datagrams earlier. A larger one, set by the unit that handed the socket over, stays.
func raiseReceiveBuffer(fd int) {
	if now, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && now >= receiveOctets {
		return
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveOctets) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveOctets)
	}
}

// LocalAddr returns the address the socket is bound to, as it was when the socket was made.
func (c *PacketConn) LocalAddr() netip.AddrPort { return c.local }

// SetReadDeadline makes a Read that waits at t, or later, return os.ErrDeadlineExceeded; a t in the past wakes it now, or
// after a few milliseconds while datagrams come. The zero Time takes the deadline away.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if t.IsZero() {
		c.deadline.Store(0)
		return c.alarm.set(false)
	}
	c.deadline.Store(t.UnixNano())
	return c.alarm.set(true)
}

// Close closes the socket; a Read that waits returns net.ErrClosed. A second Close returns net.ErrClosed.
func (c *PacketConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	return errors.Join(c.alarm.set(true), c.file.Close(), c.alarm.close())
}

// JoinGroup makes an IPv6 socket a member of the multicast group on the interface ifindex. To be one already is no error.
func (c *PacketConn) JoinGroup(group netip.Addr, ifindex uint32) error {
	fail := func(err error) error {
		return fmt.Errorf("join %v on interface %d: udp %v: setsockopt IPV6_JOIN_GROUP: %w", group, ifindex, c.local, err)
	}
	if !c.v6 || !group.Is6() || !group.IsMulticast() {
		return fail(unix.EAFNOSUPPORT)
	}
	var joined error
	err := c.raw.Control(func(fd uintptr) {
		mreq := unix.IPv6Mreq{Multiaddr: group.As16(), Interface: ifindex}
		joined = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &mreq)
	})
	switch {
	case err != nil:
		return c.ended(err)
	case joined != nil && joined != unix.EADDRINUSE:
		return fail(joined)
	}
	return nil
}
