package sys

import (
	"errors"
	"fmt"
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

// udpSocket makes a UDP socket bound to bind and, if peer is valid, connected to it, and returns it with the source address
// that the server sees.
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

func TestSocketOwnerUDP(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	server4, server6 := mustUDP(t, "127.0.0.1:0"), mustUDP(t, "[::1]:0")
	port4 := server4.Addr.Port()
	wild := mustUDP(t, "0.0.0.0:0").Addr.Port()
	tests := []struct {
		name       string
		family     int
		bind, peer unix.Sockaddr
		remote     string
		local      netip.AddrPort
	}{
		{"bound", unix.AF_INET, raw(at("127.0.0.1", 0)), nil, "127.0.0.1", server4.Addr},
		{"connected", unix.AF_INET, nil, raw(server4.Addr), "127.0.0.1", server4.Addr},
		{"wildcard", unix.AF_INET, raw(at("0.0.0.0", 0)), nil, "127.0.0.1", server4.Addr},
		{"wildcard, to a server at the wildcard", unix.AF_INET, raw(at("0.0.0.0", 0)), nil, "127.0.0.1", at("127.0.0.1", wild)},
		{"udp6 bound", unix.AF_INET6, raw(at("::1", 0)), nil, "::1", server6.Addr},
		{"udp6 connected", unix.AF_INET6, nil, raw(server6.Addr), "::1", server6.Addr},
		{"udp6 wildcard", unix.AF_INET6, raw(at("::", 0)), nil, "::1", server6.Addr},
		{"dual stack at the wildcard", unix.AF_INET6, raw(at("::", 0)), nil, "127.0.0.1", server4.Addr},
		{"dual stack at a mapped address", unix.AF_INET6, mapped(0), nil, "127.0.0.1", server4.Addr},
		{"dual stack, connected to a mapped address", unix.AF_INET6, nil, mapped(port4), "127.0.0.1", server4.Addr},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fd int
			var port uint16
			asUser(t, alice, func() (err error) {
				fd, port, err = udpSocket(test.family, test.bind, test.peer)
				return err
			})
			remote := at(test.remote, port)
			asUser(t, bob, func() error { // the daemon has no privileges when it asks
				if uid, err := SocketOwner("udp", remote, test.local); err != nil || uid != alice {
					t.Errorf("SocketOwner(%v) = %d, %v, want %d", remote, uid, err, alice)
				}
				return nil
			})
			unix.Close(fd)
			if uid, err := SocketOwner("udp", remote, test.local); !errors.Is(err, ErrNoSocket) {
				t.Errorf("closed: SocketOwner(%v) = %d, %v, want ErrNoSocket", remote, uid, err)
			}
		})
	}
	t.Run("connected to another server", func(t *testing.T) {
		fd, port, err := udpSocket(unix.AF_INET, nil, raw(at("127.0.0.1", wild)))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if uid, err := SocketOwner("udp", at("127.0.0.1", port), server4.Addr); !errors.Is(err, ErrNoSocket) {
			t.Errorf("SocketOwner = %d, %v, want ErrNoSocket", uid, err)
		}
	})
	t.Run("our own port", func(t *testing.T) {
		for _, remote := range []netip.AddrPort{at("127.0.0.1", wild), at("127.0.0.2", wild)} {
			if uid, err := SocketOwner("udp", remote, at("127.0.0.1", wild)); !errors.Is(err, ErrNoSocket) {
				t.Errorf("SocketOwner(%v) = %d, %v, want ErrNoSocket", remote, uid, err)
			}
		}
	})
	t.Run("bound to loopback", func(t *testing.T) {
		fd, port, err := udpSocket(unix.AF_INET, raw(at("127.0.0.1", 0)), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.BindToDevice(fd, "lo"); err != nil {
			t.Fatal(err)
		}
		if uid, err := SocketOwner("udp", at("127.0.0.1", port), server4.Addr); err != nil || uid != 0 {
			t.Errorf("SocketOwner = %d, %v, want 0", uid, err)
		}
	})
}

// A user may bind a superuser's port at another address and send from it with the superuser's address.
func TestSocketOwnerUDPBorrowedAddress(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	server := mustUDP(t, "127.0.0.1:0")
	tests := []struct {
		name   string
		family int
		rival  unix.Sockaddr
	}{
		{"another address", unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}}},
		{"another mapped address", unix.AF_INET6, &unix.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:127.0.0.2").As16()}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			victim := mustUDP(t, "127.0.0.1:0")
			borrowed := victim.Addr
			switch sa := test.rival.(type) {
			case *unix.SockaddrInet4:
				sa.Port = int(borrowed.Port())
			case *unix.SockaddrInet6:
				sa.Port = int(borrowed.Port())
			}
			asUser(t, alice, func() error {
				fd, _, err := udpSocket(test.family, test.rival, nil)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				control := make([]byte, controlOctets)
				control = control[:putSource(control, borrowed.Addr(), 0)]
				to := raw(server.Addr)
				if test.family == unix.AF_INET6 {
					to = mapped(server.Addr.Port())
				}
				if err := unix.Sendmsg(fd, []byte("as root"), control, to, 0); err != nil {
					return fmt.Errorf("sendmsg: %w", err)
				}
				got := read(t, NewBatch(1, 100), server.Packet)
				if got[0].Remote != borrowed {
					return fmt.Errorf("the datagram came from %v, not from %v: nothing to defend against", got[0].Remote, borrowed)
				}
				uid, err := SocketOwner("udp", borrowed, server.Addr)
				if !errors.Is(err, ErrNoSocket) {
					t.Errorf("SocketOwner = %d, %v, want ErrNoSocket", uid, err)
				}
				return nil
			})
			if uid, err := SocketOwner("udp", borrowed, server.Addr); err != nil || uid != 0 {
				t.Errorf("after the rival is gone: SocketOwner = %d, %v, want 0", uid, err)
			}
		})
	}
}

