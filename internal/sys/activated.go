package sys

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Activated is what systemd handed over.
type Activated struct {
	// Sockets are those of socket units, in systemd's order.
	Sockets []*Socket
	// Kept are sockets, and Connections connections, that an earlier process had given to a [Store]. They still are there.
	Kept        []*Socket
	Connections []*Connection
	// Lost are the names of those that are of no use any more: their other end is gone.
	Lost []string
}

// Activation returns what systemd handed over (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES). Those variables are unset, so only
// the first call can return any. What is not a UDP socket or a listening TCP or local stream socket, and wasn't kept for us,
// is an error that names each such descriptor and what it is, and every descriptor is closed then: serving less than the
// unit promises would be found out too late. So is a descriptor that wasn't passed.
func Activation() (Activated, error) {
	var a Activated
	var unfit []error
	files, err := handedOver()
	if err != nil {
		return a, err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), keptPrefix) {
			a.takeBack(f)
			continue
		}
		s, err := activate(f)
		if err != nil {
			unfit = append(unfit, err)
			continue
		}
		s.Activated = true
		a.Sockets = append(a.Sockets, s)
	}
	if unfit == nil {
		return a, nil
	}
	a.Close()
	unfit = append(unfit, errors.New("what fits: ListenDatagram= on an IP address; ListenStream= on an IP address or "+
		"a path, with Accept=no; remove the others from the socket unit"))
	return Activated{}, errors.Join(unfit...)
}

// Close closes everything.
func (a *Activated) Close() {
	for _, s := range slices.Concat(a.Sockets, a.Kept) {
		s.Close()
	}
	for _, c := range a.Connections {
		c.Close()
	}
}

// activate makes a Socket of f and closes f.
func activate(f *os.File) (*Socket, error) {
	defer f.Close()
	number := int(f.Fd())
	s, err := func() (*Socket, error) {
		// A duplicate, so that the descriptor has one owner; O_NONBLOCK, which listeners keep, after it, for an os.File
		// made of a nonblocking descriptor would already have been in the poller.
		fd, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("dup", err)
		}
		a, err := classify(fd)
		if err == nil {
			err = os.NewSyscallError("set O_NONBLOCK", unix.SetNonblock(fd, true))
		}
		if err == nil && a.family != unix.AF_UNIX {
			// The unit allows it for the moment of a takeover; from now on nobody else is to get our datagrams.
			err = os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
		}
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		return a.socket(fd, f.Name())
	}()
	if err != nil {
		return nil, fmt.Errorf("socket activation: descriptor %d (%s): %w", number, f.Name(), err)
	}
	return s, nil
}

// activatedSocket is what the kernel tells about a socket handed over that fits.
type activatedSocket struct {
	family   int // AF_INET, AF_INET6 or AF_UNIX
	datagram bool
	dual     bool
	path     string
}

// socket takes over fd.
func (a activatedSocket) socket(fd int, name string) (*Socket, error) {
	if a.datagram {
		c, err := newPacketConn(fd)
		if err != nil {
			return nil, err
		}
		return &Socket{Netid: netid("udp", c.v6), Addr: c.local, DualStack: a.dual, Packet: c}, nil
	}
	l, err := adopt(fd, name)
	if err != nil {
		return nil, err
	}
	if a.family == unix.AF_UNIX {
		return &Socket{Netid: "local", Path: a.path, Listener: l}, nil
	}
	s := tcpSocket(l)
	s.DualStack = a.dual
	return s, nil
}

// classify says what the descriptor is, or in the error what unfit thing.
func classify(fd int) (activatedSocket, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return activatedSocket{}, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return activatedSocket{}, fmt.Errorf("is %s, not a socket", fileType(st.Mode))
	}
	k, err := kindOf(fd)
	if err != nil {
		return activatedSocket{}, err
	}
	local, err := unix.Getsockname(fd)
	if err != nil && err != unix.EAFNOSUPPORT { // x/sys knows not every family
		return activatedSocket{}, os.NewSyscallError("getsockname", err)
	}
	_, peerErr := unix.Getpeername(fd)
	connected := peerErr == nil
	switch {
	case !k.fits():
		return activatedSocket{}, fmt.Errorf("is %v", k)
	case connected && k.typ == unix.SOCK_STREAM:
		return activatedSocket{}, fmt.Errorf("is %v, connected to a client; the unit must say Accept=no", k)
	case connected:
		return activatedSocket{}, fmt.Errorf("is %v, connected to one peer", k)
	case k.typ == unix.SOCK_STREAM && !k.listening:
		return activatedSocket{}, fmt.Errorf("is %v that does not listen", k)
	case k.domain != unix.AF_UNIX && addrPort(local).Port() == 0:
		return activatedSocket{}, fmt.Errorf("is %v not bound to a port", k)
	}
	return describe(fd, k, local)
}

