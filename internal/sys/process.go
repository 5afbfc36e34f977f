package sys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds on what is read of a process, octets. What it says of itself may be of any size.
const (
	maxCommandLine = 4 << 10
	maxProcFile    = 64 << 10
)

// ticksPerSecond is the unit of /proc's times, sysconf(_SC_CLK_TCK), the same on every architecture that Go has on Linux.
const ticksPerSecond = 100

// unknownUID is nobody's: the kernel means "no user" by it.
const unknownUID = ^uint32(0)

// A Process is what /proc tells of a process.
type Process struct {
	PID int
	// Command is its name as the kernel has it, at most 15 octets of any value.
	Command string
	// Program is the path of its program file; empty for a kernel thread and where only root may look. A file that was
	// replaced since has " (deleted)" behind it.
	Program string
	// Args is its command line, of which the first 4 KiB are read; octets of any value. Empty for a kernel thread.
	Args []string
	// UID is its effective user id, in our user namespace.
	UID uint32
	// RealUID is its real user id: of a program that gets its rights by its file's mode, that of who started it.
	RealUID uint32
	// StartTicks is when it began, in hundredths of a second since boot: with the PID it is the process's identity.
	StartTicks uint64
	// Started is the same by today's clock.
	Started time.Time
	// Cgroups is the text of /proc/PID/cgroup, lines of "number:controllers:/path"; empty without cgroups.
	Cgroups string
}

// LookupProcess reads what /proc tells of a process. For one that has ended, a zombie included, errors.Is(err,
// syscall.ESRCH) holds.
func LookupProcess(pid int) (Process, error) {
	dir, err := openProcess(pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(dir)
	p, err := readProcess(dir, pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return p, nil
}

// openProcess opens /proc/PID. All that is read through it is that very process's, however often its number is given away.
func openProcess(pid int) (dir int, err error) {
	dir, err = unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return dir, asEnded(err)
}

// asEnded says ESRCH for a process that isn't there, where open(2) says ENOENT.
func asEnded(err error) error {
	if err == unix.ENOENT {
		return unix.ESRCH
	}
	return err
}

func readProcess(dir, pid int) (Process, error) {
	p := Process{PID: pid}
	stat, err := readAt(dir, "stat", maxProcFile)
	if err != nil {
		return Process{}, err
	}
	state, ok := p.parseStat(stat)
	if !ok {
		return Process{}, errors.New("its stat file can't be read: is /proc mounted?")
	}
	if state == 'Z' || state == 'X' {
		return Process{}, unix.ESRCH
	}
	// One that ends meanwhile has no more to tell; what was read so far holds.
	p.RealUID, p.UID = unknownUID, unknownUID
	if status, err := readAt(dir, "status", maxProcFile); err == nil {
		if r, e, ok := processUIDs(status); ok {
			p.RealUID, p.UID = r, e
		}
	}
	if args, err := readAt(dir, "cmdline", maxCommandLine); err == nil && len(args) > 0 {
		p.Args = strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
	}
	if cgroups, err := readAt(dir, "cgroup", maxProcFile); err == nil {
		p.Cgroups = string(cgroups)
	}
	var link [unix.PathMax]byte
	if n, err := unix.Readlinkat(dir, "exe", link[:]); err == nil {
		p.Program = string(link[:n])
	}
	return p, nil
}

// parseStat reads the command name and the start time from /proc/PID/stat, and returns the state's letter (proc_pid_stat(5)):
//
//	4242 (any (octets)) S 1 …
//
// The name ends at the last parenthesis; the state is the field behind it, number 3, and the start time number 22.
func (p *Process) parseStat(b []byte) (state byte, ok bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return 0, false
	}
	const startTime = 22 - 3
	f := strings.Fields(string(b[end+1:]))
	if len(f) <= startTime {
		return 0, false
	}
	ticks, err := strconv.ParseUint(f[startTime], 10, 64)
	if err != nil {
		return 0, false
	}
	p.Command, p.StartTicks, p.Started = string(b[open+1:end]), ticks, sinceBoot(ticks)
	return f[0][0], true
}

// sinceBoot turns ticks since boot into a time of today's clock, which may have been set since the ticks were counted.
func sinceBoot(ticks uint64) time.Time {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}
	}
	age := time.Duration(boot.Nano()) - time.Duration(ticks)*(time.Second/ticksPerSecond)
	return time.Now().Add(-age).Round(0)
}

// processUIDs reads the first two numbers of the line "Uid:" of /proc/PID/status.
func processUIDs(status []byte) (real, effective uint32, ok bool) {
	for line := range bytes.Lines(status) {
		if ids, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			if f := strings.Fields(string(ids)); len(f) > 1 {
				r, realErr := strconv.ParseUint(f[0], 10, 32)
				e, err := strconv.ParseUint(f[1], 10, 32)
				return uint32(r), uint32(e), realErr == nil && err == nil
			}
		}
	}
	return 0, 0, false
}

// readAt reads the file at name below dir, at most so many octets of it.
func readAt(dir int, name string, most int64) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, asEnded(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if errors.Is(err, unix.ESRCH) {
		err = unix.ESRCH
	}
	return b, err
}

// InInitialPIDNamespace tells whether this process sees every process of the host; false also if that can't be told.
func InInitialPIDNamespace() bool {
	const initial = 0xEFFFFFFC // PROC_PID_INIT_INO of <linux/proc_ns.h>
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/pid", &st) == nil && st.Ino == initial
}

// SameNetwork tells whether a process is in our network namespace. It needs the right to look into the process.
func SameNetwork(pid int) (bool, error) {
	var ours, its unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ours); err != nil {
		return false, fmt.Errorf("our network namespace: %w", err)
	}
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/net", &its); err != nil {
		return false, fmt.Errorf("the network namespace of process %d: %w", pid, asEnded(err))
	}
	return inodeOf(&ours) == inodeOf(&its), nil
}

// UnprivilegedPorts returns the first port that needs no privilege, and the kernel's default beside an error.
func UnprivilegedPorts() (uint16, error) {
	const usual = 1024
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if errors.Is(err, unix.ENOENT) {
		return usual, nil // before Linux 4.11
	}
	if err != nil {
		return usual, err
	}
	first, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 16)
	if err != nil {
		return usual, err
	}
	return uint16(first), nil
}
