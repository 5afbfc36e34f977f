package sys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often a process is looked for where the kernel has no pidfd (before Linux 5.3).
const pollInterval = 20 * time.Millisecond

// A ProcessHandle stands for one process: what is done by it never meets another that got the same number.
type ProcessHandle struct {
	Process     // as it was when opened
	fd      int // a pidfd, or -1 where there are none
}

// OpenProcess opens the process with that id. For one that has ended errors.Is(err, syscall.ESRCH) holds.
func OpenProcess(pid int) (*ProcessHandle, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("process %d: %w", pid, unix.ESRCH)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == unix.ESRCH:
		return nil, fmt.Errorf("process %d: %w", pid, err)
	case err == unix.EINVAL: // the id of a thread
		return nil, fmt.Errorf("process %d: %w", pid, unix.ESRCH)
	case err != nil: // an old kernel, or a filter that forbids the call
		fd = -1
	}
	// The handle comes first: it still stands for a live process after /proc was read, so both are the same one.
	h := &ProcessHandle{fd: fd}
	h.Process, err = LookupProcess(pid)
	if err == nil {
		err = h.Signal(0)
	}
	if err != nil && !errors.Is(err, unix.EPERM) {
		h.Close()
		return nil, err
	}
	return h, nil
}

// OpenPID is [OpenProcess] where /proc isn't there: of the process nothing but its number is known. It takes Linux 5.3.
func OpenPID(pid int) (*ProcessHandle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	return &ProcessHandle{Process: Process{PID: pid}, fd: fd}, nil
}

// Signal sends the process a signal; 0 only looks whether it could. For one that has ended errors.Is(err, syscall.ESRCH)
// holds.
func (h *ProcessHandle) Signal(signal syscall.Signal) error {
	if h.fd >= 0 {
		if err := unix.PidfdSendSignal(h.fd, signal, nil, 0); err != nil {
			return fmt.Errorf("signal process %d: %w", h.PID, err)
		}
		return nil
	}
	// Between the look and the kill the number could change hands; that is as near as these kernels let us get.
	if now, err := LookupProcess(h.PID); err != nil {
		return err
	} else if now.StartTicks != h.StartTicks {
		return fmt.Errorf("signal process %d: %w", h.PID, unix.ESRCH)
	}
	if err := unix.Kill(h.PID, signal); err != nil {
		return fmt.Errorf("signal process %d: %w", h.PID, err)
	}
	return nil
}

// Wait returns nil once the process has ended, or ctx's error if that ends first. The process need not be a child of ours.
func (h *ProcessHandle) Wait(ctx context.Context) error {
	for !h.ended() {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// ended waits up to pollInterval for the end. That it can't look is no end, and no reason not to look again.
func (h *ProcessHandle) ended() bool {
	if h.fd < 0 {
		now, err := LookupProcess(h.PID)
		if errors.Is(err, unix.ESRCH) || err == nil && now.StartTicks != h.StartTicks {
			return true
		}
		time.Sleep(pollInterval)
		return false
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(pollInterval.Milliseconds()))
	if err != nil && err != unix.EINTR {
		time.Sleep(pollInterval)
	}
	return n > 0
}

// Close gives the handle back; the process isn't touched.
func (h *ProcessHandle) Close() {
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}
