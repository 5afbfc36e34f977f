package bed_test

import (
	"bytes"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// attacker has no privileges; a user's subordinate uids are as good.
const attacker = 54321

// TestNobodyPassesForRoot lets an unprivileged user send UNSET of root's registrations over loopback by each way known to make
// the kernel name root's socket for it.
func TestNobodyPassesForRoot(t *testing.T) {
	const program, tries = 100003, 40
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		removals := [][]byte{unsetAddr(4, program, 3, ""), unsetAddr(3, program, 3, "udp"), unsetPort(program, 3)}
		there := func() bool {
			return bytes.Equal(must(t, ns, bed.UDP, root, getPort(program, 3, rpcbind.ProtUDP)), words(2049))
		}
		for _, a := range attacks() {
			t.Run(a.name, func(t *testing.T) {
				lost := 0
				for i := range tries {
					if !there() {
						must(t, ns, bed.Unix, root, setAddr(4, program, 3, "udp", "0.0.0.0.8.1"))
					}
					a.run(t, withXID(removals[i%len(removals)], uint32(i)))
					time.Sleep(2 * time.Millisecond)
					if !there() {
						lost++
					}
				}
				if lost > 0 {
					t.Errorf("root's registration was removed in %d of %d tries", lost, tries)
				}
			})
		}
	})
}

type attack struct {
	name string
	run  func(t *testing.T, call []byte)
}

func attacks() []attack {
	portmapper4, portmapper6 := &unix.SockaddrInet4{Port: 111, Addr: [4]byte{127, 0, 0, 1}}, &unix.SockaddrInet6{Port: 111, Addr: [16]byte{15: 1}}
	any4, any6 := &unix.SockaddrInet4{}, &unix.SockaddrInet6{}
	loop4, loop2 := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}}
	loop6 := &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	// The user sends from a port that a socket of root's also has, and closes at once.
	beside := func(roots, mine unix.Sockaddr, options ...int) func(t *testing.T, call []byte) {
		return func(t *testing.T, call []byte) {
			fd, port := bound(t, roots, 0, options...)
			defer unix.Close(fd)
			to, source := unix.Sockaddr(portmapper4), []byte(nil)
			if _, ok := mine.(*unix.SockaddrInet6); ok {
				to = portmapper6
			}
			if mine == loop2 {
				source = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{127, 0, 0, 1}})
			}
			as(t, attacker, func() {
				fd, _ := bound(t, mine, port, options...)
				defer unix.Close(fd)
				if err := unix.Sendmsg(fd, call, source, to, 0); err != nil {
					t.Error(err)
				}
			})
		}
	}
	return []attack{
		{"root at [::]:X, IPv6 only", beside(any6, any4, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)},
		{"root at 0.0.0.0:X with SO_REUSEADDR", beside(any4, any4, unix.SOL_SOCKET, unix.SO_REUSEADDR)},
		{"root at [::1]:X with SO_REUSEADDR", beside(loop6, any6, unix.SOL_SOCKET, unix.SO_REUSEADDR)},
		{"root at 127.0.0.1:X, source by IP_PKTINFO", beside(loop4, loop2)},
		{"root gets the port next", func(t *testing.T, call []byte) {
			var port int
			as(t, attacker, func() {
				fd, p := bound(t, loop4, 0)
				defer unix.Close(fd)
				port = p
				if err := unix.Sendmsg(fd, call, nil, portmapper4, 0); err != nil {
					t.Error(err)
				}
			})
			fd, _ := bound(t, loop4, port)
			time.Sleep(2 * time.Millisecond)
			unix.Close(fd)
		}},
		{"root connects next from the same port, TCP", func(t *testing.T, call []byte) {
			var port int
			as(t, attacker, func() { port = hitAndRun(t, portmapper4, call) })
			// A connection of root's with both ends the same stands when the portmapper comes to the user's call.
			fd, _ := stream(t, portmapper4, port)
			defer unix.Close(fd)
			_ = unix.Connect(fd, portmapper4)
			time.Sleep(2 * time.Millisecond)
		}},
	}
}

// hitAndRun calls over TCP and resets the connection at once, so that its port is free again.
func hitAndRun(t *testing.T, to unix.Sockaddr, call []byte) int {
	fd, port := stream(t, to, 0)
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		t.Error(err)
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		port = sa.(*unix.SockaddrInet4).Port
	}
	if _, err := unix.Write(fd, bed.Record(call)); err != nil {
		t.Error(err)
	}
	return port
}

// stream makes a TCP socket at a port of 127.0.0.1 that is reset when it is closed.
func stream(t *testing.T, to unix.Sockaddr, port int) (int, int) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Error(err)
	}
	return fd, port
}

// bound makes a UDP socket with a socket option, if one is given, at a port, or one that the kernel chooses for 0.
func bound(t *testing.T, at unix.Sockaddr, port int, option ...int) (fd, chosen int) {
	family := unix.AF_INET
	switch sa := at.(type) {
	case *unix.SockaddrInet4:
		c := *sa
		c.Port, at = port, &c
	case *unix.SockaddrInet6:
		c := *sa
		c.Port, at = port, &c
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(option) == 2 && (option[0] == unix.SOL_SOCKET || family == unix.AF_INET6) {
		_ = unix.SetsockoptInt(fd, option[0], option[1], 1)
	}
	if err := unix.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		chosen = sa.Port
	case *unix.SockaddrInet6:
		chosen = sa.Port
	}
	return fd, chosen
}

// as runs f on a thread of its own with all user ids uid.
func as(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else gets the thread
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid)
		if errno == 0 {
			f()
			done <- nil
			return
		}
		done <- errno
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestReservedPortsThatUsersMayBind: where net.ipv4.ip_unprivileged_port_start lets users bind reserved ports, these prove nothing.
func TestReservedPortsThatUsersMayBind(t *testing.T) {
	const sysctl = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap)
		const program = 0x30180001
		owner := func(vers uint32, from bed.From) string {
			must(t, ns, bed.Unix, root, unsetAddr(4, program, vers, ""))
			must(t, ns, bed.UDP, from, setAddr(4, program, vers, "udp", "0.0.0.0.8.1"))
			return ownerOf(t, ns, program, vers)
		}
		for _, c := range []struct {
			start string
			from  bed.From
			want  string
		}{
			{"1024", loopback4(0, 700), "superuser"},
			{"1024", loopback4(0, 1023), "superuser"},
			{"1024", loopback4(0, 1024), "unknown"},
			{"1024", loopback4(attacker, 700), "unknown"}, // bound with CAP_NET_BIND_SERVICE
			{"1024", root, "unknown"},
			{"700", loopback4(0, 699), "superuser"},
			{"700", loopback4(0, 700), "unknown"},
			{"0", loopback4(0, 1), "unknown"},
			{"2048", loopback4(0, 1024), "unknown"},
		} {
			if err := os.WriteFile(sysctl, []byte(c.start), 0); err != nil {
				t.Fatal(err)
			}
			if got := owner(1, c.from); got != c.want {
				t.Errorf("ip_unprivileged_port_start %s, uid %d, port %d: %q, want %q", c.start, c.from.UID, c.from.Port, got, c.want)
			}
		}
	})
}

// ownerOf returns the owner of a registration, by DUMP.
func ownerOf(t *testing.T, ns *bed.NS, program, version uint32) string {
	t.Helper()
	for _, b := range decodeRPCBs(must(t, ns, bed.Unix, root, dump(4))) {
		if b.Program == program && b.Version == version {
			return b.Owner
		}
	}
	return ""
}
