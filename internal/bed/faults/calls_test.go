package faults

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// leftOut are the system calls that are never stopped at or failed, and why.
var leftOut = []struct {
	why   string
	calls []uintptr
}{
	{"memory: Go's runtime ends the program when it gets none", []uintptr{
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_BRK}},
	{"threads and their signals: Go's runtime ends the program when they fail", []uintptr{
		unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_FUTEX, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN,
		unix.SYS_SIGALTSTACK, unix.SYS_TGKILL, unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, archPrctl()}},
	{"waits of Go's scheduler, which ignores their results", []uintptr{
		unix.SYS_NANOSLEEP, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP}},
	{"the kernel has no errors for them", []uintptr{
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_UMASK, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RESTART_SYSCALL}},
}

// alsoLeftOut says what faultable leaves out.
const alsoLeftOut = `fcntl F_GETFD of the standard streams: Go's runtime ends the program when it fails
the first epoll_create1, eventfd2 and epoll_ctl, and the eventfd that they are about: Go's netpoller, which ends the program
epoll_pwait of Go's netpoller: the same
read and write of the pipe by which os/exec learns whether a program began: it waits for the program's end if it can't
a call that Go makes in every thread, from the second thread on: results that differ end the program`

// archPrctl returns the number of arch_prctl, which sets a thread up, where there is one.
func archPrctl() uintptr {
	if runtime.GOARCH == "amd64" {
		return 158
	}
	return unix.SYS_SET_TID_ADDRESS
}

// names has the names of system calls, and for each argument how to show it: p a path, f a descriptor, a the address of a
// socket, i a number, . not at all. What isn't here is shown by its number.
var names = map[uintptr]struct{ name, args string }{
	unix.SYS_ACCEPT4: {"accept4", "f"}, unix.SYS_BIND: {"bind", ".a"}, unix.SYS_CAPGET: {"capget", ""}, unix.SYS_CAPSET: {"capset", ""},
	unix.SYS_CHDIR: {"chdir", "p"}, unix.SYS_CLOSE: {"close", "f"}, unix.SYS_CONNECT: {"connect", ".a"}, unix.SYS_DUP3: {"dup3", "f"},
	unix.SYS_EPOLL_CREATE1: {"epoll_create1", ""}, unix.SYS_EPOLL_CTL: {"epoll_ctl", ".if"}, unix.SYS_EPOLL_PWAIT: {"epoll_pwait", ""},
	unix.SYS_EVENTFD2: {"eventfd2", ""}, unix.SYS_EXECVE: {"execve", "p"}, unix.SYS_FACCESSAT: {"faccessat", ".p"},
	unix.SYS_FACCESSAT2: {"faccessat2", ".p"}, unix.SYS_FCHDIR: {"fchdir", "f"}, unix.SYS_FCHMOD: {"fchmod", "f"},
	unix.SYS_FCHMODAT: {"fchmodat", ".p"}, unix.SYS_FCHOWN: {"fchown", "f"}, unix.SYS_FCHOWNAT: {"fchownat", ".p"},
	unix.SYS_FCNTL: {"fcntl", "fi"}, unix.SYS_FLOCK: {"flock", "fi"}, unix.SYS_FSTAT: {"fstat", "f"}, unix.SYS_FSTATFS: {"fstatfs", "f"},
	unix.SYS_FTRUNCATE: {"ftruncate", "f"}, unix.SYS_GETDENTS64: {"getdents64", "f"}, unix.SYS_GETPEERNAME: {"getpeername", "f"},
	unix.SYS_GETRANDOM: {"getrandom", ""}, unix.SYS_GETRESGID: {"getresgid", ""}, unix.SYS_GETRESUID: {"getresuid", ""},
	unix.SYS_GETSOCKNAME: {"getsockname", "f"}, unix.SYS_GETSOCKOPT: {"getsockopt", "fii"}, unix.SYS_INOTIFY_ADD_WATCH: {"inotify_add_watch", ".p"},
	unix.SYS_INOTIFY_INIT1: {"inotify_init1", ""}, unix.SYS_IOCTL: {"ioctl", "fi"}, unix.SYS_KILL: {"kill", ".i"},
	unix.SYS_LANDLOCK_ADD_RULE: {"landlock_add_rule", ""}, unix.SYS_LANDLOCK_CREATE_RULESET: {"landlock_create_ruleset", ".."},
	unix.SYS_LANDLOCK_RESTRICT_SELF: {"landlock_restrict_self", ""}, unix.SYS_LINKAT: {"linkat", ".p"}, unix.SYS_LISTEN: {"listen", "f"},
	unix.SYS_LSEEK: {"lseek", "f"}, unix.SYS_MKDIRAT: {"mkdirat", ".p"}, unix.SYS_NEWFSTATAT: {"newfstatat", ".p"}, unix.SYS_OPENAT: {"openat", ".p"},
	unix.SYS_PIDFD_GETFD: {"pidfd_getfd", ""}, unix.SYS_PIDFD_OPEN: {"pidfd_open", ""}, unix.SYS_PIDFD_SEND_SIGNAL: {"pidfd_send_signal", ".i"},
	unix.SYS_PIPE2: {"pipe2", ""}, unix.SYS_PPOLL: {"ppoll", ""}, unix.SYS_PRCTL: {"prctl", "ii"}, unix.SYS_PREAD64: {"pread64", "f"},
	unix.SYS_PRLIMIT64: {"prlimit64", ".i"}, unix.SYS_PWRITE64: {"pwrite64", "f"}, unix.SYS_READ: {"read", "f"}, unix.SYS_READLINKAT: {"readlinkat", ".p"},
	unix.SYS_RECVFROM: {"recvfrom", "f"}, unix.SYS_RECVMMSG: {"recvmmsg", "f"}, unix.SYS_RECVMSG: {"recvmsg", "f"}, unix.SYS_RENAMEAT: {"renameat", ".p"},
	unix.SYS_RENAMEAT2: {"renameat2", ".p"}, unix.SYS_SENDMMSG: {"sendmmsg", "f"}, unix.SYS_SENDMSG: {"sendmsg", "f"}, unix.SYS_SENDTO: {"sendto", "f"},
	unix.SYS_SETGID: {"setgid", ""}, unix.SYS_SETGROUPS: {"setgroups", ""}, unix.SYS_SETRESGID: {"setresgid", ""}, unix.SYS_SETRESUID: {"setresuid", ""},
	unix.SYS_SETSID: {"setsid", ""}, unix.SYS_SETSOCKOPT: {"setsockopt", "fii"}, unix.SYS_SETUID: {"setuid", ""}, unix.SYS_SHUTDOWN: {"shutdown", "f"},
	unix.SYS_SOCKET: {"socket", "iii"}, unix.SYS_SOCKETPAIR: {"socketpair", ""}, unix.SYS_STATFS: {"statfs", "p"}, unix.SYS_SYSINFO: {"sysinfo", ""},
	unix.SYS_UNAME: {"uname", ""}, unix.SYS_UNLINKAT: {"unlinkat", ".p"}, unix.SYS_WAIT4: {"wait4", ""}, unix.SYS_WAITID: {"waitid", ""}, unix.SYS_WRITE: {"write", "f"},
}

