package bed

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

func (ns *NS) dial(tr Transport, from From) (*Conn, error) {
	var c *Conn
	var err error
	open := func() { c, err = openSocket(tr, from) }
	switch {
	case from.Remote:
		if err := ns.remote(open); err != nil {
			return nil, err
		}
	case from.UID != 0:
		done := make(chan struct{})
		go func() {
			// The thread changes its user: it must not serve anyone else.
			runtime.LockOSThread()
			defer close(done)
			open()
		}()
		<-done
	default:
		open()
	}
	return c, err
}

// openSocket makes, binds and connects the socket on the calling thread, which
// changes its user when from has one and must not be used afterwards then.
func openSocket(tr Transport, from From) (*Conn, error) {
	to, err := destination(tr, from)
	if err != nil {
		return nil, err
	}
	if err := setUser(from.UID); err != nil {
		return nil, err
	}
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	switch {
	case tr.Local():
		domain = unix.AF_UNIX
	case tr.IPv6():
		domain = unix.AF_INET6
	}
	if tr.Datagram() {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &Conn{fd: fd, transport: tr, grace: grace}
	if from.Patient {
		c.grace = patientGrace
	}
	if tr.Datagram() {
		// Destinations may be broadcast addresses.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			c.Close()
			return nil, err
		}
	}
	if err := c.bind(from); err != nil {
		c.Close()
		return nil, err
	}
	if tr.Datagram() && !from.Connected {
		c.to = to
	} else if err := unix.Connect(fd, to); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// setUser gives the calling thread, and it alone, another effective user. The
// saved user stays root: binding a privileged port needs it.
func setUser(uid uint32) error {
	if uid == 0 {
		return nil
	}
	// The package's own Setresuid would change every thread.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(uid), uintptr(uid), 0); errno != 0 {
		return fmt.Errorf("setresgid %d: %w", uid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), 0); errno != 0 {
		return fmt.Errorf("setresuid %d: %w", uid, errno)
	}
	return nil
}

// asRoot runs f with the effective user root on a thread that setUser changed.
func asRoot(uid uint32, f func() error) error {
	if uid == 0 {
		return f()
	}
	const unchanged = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, 0, unchanged); errno != 0 {
		return fmt.Errorf("setresuid 0: %w", errno)
	}
	if err := f(); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
		return fmt.Errorf("setresuid %d: %w", uid, errno)
	}
	return nil
}

// bind gives the socket the source address and port of from, if it has any.
func (c *Conn) bind(from From) error {
	if c.transport.Local() || !from.Addr.IsValid() && from.Port == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if !c.transport.Datagram() {
		// Reset on close: no TIME_WAIT that would hold the port.
		if err := unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
	}
	addr := from.Addr
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
		if c.transport.IPv6() {
			addr = netip.IPv6Unspecified()
		}
	}
	source, err := sockaddr(netip.AddrPortFrom(addr, from.Port))
	if err != nil {
		return err
	}
	return asRoot(from.UID, func() error {
		if err := unix.Bind(c.fd, source); err != nil {
			return fmt.Errorf("bind %v port %d: %w", addr, from.Port, err)
		}
		return nil
	})
}

// destination returns where from's calls go.
func destination(tr Transport, from From) (unix.Sockaddr, error) {
	path := SocketPath
	if from.Path != "" {
		path = from.Path
	}
	switch tr {
	case Unix:
		return &unix.SockaddrUnix{Name: path}, nil
	case Abstract:
		// The leading @ stands for the NUL octet; no NUL is appended.
		return &unix.SockaddrUnix{Name: "@" + path}, nil
	}
	addr, port := from.To.Addr(), from.To.Port()
	if port == 0 {
		port = portmapperPort
	}
	switch {
	case addr.IsValid():
	case from.Remote && tr.IPv6():
		addr = Addr(HostIPv6)
	case from.Remote:
		addr = Addr(HostIPv4)
	case tr.IPv6():
		addr = netip.IPv6Loopback()
	default:
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return sockaddr(netip.AddrPortFrom(addr, port))
}

// sockaddr converts an address; a zone is an interface name of the calling
// thread's network namespace.
func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
	}
	sa := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if zone := a.Addr().Zone(); zone != "" {
		index, err := interfaceIndex(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = index
	}
	return sa, nil
}

// interfaceIndex asks by a system call of its own: package net may answer from a
// cache that was filled in another namespace.
func interfaceIndex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return request.Uint32(), nil
}
