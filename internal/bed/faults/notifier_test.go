package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// envFilter makes this test binary put the filter on itself and become the program whose path it has.
const envFilter = "GPORTMAP_FAULTS_PROGRAM"

// notification is the kernel's struct seccomp_notif, <linux/seccomp.h>.
type notification struct {
	id    uint64
	tid   int32 // named pid there
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	error int32 // negative errno
	flags uint32
}

// goOn is SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel makes the call.
const goOn = 1

// becomeFiltered replaces this process by the program, with a filter that stops every call but those left out, until whoever
// has the listener says how each goes on. The listener is closed by the exec, which is the first call that waits.
func becomeFiltered(path string) error {
	// What is handled here has its default action there, and isn't ignored, as it is in a shell's background.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	runtime.LockOSThread() // the filter is the thread's, and the exec leaves only this thread
	load := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}
	program := []unix.SockFilter{load}
	for _, l := range leftOut {
		for _, nr := range l.calls {
			program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(nr)})
		}
	}
	for i := range program[1:] { // equal: to the last instruction
		program[i+1].Jt = uint8(len(program) - i - 1)
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	args := append([]string{path}, os.Args[1:]...)
	environment := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if v := os.Getenv("NOTIFY_SOCKET"); v != "" {
		environment = append(environment, "NOTIFY_SOCKET="+v)
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// With WAIT_KILLABLE_RECV a signal doesn't wake a thread that waits for us, so the step stays where it is.
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return syscall.Exec(path, args, environment)
}

// A point is a step: the nth time that a call is made as it is described.
type point struct {
	call string
	nth  int
}

func (p point) String() string { return fmt.Sprintf("%s #%d", p.call, p.nth) }

// A fault is what happens at a point: a signal for the process, or an error instead of the call.
type fault struct {
	signal syscall.Signal
	errno  syscall.Errno
}

func (f fault) String() string {
	if f.signal != 0 {
		return unix.SignalName(f.signal)
	}
	return unix.ErrnoName(f.errno)
}

// netpoller is what is known of Go's in a process: which of its first calls were seen, and with epoll_ctl its descriptors.
type netpoller struct {
	seen         map[int32]bool
	epoll, event int32
}

// A supervisor answers for each system call of a program, and of what that starts.
type supervisor struct {
	listener int
	program  string

	mu      sync.Mutex
	armed   bool
	seen    map[string]int // how often each call was made while armed
	walk    []point        // in order
	at      point
	fault   fault
	hit     bool
	last    time.Time          // of the last call
	netpoll map[int]*netpoller // by process
}

// held is how long a step is held up for a signal to be dealt with before it goes on.
const held = 15 * time.Millisecond

// start runs cmd under a filter, supervised by what is returned.
func start(cmd *exec.Cmd, armed bool, at point, f fault) (*supervisor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Environ(), envFilter+"="+cmd.Path)
	s := &supervisor{program: cmd.Path, armed: armed, seen: make(map[string]int), at: at, fault: f, last: time.Now(),
		netpoll: make(map[int]*netpoller)}
	cmd.Path = self
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if s.listener, err = listenerOf(cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	go s.run()
	return s, nil
}

// listenerOf gets the listener of a process that has just put a filter on itself.
func listenerOf(pid int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(process)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(500 * time.Microsecond) {
		fds, err := os.ReadDir(dir)
		if err != nil || len(fds) == 0 {
			return -1, errors.New("the program ended before it had a filter") // it says why
		}
		for _, fd := range fds {
			link, _ := os.Readlink(dir + "/" + fd.Name())
			var n int
			if _, err := fmt.Sscan(fd.Name(), &n); err == nil && strings.Contains(link, "seccomp notify") {
				return unix.PidfdGetfd(process, n, 0)
			}
		}
	}
	return -1, errors.New("the program puts no filter on itself")
}

// run answers until no process has the filter any more.
func (s *supervisor) run() {
	defer unix.Close(s.listener)
	for {
		p := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return
		}
		if p[0].Revents&unix.POLLIN == 0 {
			if p[0].Revents != 0 {
				return
			}
			continue
		}
		n := &notification{}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n))); errno != 0 {
			continue // who made the call is gone
		}
		s.decide(n)
	}
}

// answer lets a call go on, or fail.
func (s *supervisor) answer(n *notification, errno syscall.Errno) {
	r := &response{id: n.id, error: -int32(errno)}
	if errno == 0 {
		r.flags = goOn
	}
	// An error says that who made the call is gone.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(r)))
}

// decide answers a notification: with the fault, if this is its point.
func (s *supervisor) decide(n *notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", n.tid))
	if err != nil || exe != s.program || !s.faultable(n) || !s.armed {
		s.answer(n, 0)
		return
	}
	call := describe(n)
	s.seen[call]++
	p := point{call, s.seen[call]}
	if everyThread[uintptr(n.nr)] && p.nth > 1 {
		s.answer(n, 0)
		return
	}
	s.walk = append(s.walk, p)
	if s.hit || p != s.at {
		s.answer(n, 0)
		return
	}
	s.hit = true
	if s.fault.signal == 0 {
		s.answer(n, s.fault.errno)
		return
	}
	_ = unix.Kill(int(n.tid), s.fault.signal)
	go func() {
		time.Sleep(held)
		s.answer(n, 0)
	}()
}

// faultable tells whether a call may fail without Go's runtime ending the program; see alsoLeftOut.
func (s *supervisor) faultable(n *notification) bool {
	switch n.nr {
	case unix.SYS_FCNTL:
		return n.args[0] > 2 || n.args[1] != unix.F_GETFD
	case unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_READ, unix.SYS_WRITE:
	default:
		return true
	}
	pid := processOf(int(n.tid))
	p := s.netpoll[pid]
	if p == nil {
		p = &netpoller{seen: make(map[int32]bool), epoll: -1, event: -1}
		s.netpoll[pid] = p
	}
	switch n.nr {
	case unix.SYS_READ, unix.SYS_WRITE:
		const errnoSize = 8
		if link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.tid, n.args[0])); strings.HasPrefix(link, "pipe:") && n.args[2] == errnoSize {
			return false
		}
		return int32(n.args[0]) != p.event
	case unix.SYS_EPOLL_PWAIT:
		return int32(n.args[0]) != p.epoll
	}
	first := !p.seen[n.nr]
	p.seen[n.nr] = true
	if first && n.nr == unix.SYS_EPOLL_CTL {
		p.epoll, p.event = int32(n.args[0]), int32(n.args[2])
	}
	return !first
}

// processOf returns the process that a thread belongs to.
func processOf(tid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	_, rest, _ := strings.Cut(string(b), "\nTgid:")
	var pid int
	_, _ = fmt.Sscan(rest, &pid)
	return pid
}

// arm lets the walk begin.
func (s *supervisor) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = true
}

// disarm ends the walk, and tells how it went.
func (s *supervisor) disarm() (walk []point, hit bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	return s.walk, s.hit
}

// state returns when the last call was made, and whether the fault has happened.
func (s *supervisor) state() (last time.Time, hit bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.hit
}