// everyThread are the calls that Go makes in every thread alike.
var everyThread = map[uintptr]bool{
	unix.SYS_CAPSET: true, unix.SYS_LANDLOCK_RESTRICT_SELF: true, unix.SYS_PRCTL: true, unix.SYS_SETGROUPS: true,
	unix.SYS_SETRESGID: true, unix.SYS_SETRESUID: true,
}

// describe shows a call, as in "openat /run/gportmap.pid.new": so that the same step of two runs is shown alike, numbers of
// processes, descriptors and inodes are left out.
func describe(n *notification) string {
	known, ok := names[uintptr(n.nr)]
	if !ok {
		return fmt.Sprintf("call %d", n.nr)
	}
	text := known.name
	for i, form := range known.args {
		switch v := n.args[i]; form {
		case 'p':
			text += " " + masked(stringAt(n.tid, v))
		case 'f':
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.tid, int32(v)))
			if err != nil {
				link = "no descriptor"
			}
			text += " " + masked(link)
		case 'a':
			text += " " + addressAt(n.tid, v, min(n.args[i+1], 128))
		case 'i':
			text += fmt.Sprintf(" %d", int32(v))
		}
	}
	return text
}

// masked leaves numbers out of paths below /proc and of the kernel's names of sockets and pipes.
func masked(path string) string {
	if strings.Contains(path, "/gportmap-bed-") { // the program, where the bed has built it
		return filepath.Base(path)
	}
	if !strings.HasPrefix(path, "/proc/") && !strings.Contains(path, ":[") {
		return path
	}
	var b strings.Builder
	digit := false
	for _, r := range path {
		if was := digit; '0' <= r && r <= '9' {
			if digit = true; !was {
				b.WriteByte('N')
			}
			continue
		}
		digit = false
		b.WriteRune(r)
	}
	return b.String()
}

// memoryAt reads n octets of a thread's memory; fewer if there are no more.
func memoryAt(tid int32, address, n uint64) []byte {
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0], Len: n}}
	got, err := unix.ProcessVMReadv(int(tid), local, []unix.RemoteIovec{{Base: uintptr(address), Len: int(n)}}, 0)
	if err != nil {
		return nil
	}
	return b[:got]
}

func stringAt(tid int32, address uint64) string {
	const most = 128
	b := memoryAt(tid, address, most)
	if b == nil { // near the end of a page
		b = memoryAt(tid, address, 4096-address%4096)
	}
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// addressAt shows the address of a socket.
func addressAt(tid int32, address, n uint64) string {
	b := memoryAt(tid, address, n)
	if len(b) < 4 {
		return "no address"
	}
	switch family := binary.NativeEndian.Uint16(b); family {
	case unix.AF_INET:
		return fmt.Sprintf("inet %d", binary.BigEndian.Uint16(b[2:]))
	case unix.AF_INET6:
		return fmt.Sprintf("inet6 %d", binary.BigEndian.Uint16(b[2:]))
	case unix.AF_UNIX:
		return strings.TrimRight(strings.Replace(string(b[2:]), "\x00", "@", 1), "\x00@")
	default:
		return fmt.Sprintf("family %d", family)
	}
}
