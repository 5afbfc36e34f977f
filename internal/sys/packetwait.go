package sys

import (
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// busyWait is how long a read waits for the next datagram in recvmmsg(2) itself before it waits in poll(2), where it can
	// be woken by others. Calls that come one by one then cost no system call more than they need. It is less than the 10 ms
	// after which Go's scheduler takes from a thread in a system call what it needs to go on.
	busyWait = 8 * time.Millisecond
	// yieldEvery is how often a busy reader lets the scheduler run. One that didn't for 10 ms would count as a goroutine that
	// computes all the time: it would be interrupted, and what it needs to go on be taken from it in every system call.
	yieldEvery = 8 * time.Millisecond
	// deadlineStep is how often a Read that has a deadline looks whether the socket was closed.
	deadlineStep = 10 * time.Millisecond
)

// An alarm is an eventfd that is readable while it rings.
type alarm struct {
	file *os.File
	raw  syscall.RawConn

	mu    sync.Mutex
	rings bool
}

func newAlarm() (*alarm, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	a := &alarm{file: os.NewFile(uintptr(fd), "eventfd")}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		a.file.Close()
		return nil, err
	}
	return a, nil
}

// alarmAttempts is how often it is tried to make an alarm ring or stop: one that is not heard leaves somebody waiting for ever.
const alarmAttempts = 3

// set makes the alarm ring or stops it.
func (a *alarm) set(rings bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rings == rings {
		return nil
	}
	var err error
	for range alarmAttempts {
		counter := [8]byte{1} // any number but 0 in either octet order
		if rings {
			_, err = a.file.Write(counter[:])
		} else {
			_, err = a.file.Read(counter[:]) // doesn't wait: it rings
		}
		if err == nil {
			a.rings = rings
			return nil
		}
	}
	return err
}

func (a *alarm) close() error { return a.file.Close() }

// await returns when c has something to read, or with the error of a Read that has to end.
func (b *Batch) await(c *PacketConn) error {
	for {
		timeout := -1 // ms
		switch deadline := c.deadline.Load(); {
		case c.closed.Load():
			return net.ErrClosed
		case deadline != 0:
			left := time.Until(time.Unix(0, deadline))
			if left <= 0 {
				return os.ErrDeadlineExceeded
			}
			timeout = int(min(left, deadlineStep).Milliseconds()) + 1
		}
		b.polling, b.timeout = c, timeout
		if err := c.raw.Control(b.pollSocket); err != nil {
			return c.ended(err)
		}
		if b.polled[0].Revents != 0 {
			return nil
		}
	}
}

// pollBoth is the body of await inside of the Control of both files, which keeps their descriptors from being closed.
func (b *Batch) pollBoth(fd uintptr) {
	b.polled[0] = unix.PollFd{Fd: b.polled[0].Fd, Events: unix.POLLIN}
	b.polled[1] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	fds := b.polled[:]
	if b.timeout >= 0 {
		fds = fds[:1] // the alarm rings all the time
	}
	if _, err := unix.Poll(fds, b.timeout); err != nil {
		b.polled[0].Revents = 0 // a signal came: look again
	}
}

// yield lets the scheduler run now and then.
func (b *Batch) yield() {
	if now := time.Now(); now.Sub(b.yielded) > yieldEvery {
		b.yielded = now
		runtime.Gosched()
	}
}
