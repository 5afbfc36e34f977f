package sys

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fileOf gives a socket as systemd hands it over: blocking, to be inherited.
func fileOf(t *testing.T, fd int, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	return f
}

// boundFile is a socket bound to sa, listening if it is a stream and backlog positive.
func boundFile(t *testing.T, sa unix.Sockaddr, typ, protocol, backlog int) *os.File {
	t.Helper()
	family := unix.AF_UNIX
	switch sa.(type) {
	case *unix.SockaddrInet4:
		family = unix.AF_INET
	case *unix.SockaddrInet6:
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, typ, protocol)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && backlog > 0 {
		err = unix.Listen(fd, backlog)
	}
	return fileOf(t, fd, err)
}

// activated calls Activation as systemd would have it with the child's extra files, which start at descriptor 3.
func activated(t *testing.T, n int, names string) ([]*Socket, error) {
	t.Helper()
	t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	t.Setenv("LISTEN_FDS", fmt.Sprint(n))
	t.Setenv("LISTEN_FDNAMES", names)
	a, err := Activation()
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, ok := os.LookupEnv(v); ok {
			t.Errorf("%s is still set", v)
		}
	}
	if a.Kept != nil || a.Connections != nil || a.Lost != nil {
		t.Errorf("kept: %+v, want nothing", a)
	}
	return a.Sockets, err
}

func TestActivated(t *testing.T) {
	needIPv6(t)
	var files []*os.File
	name := fmt.Sprintf("@gportmap-test-act-%d", os.Getppid())
	if os.Getenv(childEnv) == "" {
		name = fmt.Sprintf("@gportmap-test-act-%d", os.Getpid())
		dual := dualStack(t, unix.SOCK_STREAM)
		path := filepath.Join(t.TempDir(), "s")
		t.Setenv("GPORTMAP_SYS_TEST_PATH", path)
		files = []*os.File{
			boundFile(t, raw(at("127.0.0.1", 0)), unix.SOCK_DGRAM, 0, 0),
			boundFile(t, raw(at("127.0.0.1", 0)), unix.SOCK_STREAM, 0, 5),
			boundFile(t, raw(at("::1", 0)), unix.SOCK_DGRAM, 0, 0),
			boundFile(t, raw(at("::1", 0)), unix.SOCK_STREAM, 0, 5),
			boundFile(t, &unix.SockaddrUnix{Name: path}, unix.SOCK_STREAM, 0, 5),
			boundFile(t, &unix.SockaddrUnix{Name: name}, unix.SOCK_STREAM, 0, 5),
			fileOf(t, dualStack(t, unix.SOCK_DGRAM), nil),
			fileOf(t, dual, unix.Listen(dual, 5)),
		}
	}
	if !child(t, syscall.SysProcAttr{}, files...) {
		return
	}
	sockets, err := activated(t, 8, "a:b:c:d:e:f:g:h")
	if err != nil {
		t.Fatal(err)
	}
	path := os.Getenv("GPORTMAP_SYS_TEST_PATH")
	want := []Socket{
		{Netid: "udp", Addr: at("127.0.0.1", 0)},
		{Netid: "tcp", Addr: at("127.0.0.1", 0)},
		{Netid: "udp6", Addr: at("::1", 0)},
		{Netid: "tcp6", Addr: at("::1", 0)},
		{Netid: "local", Path: path},
		{Netid: "local", Path: name},
		{Netid: "udp6", Addr: at("::", 0), DualStack: true},
		{Netid: "tcp6", Addr: at("::", 0), DualStack: true},
	}
	if len(sockets) != len(want) {
		t.Fatalf("%d sockets, want %d", len(sockets), len(want))
	}
	for i, s := range sockets {
		w := &want[i]
		if s.Netid != w.Netid || s.Path != w.Path || s.Addr.Addr() != w.Addr.Addr() || s.DualStack != w.DualStack || !s.Activated {
			t.Errorf("socket %d: %+v, want %+v", i, s, w)
		}
		checkServed(t, s)
		if err := s.Close(); err != nil {
			t.Errorf("socket %d: Close: %v", i, err)
		}
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the path belongs to systemd, but after Close: %v", err)
	}
	if a, err := Activation(); a.Sockets != nil || err != nil {
		t.Errorf("second Activation = %v, %v, want nothing", a, err)
	}
}

// checkServed calls s over loopback, and looks at the flags of its descriptor. Listeners are under the poller, UDP sockets
// are waited for in the kernel.
func checkServed(t *testing.T, s *Socket) {
	t.Helper()
	flags := func(fd int) error {
		if v, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || (v&unix.O_NONBLOCK != 0) != (s.Listener != nil) {
			return fmt.Errorf("flags %#x, %v: O_NONBLOCK is wrong", v, err)
		}
		if v, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || v&unix.FD_CLOEXEC == 0 {
			return fmt.Errorf("descriptor flags %#x, %v, want FD_CLOEXEC", v, err)
		}
		return nil
	}
	to := s.Addr
	if s.DualStack {
		to = at("127.0.0.1", to.Port())
	}
	switch l := s.Listener.(type) {
	case nil:
		if err := control(s.Packet.file, flags); err != nil {
			t.Errorf("%s: %v", s.Netid, err)
		}
		onThread(t, func() error { return send(raw(to), "call") })
		d := read(t, NewBatch(1, 100), s.Packet)[0]
		if string(d.Payload) != "call" || d.Local != to.Addr() || d.Ifindex != 1 {
			t.Errorf("%s: %+v, want Local %v", s.Netid, d, to.Addr())
		}
	case *Listener:
		if err := control(l, flags); err != nil {
			t.Errorf("%s: %v", s.Netid, err)
		}
		if s.Path != "" {
			connect(t, l, "unix", s.Path)
		} else {
			connect(t, l, "tcp", to.String())
		}
	default:
		t.Errorf("%s: a %T", s.Netid, l)
	}
}