// describe fills in the details of a socket that fits.
func describe(fd int, k kind, local unix.Sockaddr) (activatedSocket, error) {
	a := activatedSocket{family: k.domain, datagram: k.typ == unix.SOCK_DGRAM}
	switch sa := local.(type) {
	case *unix.SockaddrUnix:
		a.path = sa.Name
	case *unix.SockaddrInet6:
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return a, os.NewSyscallError("getsockopt IPV6_V6ONLY", err)
		}
		if addrPort(sa).Addr().Is4() {
			return a, fmt.Errorf("is %v bound to the IPv4-mapped address of %v; bind an IPv4 socket", k, addrPort(sa))
		}
		// Bound to one IPv6 address it gets no IPv4, whatever the option says.
		a.dual = only == 0 && sa.Addr == [16]byte{}
	}
	return a, nil
}

// kind is a socket's family, type and protocol.
type kind struct {
	domain, typ, protocol int
	listening             bool
}

func kindOf(fd int) (kind, error) {
	var k kind
	for _, o := range []struct {
		option int
		name   string
		to     *int
	}{
		{unix.SO_DOMAIN, "SO_DOMAIN", &k.domain},
		{unix.SO_TYPE, "SO_TYPE", &k.typ},
		{unix.SO_PROTOCOL, "SO_PROTOCOL", &k.protocol},
	} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.option)
		if err != nil {
			return kind{}, os.NewSyscallError("getsockopt "+o.name, err)
		}
		*o.to = v
	}
	accepting, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return kind{}, os.NewSyscallError("getsockopt SO_ACCEPTCONN", err)
	}
	k.listening = accepting != 0
	return k, nil
}

// fits says whether a socket of this family, type and protocol can be served.
func (k kind) fits() bool {
	switch k.domain {
	case unix.AF_UNIX:
		return k.typ == unix.SOCK_STREAM
	case unix.AF_INET, unix.AF_INET6:
		return k.typ == unix.SOCK_STREAM && k.protocol == unix.IPPROTO_TCP ||
			k.typ == unix.SOCK_DGRAM && k.protocol == unix.IPPROTO_UDP
	}
	return false
}

// String says "a TCP socket over IPv6", or with the numbers where there is no name.
func (k kind) String() string {
	family := lookup(k.domain, map[int]string{
		unix.AF_UNIX: "local", unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6", unix.AF_NETLINK: "netlink",
		unix.AF_VSOCK: "vsock", unix.AF_PACKET: "packet",
	}, "family")
	typ := lookup(k.typ, map[int]string{
		unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "datagram", unix.SOCK_SEQPACKET: "sequential packet",
		unix.SOCK_RAW: "raw",
	}, "type")
	s := "a " + family + " " + typ + " socket"
	if k.domain == unix.AF_INET || k.domain == unix.AF_INET6 {
		s = fmt.Sprintf("an %s %s socket of %s", family, typ, lookup(k.protocol, map[int]string{
			unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_UDPLITE: "UDP-Lite", unix.IPPROTO_SCTP: "SCTP",
			unix.IPPROTO_MPTCP: "MPTCP", unix.IPPROTO_ICMP: "ICMP", unix.IPPROTO_ICMPV6: "ICMPv6",
		}, "protocol"))
	}
	return s
}

func lookup(n int, names map[int]string, what string) string {
	if s, ok := names[n]; ok {
		return s
	}
	return fmt.Sprintf("%s %d", what, n)
}

func fileType(mode uint32) string {
	return lookup(int(mode&unix.S_IFMT), map[int]string{
		unix.S_IFIFO: "a FIFO", unix.S_IFREG: "a regular file", unix.S_IFDIR: "a directory",
		unix.S_IFCHR: "a character device", unix.S_IFBLK: "a block device", 0: "an anonymous file of the kernel",
	}, "a file of type")
}
