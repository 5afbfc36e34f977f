package sys

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds waits for what must happen; it is not asserted on.
const patience = 10 * time.Second

const childEnv = "GPORTMAP_SYS_TEST_CHILD"

// needRoot skips a test that cannot run without privileges.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv(childEnv) == "" {
		t.Skip("needs root: sockets of other users or network namespaces")
	}
}

// child runs the calling test again in a process of its own, made with attr, and returns false; in that process it returns
// true. The files are its descriptors from 3 on.
func child(t *testing.T, attr syscall.SysProcAttr, files ...*os.File) bool {
	t.Helper()
	if os.Getenv(childEnv) == t.Name() {
		return true
	}
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command("/proc/self/exe", "-test.run="+pattern, "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"="+t.Name())
	cmd.ExtraFiles = files
	attr.Pdeathsig = syscall.SIGKILL // of this thread, which waits below
	cmd.SysProcAttr = &attr
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in the child process: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("in the child process:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("the child process did not run the test:\n%s", out)
	}
	return false
}

// netns is child in a network namespace whose loopback is up. Needs root.
func netns(t *testing.T) bool {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the ip command of iproute2")
	}
	if !child(t, syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}) {
		return false
	}
	ip(t, "link set lo up")
	return true
}

// ip runs ip(8) with arguments separated by blanks.
func ip(t *testing.T, arguments string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}

// onThread runs f on an operating system thread that ends with it, so f may change the thread's credentials or namespace.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not used again
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// asUser runs f with the effective user id uid.
func asUser(t *testing.T, uid int, f func() error) {
	t.Helper()
	onThread(t, func() error {
		// By hand, since the functions of that name act on all threads.
		keep := ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
			return errno
		}
		return f()
	})
}

// needIPv6 skips where there is no IPv6.
func needIPv6(t *testing.T) {
	t.Helper()
	if !IPv6Available() {
		t.Skip("needs IPv6 on loopback")
	}
}

func mustUDP(t *testing.T, addr string) *Socket {
	t.Helper()
	s, err := ListenUDP(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustTCP(t *testing.T, addr string) *Socket {
	t.Helper()
	s, err := ListenTCP(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// dualStackUDP is an IPv6 socket at [::]:0 that serves IPv4 too, as systemd may hand over.
func dualStackUDP(t *testing.T) *PacketConn {
	t.Helper()
	needIPv6(t)
	c, err := newPacketConn(dualStack(t, unix.SOCK_DGRAM))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dualStack returns a socket bound to [::]:0 without IPV6_V6ONLY.
func dualStack(t *testing.T, typ int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// read reads one batch within patience.
func read(t *testing.T, b *Batch, c *PacketConn) []Datagram {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got, err := b.Read(c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
