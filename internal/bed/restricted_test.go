package bed_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// forbid has a system call fail with an errno for this thread and what it starts, for good: with a first argument, if that is
// not negative, else always (seccomp(2)).
func forbid(number uint32, first int, errno unix.Errno) error {
	const (
		load, jump, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		numberAt        = 0
	)
	argAt := uint32(16) // struct seccomp_data: int nr, u32 arch, u64 instruction pointer, u64 args[6]
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		argAt += 4
	}
	program := []unix.SockFilter{
		{Code: load, K: numberAt},
		{Code: jump, K: number, Jf: 3},
		{Code: load, K: argAt},
		{Code: jump, K: uint32(first), Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	if first < 0 {
		program = append([]unix.SockFilter{{Code: load, K: numberAt}, {Code: jump, K: number, Jf: 1}}, program[4:]...)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}

// TestRestrictedProcess serves where one system call after the other is refused, as by a sandbox or an old kernel.
func TestRestrictedProcess(t *testing.T) {
	for _, c := range []struct {
		name   string
		number uint32
		first  int
		errno  unix.Errno
		says   string // in the log; empty for nothing that is asked for
	}{
		{"AF_NETLINK", unix.SYS_SOCKET, unix.AF_NETLINK, unix.EAFNOSUPPORT, "allow AF_NETLINK"},
		{"AF_NETLINK by EPERM", unix.SYS_SOCKET, unix.AF_NETLINK, unix.EPERM, "allow AF_NETLINK"},
		{"inotify", unix.SYS_INOTIFY_INIT1, -1, unix.ENOSYS, ""},
		{"epoll_pwait2", unix.SYS_EPOLL_PWAIT2, -1, unix.ENOSYS, ""},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, -1, unix.ENOSYS, ""},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, -1, unix.EPERM, ""},
		{"landlock", unix.SYS_LANDLOCK_CREATE_RULESET, -1, unix.ENOSYS, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
				done := make(chan *bed.Daemon)
				go func() {
					defer close(done)
					runtime.LockOSThread() // never unlocked: the filter stays
					if err := forbid(c.number, c.first, c.errno); err != nil {
						t.Error(err)
						return
					}
					done <- ns.Start(t, bed.Gportmap)
				}()
				d := <-done
				if d == nil {
					t.Fatal("it doesn't serve")
				}
				const program = 0x30200001
				for i, tr := range []bed.Transport{bed.Unix, bed.UDP, bed.TCP, bed.UDP6, bed.TCP6} {
					vers := uint32(i)
					if got := must(t, ns, tr, root, setAddr(4, program, vers, "udp", "0.0.0.0.8.1")); !bytes.Equal(got, boolean(true)) {
						t.Errorf("SET over %s: %x", tr, got)
					}
					want := rpcbind.OwnerUnknown // what the kernel can't say closes
					if tr == bed.Unix || (tr == bed.TCP || tr == bed.TCP6) && c.first != unix.AF_NETLINK {
						want = rpcbind.OwnerSuperuser
					}
					if got := ownerOf(t, ns, program, vers); got != want {
						t.Errorf("SET over %s by root: owner %q, want %q", tr, got, want)
					}
				}
				for _, tr := range []bed.Transport{bed.UDP, bed.TCP} {
					if got := must(t, ns, tr, bed.From{Remote: true}, getPort(program, 1, rpcbind.ProtUDP)); !bytes.Equal(got, words(2049)) {
						t.Errorf("GETPORT over %s from another host: %x", tr, got)
					}
				}
				for deadline := time.Now().Add(patience); !strings.Contains(d.Log(), c.says) && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
				}
				if !strings.Contains(d.Log(), c.says) {
					t.Errorf("the log doesn't say %q:\n%s", c.says, d.Log())
				}
				if n := strings.Count(d.Log(), "WARN"); n > 2 {
					t.Errorf("%d warnings:\n%s", n, d.Log())
				}
			})
		})
	}
}

// TestNecessarySystemCalls: without these it ends, with one line that says what to do.
func TestNecessarySystemCalls(t *testing.T) {
	for _, c := range []struct {
		name   string
		number uint32
		errno  unix.Errno
		code   int
		says   string
	}{
		{"eventfd2", unix.SYS_EVENTFD2, unix.ENOSYS, 71, "allow it"},
		{"flock", unix.SYS_FLOCK, unix.ENOLCK, 73, "tmpfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				done := make(chan *bed.Daemon)
				go func() {
					defer close(done)
					runtime.LockOSThread()
					if err := forbid(c.number, -1, c.errno); err != nil {
						t.Error(err)
						return
					}
					done <- ns.StartBare(t, bed.Gportmap)
				}()
				d := <-done
				if d == nil {
					t.FailNow()
				}
				err := d.Wait()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != c.code || strings.Count(strings.TrimSpace(d.Log()), "\n") != 0 || !strings.Contains(d.Log(), c.says) {
					t.Errorf("%v:\n%s", err, d.Log())
				}
			})
		})
	}
}

// TestCommandsWithoutNetlink: doctor names what is missing, and explain explains.
func TestCommandsWithoutNetlink(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Gportmap)
		register(t, ns, 0x30200002, 1, "udp", "0.0.0.0.8.1")
		for _, c := range []struct {
			args []string
			says []string
		}{
			{[]string{"doctor"}, []string{"AF_NETLINK is missing", "allow AF_NETLINK: RestrictAddressFamilies="}},
			{[]string{"explain", bed.PeerIPv4, "getport", fmt.Sprint(0x30200002), "1", "udp"}, []string{"port 2049", "netlink"}},
		} {
			done := make(chan string)
			go func() {
				defer close(done)
				runtime.LockOSThread()
				if err := forbid(unix.SYS_SOCKET, unix.AF_NETLINK, unix.EAFNOSUPPORT); err != nil {
					t.Error(err)
					return
				}
				_, out := control(t, c.args...)
				done <- out
			}()
			out := <-done
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("%v doesn't say %q:\n%s", c.args, want, out)
				}
			}
		}
	})
}
