package instance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
)

// holder finds out who has locked the open file f at path.
func holder(path string, f *os.File) *RunningError {
	e := &RunningError{Path: path}
	var st syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &st) != nil {
		return e
	}
	inode := inode{device(st.Dev), strconv.FormatUint(st.Ino, 10)}
	if locks, err := os.Open("/proc/locks"); err == nil {
		e.PID = taker(locks, inode)
		locks.Close()
	}
	// The kernel remembers a lock by the process that took it. For a daemon that took it and then forked, as rpcbind does,
	// that process has ended, and its pid is nobody's or another's by now.
	ends := e.PID
	if e.PID == 0 || !holds(strconv.Itoa(e.PID), inode, true) {
		if e.PID = heir(inode); e.PID != 0 {
			ends = e.PID
		}
	}
	// Any user can hold a lock that any user may open, by a process that never comes to its end.
	e.ending = ends != 0 && st.Mode&0o077 == 0 && sys.Ending(ends)
	if e.PID != 0 {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", e.PID))
		e.Command = string(bytes.TrimSuffix(comm, []byte("\n")))
	}
	return e
}

// lockTaker returns the pid that took the lock on the file at path, as the kernel's table of locks tells everybody; 0 if
// nobody did or it can't be told.
func lockTaker(path string) int {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	i, ok := inodeOf(info)
	if !ok {
		return 0
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	return taker(locks, i)
}

// inode is a file as the kernel's tables of locks name it.
type inode struct{ device, number string }

// device writes a device number as those tables do: major and minor number in hexadecimal.
func device(dev uint64) string {
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return fmt.Sprintf("%02x:%02x", uint32(major), uint32(minor))
}

// taker reads /proc/locks and returns the pid that took the lock on an inode, 0 if there is none. Some file systems, btrfs
// and overlayfs among them, show another device here than stat(2) does, so a line with the inode's number alone will do if
// it is the only one.
func taker(locks io.Reader, i inode) int {
	suspect, suspects := 0, 0
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		of, pid, ok := parseLock(lines.Text())
		if !ok || of.number != i.number || pid <= 0 {
			continue
		}
		if of.device == i.device {
			return pid
		}
		suspect = pid
		suspects++
	}
	if suspects == 1 {
		return suspect
	}
	return 0
}

// parseLock reads lines of /proc/locks (proc_locks(5)), and of /proc/PID/fdinfo/FD, where they have "lock:" before them:
//
//	1: FLOCK  ADVISORY  WRITE 4242 00:1a:1387 0 EOF
//
// A waiter's line has "->" before the kind of lock and is none of ours, nor is a lock of another kind.
func parseLock(line string) (of inode, pid int, ok bool) {
	f := strings.Fields(strings.TrimPrefix(line, "lock:"))
	if len(f) < 6 || f[1] != "FLOCK" {
		return inode{}, 0, false
	}
	colon := strings.LastIndexByte(f[5], ':')
	pid, err := strconv.Atoi(f[4])
	if colon < 0 || err != nil {
		return inode{}, 0, false
	}
	return inode{f[5][:colon], f[5][colon+1:]}, pid, true
}

// heir returns the pid of a process that has a descriptor with the lock, 0 if none can be seen: only root sees the
// descriptors of others.
func heir(i inode) int {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0
	}
	for _, p := range processes {
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && holds(filepath.Base(p), i, false) {
			return pid
		}
	}
	return 0
}

// holds tells whether a process has a descriptor with the lock on an inode; doubt is the answer if that can't be seen,
// although the process exists. The files themselves aren't looked at: one on a file server that is down would keep us
// waiting.
func holds(pid string, i inode, doubt bool) bool {
	dir := filepath.Join("/proc", pid, "fdinfo")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return doubt && os.IsPermission(err)
	}
	for _, fd := range fds {
		info, err := os.ReadFile(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			if of, _, ok := parseLock(line); ok && strings.HasPrefix(line, "lock:") && of.number == i.number {
				return true
			}
		}
	}
	return false
}
