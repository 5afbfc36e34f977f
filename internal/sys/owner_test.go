package sys

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The users of these tests need no entry in /etc/passwd.
const (
	alice = 54321
	bob   = 54322
)

// udpSocket makes a UDP socket bound to bind and, if peer is valid, connected to it, and returns it with its port.
func udpSocket(family int, bind, peer unix.Sockaddr) (fd int, port uint16, err error) {
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	if bind != nil {
		err = unix.Bind(fd, bind)
	}
	if err == nil && peer != nil {
		err = unix.Connect(fd, peer)
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, addrPort(sa).Port(), nil
}

func mapped(port uint16) unix.Sockaddr {
	return &unix.SockaddrInet6{Port: int(port), Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
}

func at(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

func raw(a netip.AddrPort) unix.Sockaddr {
	sa, err := sockaddr(a)
	if err != nil {
		panic(err)
	}
	return sa
}

// acceptedFrom connects a socket made by uid to a server and returns its descriptor, the accepted connection's, and both ends.
func acceptedFrom(t *testing.T, uid, family int, peer unix.Sockaddr, server *Socket) (fd, ours int, remote, local netip.AddrPort) {
	t.Helper()
	asUser(t, uid, func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(fd, peer)
	})
	listener, err := Served(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for {
		ours, remote, local, err = AcceptTCP(listener)
		switch {
		case errors.Is(err, unix.EAGAIN): // not yet
		case err != nil:
			t.Fatal(err)
		case remote.Port() == addrPort(sa).Port():
			return fd, ours, remote, local
		default: // another test's
			unix.Close(ours)
		}
	}
}

func TestConnectionOwner(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	server4, server6 := mustTCP(t, "127.0.0.1:0"), mustTCP(t, "[::1]:0")
	wild := mustTCP(t, "0.0.0.0:0")
	o := NewOwners()
	defer o.Close()
	for _, test := range []struct {
		name   string
		family int
		peer   unix.Sockaddr
		server *Socket
	}{
		{"tcp", unix.AF_INET, raw(server4.Addr), server4},
		{"tcp to a server at the wildcard", unix.AF_INET, raw(at("127.0.0.1", wild.Addr.Port())), wild},
		{"tcp6", unix.AF_INET6, raw(server6.Addr), server6},
		{"mapped", unix.AF_INET6, mapped(server4.Addr.Port()), server4},
	} {
		t.Run(test.name, func(t *testing.T) {
			ask := func(ours int, remote, local netip.AddrPort, want int) {
				t.Helper()
				asUser(t, bob, func() error { // the daemon has no privileges when it asks
					uid, err := o.Connection(ours, remote, local)
					switch {
					case want >= 0 && (err != nil || int(uid) != want):
						t.Errorf("%d, %v, want %d", uid, err, want)
					case want < 0 && !errors.Is(err, ErrNoSocket):
						t.Errorf("%d, %v, want ErrNoSocket", uid, err)
					}
					return nil
				})
			}
			fd, ours, remote, local := acceptedFrom(t, alice, test.family, test.peer, test.server)
			ask(ours, remote, local, alice)
			if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			ask(ours, remote, local, alice)
			// The caller's end closes first and goes by FIN_WAIT2, an orphan there, to TIME_WAIT. The kernel shows both
			// with uid 0.
			unix.Close(fd)
			ask(ours, remote, local, -1)
			unix.Close(ours)
			// Reset, with another user's connection in its place: ours isn't that one.
			fd, ours, remote, local = acceptedFrom(t, alice, test.family, test.peer, test.server)
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
			next, err := unix.Socket(test.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(next)
			_ = unix.SetsockoptInt(next, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			bind := raw(remote)
			if _, v6 := test.peer.(*unix.SockaddrInet6); v6 && remote.Addr().Is4() {
				bind = mapped(remote.Port())
			}
			if err := errors.Join(unix.Bind(next, bind), unix.Connect(next, test.peer)); err != nil {
				t.Fatal(err)
			}
			ask(ours, remote, local, -1)
			unix.Close(ours)
		})
	}
	t.Run("not a connection", func(t *testing.T) {
		if uid, err := o.Connection(0, server4.Addr, server4.Addr); !errors.Is(err, ErrNoSocket) {
			t.Errorf("%d, %v, want ErrNoSocket", uid, err)
		}
		if uid, err := o.Connection(0, server4.Addr, server6.Addr); err == nil || errors.Is(err, ErrNoSocket) {
			t.Errorf("%d, %v, want an error that is not ErrNoSocket", uid, err)
		}
	})
}

// A socket that only tries to connect with the ends of a connection that stands proves nothing. One bound to the loopback
// interface and one that isn't may have the same ends.
func TestConnectionOwnerOfAnAttempt(t *testing.T) {
	needRoot(t)
	server := mustTCP(t, "127.0.0.1:0")
	o := NewOwners()
	defer o.Close()
	listener, err := Served(server)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	socket := func(port int) (int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
		}
		return fd, err
	}
	var fd int
	asUser(t, alice, func() (err error) {
		if fd, err = socket(0); err != nil {
			return err
		}
		return errors.Join(unix.BindToDevice(fd, "lo"), unix.Connect(fd, raw(server.Addr)))
	})
	defer unix.Close(fd)
	var ours int
	var remote, local netip.AddrPort
	for ours, remote, local, err = AcceptTCP(listener); errors.Is(err, unix.EAGAIN); ours, remote, local, err = AcceptTCP(listener) {
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ours)
	rival, err := socket(int(remote.Port()))
	if err != nil {
		t.Skipf("this kernel doesn't let a second socket have those ends: %v", err)
	}
	defer unix.Close(rival)
	_ = unix.SetNonblock(rival, true)
	if err := unix.Connect(rival, raw(server.Addr)); err != unix.EINPROGRESS {
		t.Skipf("this kernel doesn't let a second socket try: %v", err)
	}
	// The attempt may have had ours reset.
	if uid, err := o.Connection(ours, remote, local); uid != alice && !errors.Is(err, ErrNoSocket) {
		t.Errorf("%d, %v, want %d or ErrNoSocket", uid, err, alice)
	}
}

func TestRootPort(t *testing.T) {
	if !netns(t) { // reserved ports are free there, and ip_unprivileged_port_start is its own
		return
	}
	needIPv6(t)
	server4, server6 := at("127.0.0.1", 111), at("::1", 111)
	mustUDP(t, "0.0.0.0:111")
	mustUDP(t, "[::]:111")
	o := NewOwners()
	defer o.Close()
	ask := func(name string, remote, local netip.AddrPort, want bool) {
		t.Helper()
		if got, err := o.RootPort(remote, local); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	const port = 700
	owned := func(uid, family int, bind unix.Sockaddr) int {
		fd := -1
		onThread(t, func() (err error) {
			if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if err := unix.Fchown(fd, uid, -1); err != nil { // as if that user had made it with CAP_NET_BIND_SERVICE
				return err
			}
			return unix.Bind(fd, bind)
		})
		return fd
	}
	ask("nobody there any more", at("127.0.0.1", port), server4, true)
	for _, test := range []struct {
		name   string
		family int
		bind   unix.Sockaddr
		local  netip.AddrPort
	}{
		{"127.0.0.1", unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}, server4},
		{"0.0.0.0", unix.AF_INET, &unix.SockaddrInet4{Port: port}, server4},
		{"dual stack", unix.AF_INET6, &unix.SockaddrInet6{Port: port}, server4},
		{"mapped", unix.AF_INET6, mapped(port), server4},
		{"::1", unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}, server6},
		{"::", unix.AF_INET6, &unix.SockaddrInet6{Port: port}, server6},
	} {
		remote := netip.AddrPortFrom(test.local.Addr(), port)
		fd := owned(0, test.family, test.bind)
		ask("root at "+test.name, remote, test.local, true)
		unix.Close(fd)
		fd = owned(alice, test.family, test.bind)
		ask("alice at "+test.name, remote, test.local, false)
		if err := unix.BindToDevice(fd, "lo"); err != nil {
			t.Fatal(err)
		}
		ask("alice at "+test.name+" on lo", remote, test.local, false)
		unix.Close(fd)
	}
	ask("a high port", at("127.0.0.1", 1024), server4, false)
	ask("port 0", at("127.0.0.1", 0), server4, false)
	ask("our own port", at("127.0.0.1", 111), server4, false)
	for start, want := range map[string]bool{"700": false, "701": true, "0": false, "2048": true, "1024": true} {
		if err := os.WriteFile(portStart, []byte(start), 0); err != nil {
			t.Fatal(err)
		}
		ask("ip_unprivileged_port_start "+start, at("127.0.0.1", port), server4, want)
	}
}

// An error closes, and the next question is asked anew.
func TestOwnersCloseWithoutAnswer(t *testing.T) {
	if !netns(t) {
		return
	}
	o := NewOwners()
	defer o.Close()
	mustUDP(t, "0.0.0.0:111")
	remote, local := at("127.0.0.1", 700), at("127.0.0.1", 111)
	unix.Close(o.diag.fd) // as if the kernel failed
	if root, err := o.RootPort(remote, local); root || err == nil || errors.Is(err, ErrNoSocket) {
		t.Errorf("a broken socket: %v, %v", root, err)
	}
	if root, err := o.RootPort(remote, local); !root || err != nil {
		t.Errorf("after it: %v, %v", root, err)
	}
	if root, err := o.RootPort(remote, at("127.0.0.1", 112)); root || err == nil {
		t.Errorf("neither end there: %v, %v, want an error", root, err)
	}
	if root, err := o.RootPort(remote, at("::1", 111)); root || err == nil {
		t.Errorf("two families: %v, %v, want an error", root, err)
	}
}

func BenchmarkConnectionOwner(b *testing.B) {
	server, err := ListenTCP(at("127.0.0.1", 0))
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	conn, err := net.Dial("tcp", server.Addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	c, err := server.Listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	remote := netip.MustParseAddrPort(conn.LocalAddr().String())
	o := NewOwners()
	defer o.Close()
	err = control(c.(*net.TCPConn), func(fd int) error {
		for b.Loop() {
			if _, err := o.Connection(fd, remote, server.Addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