func connect(t *testing.T, l net.Listener, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	a.Close()
}

func TestActivatedUnfit(t *testing.T) {
	needIPv6(t)
	var files []*os.File
	if os.Getenv(childEnv) == "" {
		files = unfitFiles(t)
	}
	if !child(t, syscall.SysProcAttr{}, files...) {
		return
	}
	want := []string{
		"descriptor 4 (stream): is an IPv4 stream socket of TCP, connected to a client; the unit must say Accept=no",
		"descriptor 5 (idle): is an IPv4 stream socket of TCP that does not listen",
		"descriptor 6 (LISTEN_FD_6): is a local datagram socket",
		"descriptor 7 (netlink): is a netlink raw socket",
		"descriptor 8 (fifo): is a FIFO, not a socket",
		"descriptor 9 (file): is a regular file, not a socket",
		"descriptor 10 (epoll): is an anonymous file of the kernel, not a socket",
		"descriptor 11 (unbound): is an IPv4 datagram socket of UDP not bound to a port",
		"descriptor 12 (talk): is an IPv4 datagram socket of UDP, connected to one peer",
		"descriptor 13 (mapped): is an IPv6 datagram socket of UDP bound to the IPv4-mapped address",
		"descriptor 14 (seq): is a local sequential packet socket",
		"what fits: ListenDatagram=",
	}
	sockets, err := activated(t, 12, "good:stream:idle::netlink:fifo:file:epoll:unbound:talk:mapped:seq")
	if err == nil || sockets != nil {
		t.Fatalf("Activated = %v, %v, want an error", sockets, err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range min(len(lines), len(want)) {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("line %d: %s\nwant in it: %s", i, lines[i], want[i])
		}
	}
	for fd := 3; fd < 3+12; fd++ {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			t.Errorf("descriptor %d is still open", fd)
		}
	}
}

// unfitFiles are one file that fits and eleven that don't, in the order of TestActivatedUnfit.
func unfitFiles(t *testing.T) []*os.File {
	t.Helper()
	server := mustTCP(t, "127.0.0.1:0")
	caller, err := net.Dial("tcp", server.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close() })
	stream, err := caller.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	netlink, netlinkErr := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	epoll, epollErr := unix.EpollCreate1(0)
	unbound, unboundErr := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	talk, _, talkErr := udpSocket(unix.AF_INET, nil, raw(at("127.0.0.1", 9)))
	mappedFD, _, mappedErr := udpSocket(unix.AF_INET6, mapped(0), nil)
	abstract := func(suffix string) unix.Sockaddr {
		return &unix.SockaddrUnix{Name: fmt.Sprintf("@gportmap-test-%s-%d", suffix, os.Getpid())}
	}
	return []*os.File{
		boundFile(t, raw(at("127.0.0.1", 0)), unix.SOCK_DGRAM, 0, 0),
		stream,
		boundFile(t, raw(at("127.0.0.1", 0)), unix.SOCK_STREAM, 0, 0),
		boundFile(t, abstract("datagram"), unix.SOCK_DGRAM, 0, 0),
		fileOf(t, netlink, netlinkErr),
		r,
		file,
		fileOf(t, epoll, epollErr),
		fileOf(t, unbound, unboundErr),
		fileOf(t, talk, talkErr),
		fileOf(t, mappedFD, mappedErr),
		boundFile(t, abstract("seq"), unix.SOCK_SEQPACKET, 0, 5),
	}
}

func TestActivatedRaw(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		family, typ, protocol int
		want                  string
	}{
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, "is an IPv4 raw socket of ICMP"},
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0, "is a vsock stream socket"},
		{unix.AF_PACKET, unix.SOCK_DGRAM, 0, "is a packet datagram socket"},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, "is an IPv4 stream socket of MPTCP"},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, "is an IPv6 datagram socket of UDP-Lite"},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, "is an IPv4 stream socket of SCTP"},
	} {
		t.Run(test.want, func(t *testing.T) {
			fd, err := unix.Socket(test.family, test.typ, test.protocol)
			if err != nil {
				t.Skipf("this kernel has no such socket: %v", err)
			}
			defer unix.Close(fd)
			if a, err := classify(fd); err == nil || err.Error() != test.want {
				t.Errorf("classify = %+v, %v, want %q", a, err, test.want)
			}
		})
	}
}

func TestActivatedNothing(t *testing.T) {
	for _, test := range []struct{ name, pid, fds string }{
		{"no variables", "", ""},
		{"another process", fmt.Sprint(os.Getppid()), "1"},
		{"none", fmt.Sprint(os.Getpid()), "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("LISTEN_PID", test.pid)
			t.Setenv("LISTEN_FDS", test.fds)
			if a, err := Activation(); a.Sockets != nil || err != nil {
				t.Errorf("Activation = %v, %v, want nothing", a, err)
			}
		})
	}
}
