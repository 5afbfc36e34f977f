package sys

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poller waits for many descriptors at once, by epoll(7), level-triggered. It belongs to one goroutine; others may Wake it.
// A descriptor that is closed is watched no longer.
type Poller struct {
	fd      int
	alarm   *alarm
	events  []unix.EpollEvent
	yielded time.Time
}

// Event is what a Poller tells of a descriptor.
type Event struct {
	Token              uint64 // as it was given to Watch
	Readable, Writable bool   // so that the call wouldn't wait; after an error or the end it is both
}

const wakeToken = 1<<64 - 1

// pollerYields is how often a Poller that always has something lets other goroutines run. On a host with one processor the
// readers of datagrams have no turn before that.
const pollerYields = time.Millisecond

// NewPoller makes a Poller that tells of n descriptors at a time.
func NewPoller(n int) (*Poller, error) {
	a, err := newAlarm()
	if err != nil {
		return nil, err
	}
	p := &Poller{fd: -1, alarm: a, events: make([]unix.EpollEvent, n)}
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_create1", err), a.close())
	}
	if err := control(a.file, func(fd int) error { return p.Watch(fd, wakeToken, true, false) }); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close ends the Poller, which nobody may wait for.
func (p *Poller) Close() error {
	return errors.Join(os.NewSyscallError("close", unix.Close(p.fd)), p.alarm.close())
}

// Watch begins to watch a descriptor. The token may be any but the largest number.
func (p *Poller) Watch(fd int, token uint64, read, write bool) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, token, read, write)
}

// Change changes what a descriptor is watched for.
func (p *Poller) Change(fd int, token uint64, read, write bool) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, token, read, write)
}

// WatchInput changes what a descriptor is watched for to its input. With onlyNew it is reported once, and again when more
// has come: some is there that is not to be read yet (EPOLLET).
func (p *Poller) WatchInput(fd int, token uint64, onlyNew bool) error {
	e := event(token, true, false)
	if onlyNew {
		e.Events |= unix.EPOLLET
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &e))
}

// Ignore ends the watching of a descriptor.
func (p *Poller) Ignore(fd int) error { return p.control(unix.EPOLL_CTL_DEL, fd, 0, false, false) }

func (p *Poller) control(op, fd int, token uint64, read, write bool) error {
	e := event(token, read, write)
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, fd, &e))
}

func event(token uint64, read, write bool) unix.EpollEvent {
	e := unix.EpollEvent{Fd: int32(token), Pad: int32(token >> 32)} // the two are the kernel's 64 bits of user data
	if read {
		e.Events |= unix.EPOLLIN
	}
	if write {
		e.Events |= unix.EPOLLOUT
	}
	return e
}

// Wait waits for events, for the timeout at most (negative: for ever), or until somebody calls Wake. It returns the number of
// events, and whether there was a Wake since the last Wait or Look that reported one. Each Wake is reported once, so the
// caller must then look for what its callers ask.
func (p *Poller) Wait(timeout time.Duration) (n int, woken bool, err error) {
	ms := -1
	if timeout >= 0 {
		ms = int(min((timeout+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	n, err = unix.EpollWait(p.fd, p.events, ms)
	if err != nil && err != unix.EINTR {
		return 0, false, os.NewSyscallError("epoll_wait", err)
	}
	return p.found(n)
}

// lookYields is how often a Poller looks before it lets others run.
const lookYields = 4

// Look is Wait for who expects something within microseconds: it doesn't sleep, but looks again and again, for the limit at
// most. Whoever else is ready to run on this processor does so in between.
func (p *Poller) Look(limit time.Duration) (n int, woken bool, err error) {
	begin := time.Now()
	for i := 1; ; i++ {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p.events))), uintptr(len(p.events)), 0, 0, 0)
		switch {
		case errno != 0 && errno != unix.EINTR:
			return 0, false, os.NewSyscallError("epoll_pwait", errno)
		case errno == 0 && n > 0:
			return p.found(int(n))
		case i%lookYields != 0:
			continue
		case time.Since(begin) > limit:
			return 0, false, nil
		}
		runtime.Gosched()
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// found sorts n events: it returns how many are of descriptors, and whether one was that of Wake, which is over with that.
func (p *Poller) found(n int) (found int, woken bool, err error) {
	if now := time.Now(); now.Sub(p.yielded) > pollerYields {
		p.yielded = now
		runtime.Gosched() // see yieldEvery
	}
	for _, e := range p.events[:max(n, 0)] {
		if e.Fd == -1 && e.Pad == -1 {
			if err := p.alarm.set(false); err != nil {
				return 0, false, err
			}
			woken = true
			continue
		}
		p.events[found] = e
		found++
	}
	return found, woken, nil
}

// Event returns the event number i of the last Wait.
func (p *Poller) Event(i int) Event {
	const either = unix.EPOLLERR | unix.EPOLLHUP
	e := &p.events[i]
	return Event{
		Token:    uint64(uint32(e.Pad))<<32 | uint64(uint32(e.Fd)),
		Readable: e.Events&(unix.EPOLLIN|either) != 0,
		Writable: e.Events&(unix.EPOLLOUT|either) != 0,
	}
}

// Wake makes the Wait or Look that waits, or the next one, return and say so.
func (p *Poller) Wake() {
	_ = p.alarm.set(true) // closed: nobody waits
}

// AcceptTCP takes a connection from a listening socket, nonblocking and close-on-exec. The addresses have no zone and are
// never IPv4-mapped.
func AcceptTCP(listener int) (fd int, remote, local netip.AddrPort, err error) {
	fd, sa, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, remote, local, os.NewSyscallError("accept4", err)
	}
	if own, err := unix.Getsockname(fd); err == nil {
		local = addrPort(own)
	}
	return fd, addrPort(sa), local, nil
}

// AcceptLocal takes a connection from a listening local socket, nonblocking and close-on-exec.
func AcceptLocal(listener int) (fd int, err error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("accept4", errno)
	}
	boundBuffers(int(n)) // a local one inherits nothing
	return int(n), nil
}

