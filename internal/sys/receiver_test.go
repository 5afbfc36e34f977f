package sys

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReceiver(t *testing.T) {
	if !netns(t) {
		return
	}
	needIPv6(t)
	o := NewOwners()
	defer o.Close()
	udp := func(family int, bind unix.Sockaddr, peer unix.Sockaddr) func() {
		fd, _, err := udpSocket(family, bind, peer)
		if err != nil {
			t.Fatal(err)
		}
		return func() { unix.Close(fd) }
	}
	tcp := func(network, addr string) func() {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		return func() { l.Close() }
	}
	const port = 2049
	check := func(name, netid, addr string, want bool) {
		t.Helper()
		s, found, err := o.Receiver(netid, at(addr, port))
		if found != want || err != nil || found && (!s.Serving || s.Addr.Port() != port) {
			t.Errorf("%s: %s %s: %+v, %v, %v, want %v", name, netid, addr, s, found, err, want)
		}
		// It never finds what Bound doesn't.
		if bound, err := Bound(netid, at(addr, port)); err != nil || want && !bound {
			t.Errorf("%s: %s %s: Bound says %v, %v", name, netid, addr, bound, err)
		}
	}
	for _, netid := range []string{"udp", "tcp"} {
		check("nobody", netid, "0.0.0.0", false)
		check("nobody", netid+"6", "::", false)
	}
	end := udp(unix.AF_INET, &unix.SockaddrInet4{Port: port}, nil)
	check("0.0.0.0", "udp", "0.0.0.0", true)
	check("0.0.0.0", "udp", "127.0.0.1", true)
	check("0.0.0.0", "udp6", "::", false)
	check("0.0.0.0", "tcp", "0.0.0.0", false)
	end()
	end = udp(unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 2}}, nil)
	check("127.0.0.2", "udp", "127.0.0.2", true)
	check("127.0.0.2", "udp", "127.0.0.1", false)
	check("127.0.0.2", "udp", "0.0.0.0", false) // it may miss one
	end()
	end = udp(unix.AF_INET6, &unix.SockaddrInet6{Port: port}, nil)
	check("dual stack", "udp", "0.0.0.0", true)
	check("dual stack", "udp6", "::", true)
	end()
	end = udp(unix.AF_INET, &unix.SockaddrInet4{Port: port}, raw(at("127.0.0.1", 9)))
	check("a client", "udp", "0.0.0.0", false)
	end()
	end = tcp("tcp", "[::]:2049")
	check("dual stack", "tcp", "0.0.0.0", true)
	check("dual stack", "tcp6", "::1", true)
	end()
	end = tcp("tcp4", "127.0.0.1:2049")
	check("127.0.0.1", "tcp", "0.0.0.0", true)
	check("127.0.0.1", "tcp6", "::", false)
	end()
	if _, found, err := o.Receiver("sctp", at("0.0.0.0", port)); found || !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("sctp: %v, %v", found, err)
	}
}
