package sys

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// backlog is the queue of connections not yet accepted; the kernel clips it to net.core.somaxconn.
const backlog = 4096

// A Socket is one that the daemon serves: made by ListenUDP, ListenTCP or ListenLocal, or handed over by systemd.
type Socket struct {
	// Netid is "udp", "tcp", "udp6", "tcp6" or "local" (RFC 5665 section 5.1).
	Netid string
	// Addr is what the socket is bound to; zero for local. No zone.
	Addr netip.AddrPort
	// Path is the name of a local socket, "@name" in the abstract namespace; empty for the others.
	Path string
	// DualStack says that an activated IPv6 socket is not IPv6-only and serves IPv4 as well.
	DualStack bool
	// Activated says that the socket was handed over by systemd.
	Activated bool
	// Kept says that the service manager has the socket as well and keeps it for the next process: see [Store].
	Kept bool
	// Packet is set for udp and udp6, and Listener is nil then.
	Packet *PacketConn
	// Listener is a *Listener for tcp, tcp6 and local.
	Listener net.Listener

	bound  inode // what ListenLocal made at Path; zero if there is nothing to remove
	once   sync.Once
	closed error
}

// Close closes the socket and removes the path that ListenLocal bound, if it is still the one bound then. A socket that
// systemd handed over or keeps for us keeps its path. The second and later calls do nothing and return what the first did.
func (s *Socket) Close() error {
	s.once.Do(func() {
		// The path goes first: as long as the socket is open its inode number cannot be given to another file, and no
		// other daemon takes the path for stale.
		var removed, closed error
		if s.bound != (inode{}) && !s.Kept {
			removed = removeOurs(s.Path, s.bound)
		}
		if s.Packet != nil {
			closed = s.Packet.Close()
		}
		if s.Listener != nil {
			closed = s.Listener.Close()
		}
		s.closed = errors.Join(removed, closed)
	})
	return s.closed
}

// A BindOption changes how an address is bound.
type BindOption uint8

// FreeBind binds an address that no interface has yet (ip(7) IP_FREEBIND).
const FreeBind BindOption = 1

// ListenUDP binds a UDP socket, IPv6-only for an IPv6 address, that tells of each datagram which address it was sent to.
// Port 0 lets the kernel choose. A link-local address needs its zone.
func ListenUDP(a netip.AddrPort, options ...BindOption) (*Socket, error) {
	fd, err := bindIP(a, unix.SOCK_DGRAM, options...)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", a, err)
	}
	c, err := newPacketConn(fd)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", a, err)
	}
	return &Socket{Netid: netid("udp", c.v6), Addr: c.local, Packet: c}, nil
}

// ListenTCP makes a listening TCP socket, IPv6-only for an IPv6 address, with SO_REUSEADDR so that connections of an
// earlier daemon in TIME_WAIT do not stand in the way. Port 0 lets the kernel choose. A link-local address needs its zone.
func ListenTCP(a netip.AddrPort, options ...BindOption) (*Socket, error) {
	fd, err := bindIP(a, unix.SOCK_STREAM, options...)
	if err != nil {
		return nil, fmt.Errorf("listen on tcp %v: %w", a, err)
	}
	l, err := listen(fd, "tcp "+a.String())
	if err != nil {
		return nil, fmt.Errorf("listen on tcp %v: %w", a, err)
	}
	return tcpSocket(l), nil
}

func tcpSocket(l net.Listener) *Socket {
	a := l.Addr().(*net.TCPAddr).AddrPort()
	addr := a.Addr().WithZone("")
	return &Socket{Netid: netid("tcp", addr.Is6()), Addr: netip.AddrPortFrom(addr, a.Port()), Listener: l}
}

func netid(protocol string, v6 bool) string {
	if v6 {
		return protocol + "6"
	}
	return protocol
}

// bindIP makes a nonblocking, close-on-exec socket of type SOCK_DGRAM or SOCK_STREAM bound to a.
func bindIP(a netip.AddrPort, typ int, options ...BindOption) (fd int, err error) {
	sa, err := sockaddr(a)
	if err != nil {
		return -1, err
	}
	family := unix.AF_INET
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
	}
	if typ == unix.SOCK_STREAM {
		// Not on UDP, where it would let another process share the port.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt SO_REUSEADDR", err)
		}
	}
	if slices.Contains(options, FreeBind) {
		level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
		if family == unix.AF_INET6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt IP_FREEBIND", err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// listen takes over fd, a bound stream socket, and closes it on error. Calling listen again on a socket that listens
// already, as an activated one does, only sets its backlog, so that is left out there: see adopt.
func listen(fd int, name string) (*Listener, error) {
	if err := unix.Listen(fd, backlog); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	return adopt(fd, name)
}

// sockaddr is a as bind(2) takes it.
func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	addr := a.Addr().Unmap()
	switch {
	case addr.Is4():
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: addr.As4()}, nil
	case addr.Is6():
		scope, err := zoneIndex(addr.Zone())
		if err != nil {
			return nil, err
		}
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: addr.As16(), ZoneId: scope}, nil
	}
	return nil, errors.New("no address given")
}

// zoneIndex turns a zone, an interface's name or number, into its index; 0 for no zone.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(i.Index), nil
}

// addrPort is the inverse of sockaddr, without the zone; the zero AddrPort for other families.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// IPv6Available says whether this host has IPv6. It has none where the module is missing or disabled (EAFNOSUPPORT), where
// net.ipv6.conf.lo.disable_ipv6 is set, and before lo is up (::1 can't be bound: EADDRNOTAVAIL). Any other error says nothing
// about that: then it is true, and the caller's own bind works or fails with its reason.
func IPv6Available() bool {
	fd, err := bindIP(netip.AddrPortFrom(netip.IPv6Loopback(), 0), unix.SOCK_DGRAM)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL)
}