// Served returns a duplicate of a listening socket's descriptor, nonblocking. Connections of a TCP socket send each reply at
// once (TCP_NODELAY), and their unread replies take a bounded place in the kernel: they inherit both.
func Served(s *Socket) (int, error) {
	c, ok := s.Listener.(syscall.Conn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	if controlErr := raw.Control(func(fd uintptr) {
		if s.Netid != "local" {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			boundBuffers(int(fd))
		}
		dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	}); controlErr != nil {
		return -1, controlErr
	}
	if err == nil {
		err = unix.SetNonblock(dup, true)
	}
	return dup, os.NewSyscallError("dup", err)
}

// SendOctets and ReceiveOctets are what the kernel holds at most of a connection's unread replies and calls, with its
// bookkeeping, for which it doubles what it is asked for. A segment over loopback has 64 KiB: with room for less than two of them
// each waits for a delayed acknowledgement, 40 ms.
const (
	SendOctets    = 256 << 10
	ReceiveOctets = 32 << 10
)

// boundBuffers bounds the buffers of a connection, or of those of a TCP listener, which inherit that.
func boundBuffers(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, SendOctets/2)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, ReceiveOctets/2)
}

// Unacknowledged returns how many octets that were sent by a connection its other end hasn't taken yet, of a local one with the
// kernel's bookkeeping.
func Unacknowledged(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return n, os.NewSyscallError("ioctl SIOCOUTQ", err)
}

// ReadNow is read(2) of a nonblocking descriptor. It never waits, so Go's scheduler isn't told of it.
func ReadNow(fd int, b []byte) (int, error) { return receiveNow(fd, b, 0) }

// PeekNow is ReadNow of what stays there.
func PeekNow(fd int, b []byte) (int, error) { return receiveNow(fd, b, unix.MSG_PEEK) }

// Ended tells whether nothing more will come from the other end of a connection than what is there.
func Ended(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds[:], 0)
	return n > 0 && err == nil
}

func receiveNow(fd int, b []byte, flags uintptr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|flags, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// A Gather is what SendNow works with. The zero value is ready.
type Gather struct {
	header unix.Msghdr
	iovecs []unix.Iovec
}

// SendNow sends the parts one behind the other by a nonblocking socket, by one system call, and returns how many octets it
// took. A part may not be empty, and there may be no more of them than IOV_MAX, 1024; see ReadNow.
func (g *Gather) SendNow(fd int, parts [][]byte) (int, error) {
	g.iovecs = g.iovecs[:0]
	for _, p := range parts {
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		g.iovecs = append(g.iovecs, v)
	}
	g.header.Iov = unsafe.SliceData(g.iovecs)
	g.header.SetIovlen(len(parts))
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&g.header)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	clear(g.iovecs)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
