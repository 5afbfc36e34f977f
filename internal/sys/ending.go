package sys

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Ending tells whether a process is on its way out: it was killed, or its threads end one after another. Until the last of
// them is gone the process keeps its locks and sockets, although /proc shows no descriptor any more. False if it is gone, or
// can't be looked at.
func Ending(pid int) bool {
	dir, err := openProcess(pid)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	stat, err := readAt(dir, "stat", maxProcFile)
	if err != nil {
		return false
	}
	// proc_pid_stat(5): the state is field 3, behind the name, and the flags of <linux/sched.h> are field 9.
	const flags, exiting = 9 - 3, 0x4
	if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > flags {
		if n, err := strconv.ParseUint(f[flags], 10, 64); err == nil && n&exiting != 0 {
			return true
		}
	}
	status, err := readAt(dir, "status", maxProcFile)
	return err == nil && killed(status)
}

// killed tells from /proc/PID/status whether SIGKILL waits for the process, which then runs no instruction of its program.
func killed(status []byte) bool {
	for line := range bytes.Lines(status) {
		pending, ok := bytes.CutPrefix(line, []byte("SigPnd:"))
		if !ok {
			pending, ok = bytes.CutPrefix(line, []byte("ShdPnd:"))
		}
		if n, err := strconv.ParseUint(string(bytes.TrimSpace(pending)), 16, 64); ok && err == nil && n>>(unix.SIGKILL-1)&1 != 0 {
			return true
		}
	}
	return false
}
