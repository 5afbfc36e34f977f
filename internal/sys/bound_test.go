package sys

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rawSocket makes a socket bound to addr, which need not listen.
func rawSocket(t *testing.T, typ int, addr string, v6only bool) (fd int, at netip.AddrPort) {
	t.Helper()
	a := netip.MustParseAddrPort(addr)
	family := unix.AF_INET
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(a.Port())}
	if a.Addr().Is6() {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()} // a mapped address stays mapped
	} else {
		sa.(*unix.SockaddrInet4).Addr = a.Addr().As4()
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if family == unix.AF_INET6 {
		only := 0
		if v6only {
			only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatalf("bind %v: %v", addr, err)
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, addrPort(local)
}

// covering is what Bound says of a port at the addresses of coverAddrs.
func covering(t *testing.T, netids string, port uint16) string {
	t.Helper()
	var yes []string
	for _, c := range []struct{ netid, addr string }{
		{netids, "127.0.0.1"}, {netids, "127.0.0.2"}, {netids, "0.0.0.0"}, {netids + "6", "::1"}, {netids + "6", "::"},
	} {
		bound, err := Bound(c.netid, netip.AddrPortFrom(netip.MustParseAddr(c.addr), port))
		if err != nil {
			t.Fatal(err)
		}
		now, err := BoundSockets()
		if err != nil {
			t.Fatal(err)
		}
		if all := now.Covers(c.netid, netip.AddrPortFrom(netip.MustParseAddr(c.addr), port)); all != bound {
			t.Errorf("%s %s: Bound says %v, BoundSockets %v", c.netid, c.addr, bound, all)
		}
		if bound {
			yes = append(yes, c.addr)
		}
	}
	return strings.Join(yes, " ")
}

func TestBound(t *testing.T) {
	needIPv6(t)
	for _, test := range []struct {
		bind   string
		v6only bool
		want   string
	}{
		{"127.0.0.1:0", false, "127.0.0.1 0.0.0.0"},
		{"0.0.0.0:0", false, "127.0.0.1 127.0.0.2 0.0.0.0"},
		{"[::1]:0", false, "::1 ::"},
		{"[::]:0", true, "::1 ::"},
		{"[::]:0", false, "127.0.0.1 127.0.0.2 0.0.0.0 ::1 ::"},
		{"[::ffff:127.0.0.1]:0", false, "127.0.0.1 0.0.0.0"},
	} {
		name := fmt.Sprintf("%s v6only=%v", test.bind, test.v6only)
		t.Run("udp "+name, func(t *testing.T) {
			fd, a := rawSocket(t, unix.SOCK_DGRAM, test.bind, test.v6only)
			if got := covering(t, "udp", a.Port()); got != test.want {
				t.Errorf("covers %s, want %s", got, test.want)
			}
			if got := covering(t, "tcp", a.Port()); got != "" {
				t.Logf("tcp %s is bound by another process", got) // the kernel chose the port for UDP alone
			}
			// With a peer it is a client's.
			if err := unix.Connect(fd, raw(netip.AddrPortFrom(a.Addr(), 9))); err != nil && !a.Addr().IsUnspecified() {
				t.Fatal(err)
			} else if err == nil && covering(t, "udp", a.Port()) != "" {
				t.Error("a connected socket counts")
			}
		})
		t.Run("tcp "+name, func(t *testing.T) {
			fd, a := rawSocket(t, unix.SOCK_STREAM, test.bind, test.v6only)
			if got := covering(t, "tcp", a.Port()); got != "" {
				t.Errorf("before listen it covers %s", got)
			}
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
			if got := covering(t, "tcp", a.Port()); got != test.want {
				t.Errorf("covers %s, want %s", got, test.want)
			}
		})
	}
	for _, netid := range []string{"", "local", "sctp", "UDP"} {
		if bound, err := Bound(netid, at("127.0.0.1", 1)); err == nil {
			t.Errorf("netid %q: %v without an error", netid, bound)
		}
	}
}

// By /proc/net the answer is the same, but that an IPv6-only socket can't be told from others.
func TestProcNetAgreesWithSockDiag(t *testing.T) {
	needIPv6(t)
	rawSocket(t, unix.SOCK_DGRAM, "127.0.0.1:0", false)
	rawSocket(t, unix.SOCK_DGRAM, "[::ffff:127.0.0.1]:0", false)
	rawSocket(t, unix.SOCK_DGRAM, "[::]:0", false)
	fd, _ := rawSocket(t, unix.SOCK_STREAM, "[::1]:0", false)
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	families := []uint8{unix.AF_INET, unix.AF_INET6}
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		diag, err := diagSocketsAt(protocol, servingStates(protocol), 0, families)
		if err != nil {
			t.Skipf("needs sock_diag: %v", err)
		}
		proc, err := procSocketsAt(protocol, servingStates(protocol), 0, families)
		if err != nil {
			t.Fatal(err)
		}
		// Only our own: others come and go.
		own := func(all []BoundSocket) (mine []BoundSocket) {
			for _, s := range all {
				if found, err := FindSocketProcesses([]uint32{s.Inode}); err == nil && len(found.Processes[s.Inode]) > 0 &&
					found.Processes[s.Inode][0].PID == os.Getpid() {
					s.DualStack = false
					mine = append(mine, s)
				}
			}
			slices.SortFunc(mine, func(a, b BoundSocket) int { return strings.Compare(a.String(), b.String()) })
			return mine
		}
		d, p := own(diag), own(proc)
		if len(d) == 0 || !slices.Equal(d, p) {
			t.Errorf("protocol %d:\nsock_diag %+v\n/proc/net %+v", protocol, d, p)
		}
	}
}

func TestConflicts(t *testing.T) {
	needIPv6(t)
	for _, test := range []struct {
		bind   string
		v6only bool
		want   string // of those that we could want to bind, which are refused
	}{
		{"127.0.0.1:0", false, "127.0.0.1 0.0.0.0"},
		{"0.0.0.0:0", false, "127.0.0.1 127.0.0.2 0.0.0.0"},
		{"[::1]:0", false, "::1 ::"},
		{"[::]:0", true, "::1 ::"},
		{"[::]:0", false, "127.0.0.1 127.0.0.2 0.0.0.0 ::1 ::"},
		{"[::ffff:127.0.0.1]:0", false, "127.0.0.1 0.0.0.0"},
	} {
		for typ, netids := range map[int]string{unix.SOCK_DGRAM: "udp", unix.SOCK_STREAM: "tcp"} {
			fd, a := rawSocket(t, typ, test.bind, test.v6only)
			if typ == unix.SOCK_STREAM {
				if err := unix.Listen(fd, 1); err != nil {
					t.Fatal(err)
				}
			}
			var told, refused []string
			for _, addr := range []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"} {
				want := netip.AddrPortFrom(netip.MustParseAddr(addr), a.Port())
				found, err := Conflicts(netid(netids, want.Addr().Is6()), want)
				if err != nil {
					t.Fatal(err)
				}
				if len(found) > 0 {
					told = append(told, addr)
					if found[0].Inode == 0 || !found[0].HasUID || found[0].UID != uint32(os.Geteuid()) || found[0].Addr != a {
						t.Errorf("%+v, want one of uid %d at %v", found[0], os.Geteuid(), a)
					}
				}
				// The kernel is the oracle.
				if fd, err := bindIP(want, typ); err != nil {
					refused = append(refused, addr)
				} else {
					unix.Close(fd)
				}
			}
			if got := strings.Join(told, " "); got != test.want || got != strings.Join(refused, " ") {
				t.Errorf("%s at %s: conflicts with %s, refused are %v, want %s", netids, test.bind, got, refused, test.want)
			}
		}
	}
}

