package sys

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ArrivalInterface returns the index of the interface by which the connection c arrived: that of its handshake, which the
// kernel keeps in the socket. A caller is on loopback only if this says so, whatever its source address (a neighbour can
// spoof 127.0.0.1 where route_localnet is set). A connection of this host to its own address counts for the interface that
// has the address: loopback for 127.0.0.1, another for the others, although the packets take loopback there too.
//
// Linux reads it out as if a datagram had come: IP_PKTOPTIONS yields an IP_PKTINFO while the option IP_PKTINFO is on
// (do_ip_getsockopt, inet->mc_index), IPV6_2292PKTOPTIONS an IPV6_PKTINFO while IPV6_RECVPKTINFO is on
// (do_ipv6_getsockopt, np->mcast_oif), the latter also for an IPv4 connection on a dual-stack socket.
func ArrivalInterface(c *net.TCPConn) (uint32, error) {
	var ifindex uint32
	err := control(c, func(fd int) error {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return os.NewSyscallError("getsockopt SO_DOMAIN", err)
		}
		ifindex, err = ArrivalOf(fd, domain == unix.AF_INET6)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("arrival interface of the connection from %v: %w", c.RemoteAddr(), err)
	}
	return ifindex, nil
}

// ArrivalOf is ArrivalInterface for a descriptor of a socket of family AF_INET6 (v6) or AF_INET.
func ArrivalOf(fd int, v6 bool) (uint32, error) {
	level, option, name := unix.IPPROTO_IP, unix.IP_PKTOPTIONS, "IP_PKTOPTIONS"
	if v6 {
		level, option, name = unix.IPPROTO_IPV6, unix.IPV6_2292PKTOPTIONS, "IPV6_2292PKTOPTIONS"
	}
	if err := tellArrivalStream(fd, v6); err != nil {
		return 0, err
	}
	var buf [controlOctets]byte
	n, err := getsockopt(fd, level, option, buf[:])
	if err != nil {
		return 0, os.NewSyscallError("getsockopt "+name, err)
	}
	ifindex := parseArrival(buf[:n]).ifindex
	if ifindex == 0 {
		return 0, fmt.Errorf("getsockopt %s: the kernel gave no interface in %d octets", name, n)
	}
	return ifindex, nil
}

// tellArrivalStream switches on the one option that ArrivalInterface needs.
func tellArrivalStream(fd int, v6 bool) error {
	if v6 {
		return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO",
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
	}
	return os.NewSyscallError("setsockopt IP_PKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
}

// getsockopt reads an option into buf and returns its size in octets. x/sys has it for strings only, which end at a NUL.
func getsockopt(fd, level, option int, buf []byte) (int, error) {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(size), nil
}

// control calls f with c's descriptor, which stays open and nonblocking meanwhile.
func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