func TestSocketOwnerTCP(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	server4, server6 := mustTCP(t, "127.0.0.1:0"), mustTCP(t, "[::1]:0")
	wild := mustTCP(t, "0.0.0.0:0")
	tests := []struct {
		name   string
		family int
		peer   unix.Sockaddr
		server *Socket
	}{
		{"tcp", unix.AF_INET, raw(server4.Addr), server4},
		{"tcp to a server at the wildcard", unix.AF_INET, raw(at("127.0.0.1", wild.Addr.Port())), wild},
		{"tcp6", unix.AF_INET6, raw(server6.Addr), server6},
		{"mapped", unix.AF_INET6, mapped(server4.Addr.Port()), server4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fd int
			asUser(t, alice, func() (err error) {
				if fd, err = unix.Socket(test.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				return unix.Connect(fd, test.peer)
			})
			conn, err := test.server.Listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			remote, local := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort()
			asUser(t, bob, func() error {
				if uid, err := SocketOwner(test.server.Netid, remote, local); err != nil || uid != alice {
					t.Errorf("SocketOwner = %d, %v, want %d", uid, err, alice)
				}
				return nil
			})
			// The caller's end closes first and goes by FIN_WAIT2, an orphan there, to TIME_WAIT. The kernel shows both
			// with uid 0.
			unix.Close(fd)
			if uid, err := SocketOwner(test.server.Netid, remote, local); !errors.Is(err, ErrNoSocket) {
				t.Errorf("orphan: SocketOwner = %d, %v, want ErrNoSocket", uid, err)
			}
			conn.Close()
			if uid, err := SocketOwner(test.server.Netid, remote, local); !errors.Is(err, ErrNoSocket) {
				t.Errorf("TIME_WAIT: SocketOwner = %d, %v, want ErrNoSocket", uid, err)
			}
		})
	}
	t.Run("a listener at the caller's port", func(t *testing.T) {
		other := mustTCP(t, "127.0.0.1:0")
		if uid, err := SocketOwner("tcp", other.Addr, server4.Addr); !errors.Is(err, ErrNoSocket) {
			t.Errorf("SocketOwner = %d, %v, want ErrNoSocket", uid, err)
		}
	})
}

// Unprivileged, the answer is the test's own user.
func TestSocketOwnerSelf(t *testing.T) {
	server := mustUDP(t, "127.0.0.1:0")
	caller := mustUDP(t, "127.0.0.1:0")
	if uid, err := SocketOwner("udp", caller.Addr, server.Addr); err != nil || int(uid) != os.Geteuid() {
		t.Errorf("SocketOwner = %d, %v, want %d", uid, err, os.Geteuid())
	}
	caller.Close()
	if uid, err := SocketOwner("udp", caller.Addr, server.Addr); !errors.Is(err, ErrNoSocket) {
		t.Errorf("closed: SocketOwner = %d, %v, want ErrNoSocket", uid, err)
	}
	server.Close()
	if uid, err := SocketOwner("udp", caller.Addr, server.Addr); err == nil || errors.Is(err, ErrNoSocket) {
		t.Errorf("neither end there: SocketOwner = %d, %v, want an error that is not ErrNoSocket", uid, err)
	}
}

func TestSocketOwnerRefuses(t *testing.T) {
	a, b := at("127.0.0.1", 1), at("127.0.0.1", 2)
	for _, test := range []struct {
		netid         string
		remote, local netip.AddrPort
	}{
		{"sctp", a, b},
		{"", a, b},
		{"udp", netip.AddrPort{}, b},
		{"tcp", a, netip.AddrPort{}},
		{"tcp", a, at("::1", 2)},
	} {
		if uid, err := SocketOwner(test.netid, test.remote, test.local); err == nil || errors.Is(err, ErrNoSocket) {
			t.Errorf("SocketOwner(%q, %v, %v) = %d, %v, want an error that is not ErrNoSocket", test.netid, test.remote,
				test.local, uid, err)
		}
	}
}

func BenchmarkSocketOwner(b *testing.B) {
	for _, netid := range []string{"udp", "tcp"} {
		b.Run(netid, func(b *testing.B) {
			listen := ListenUDP
			if netid == "tcp" {
				listen = ListenTCP
			}
			server, err := listen(at("127.0.0.1", 0))
			if err != nil {
				b.Fatal(err)
			}
			defer server.Close()
			conn, err := net.Dial(netid, server.Addr.String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			remote := netip.MustParseAddrPort(conn.LocalAddr().String())
			for b.Loop() {
				if _, err := SocketOwner(netid, remote, server.Addr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