// A TCP socket that is bound and doesn't listen holds the port too; kernels before 6.8 don't show it.
func TestConflictsBoundOnly(t *testing.T) {
	_, a := rawSocket(t, unix.SOCK_STREAM, "127.0.0.1:0", false)
	found, err := Conflicts("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 && !kernelAtLeast(t, 6, 8) {
		t.Skip("needs Linux 6.8: older ones don't dump a TCP socket that is only bound")
	}
	if len(found) != 1 || found[0].Serving || found[0].Inode == 0 {
		t.Errorf("%+v, want one that doesn't serve", found)
	}
}

// Connections stand in the way only of who finds nobody that listens.
func TestConflictsConnections(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	a := netip.MustParseAddrPort(l.Addr().String())
	if found, err := Conflicts("tcp", a); err != nil || len(found) != 1 || !found[0].Serving {
		t.Errorf("%+v, %v, want the listener alone", found, err)
	}
	l.Close()
	if found, err := Conflicts("tcp", a); err != nil || len(found) != 1 || found[0].Serving || found[0].Inode == 0 {
		t.Errorf("%+v, %v, want the connection", found, err)
	}
	// Closed from our side it is in TIME_WAIT, or about to be, and nobody's.
	accepted.Close()
	c.Close()
	found, err := Conflicts("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range found {
		if s.Inode != 0 || s.HasUID {
			t.Errorf("%+v has an owner", s)
		}
	}
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

func TestLocalSockets(t *testing.T) {
	dir := t.TempDir()
	path, gone := filepath.Join(dir, "s s"), filepath.Join(dir, "gone")
	abstract := fmt.Sprintf("@gportmap-test-held-%d", os.Getpid())
	mustLocal(t, path)
	mustLocal(t, abstract)
	lost := mustLocal(t, gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	fd, err := bindLocal(gone)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	stale := filepath.Join(dir, "stale")
	if fd, err = bindLocal(stale); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	// Another name of the same file.
	link := filepath.Join(dir, "link")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path, want string
	}{
		{path, path}, {abstract, abstract}, {link, path}, {stale, ""}, {gone, ""},
		{filepath.Join(dir, "missing"), ""}, {abstract + "x", ""},
	} {
		found, err := LocalSockets(test.path)
		if err != nil {
			t.Fatal(err)
		}
		if test.want == "" {
			if len(found) != 0 {
				t.Errorf("%s: %+v, want none", test.path, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Path != test.want || !found[0].Serving || found[0].Inode == 0 ||
			found[0].HasUID && found[0].UID != uint32(os.Geteuid()) {
			t.Errorf("%s: %+v, want %s", test.path, found, test.want)
		}
	}
	all, err := procLocalSockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, abstract} {
		if !slices.ContainsFunc(all, func(s localSocket) bool { return s.Path == name && s.Serving && s.Inode != 0 }) {
			t.Errorf("%s isn't in /proc/net/unix", name)
		}
	}
	lost.Close()
}

// The look for who holds a socket doesn't connect to it: systemd would start its service.
func TestStaleSocketDoesNotConnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := bindLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	if stale, err := StaleSocket(path); stale || err == nil {
		t.Errorf("%v, %v, want EADDRINUSE", stale, err)
	}
	if _, err := ListenLocal(path); err == nil {
		t.Error("ListenLocal took a path that is served")
	}
	if c, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK); err != unix.EAGAIN {
		t.Errorf("accept: %d, %v, want that nobody called", c, err)
	}
}
