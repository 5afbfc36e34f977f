package bench_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// silentFor is how long a server of streams may say nothing before the measurement is given up.
const silentFor = 5 * time.Second

var errEnd = errors.New("the connection was closed")

// A pipe is a connection with calls in flight, whose replies have to come in the order of the calls.
type pipe struct {
	fd       int
	call     []byte // as a record
	want     []byte // the reply as a record
	out, in  []byte
	held     int // octets of in
	next     uint32
	expected uint32 // xid of the next reply
	sent     []time.Time
}

func newPipe(fd, size int, e exchange) *pipe {
	slots := 1
	for slots < 2*size {
		slots *= 2
	}
	return &pipe{fd: fd, call: record(e.call), want: record(e.reply), in: make([]byte, 256<<10), sent: make([]time.Time, slots), next: 1, expected: 1}
}

// send sends n calls by one write.
func (p *pipe) send(n int, now time.Time) error {
	p.out = p.out[:0]
	for range n {
		setXID(p.call[oncrpc.RecordMarkSize:], p.next)
		p.out = append(p.out, p.call...)
		p.sent[p.next%uint32(len(p.sent))] = now
		p.next++
	}
	return writeAll(p.fd, p.out)
}

// receive takes the replies that one read brings into the tally and returns how many.
func (p *pipe) receive(t *tally) (int, error) {
	n, err := rawRead(p.fd, p.in[p.held:])
	if err != nil {
		return 0, err
	}
	p.held += n
	now := time.Now()
	replies, at := 0, 0
	for ; p.held-at >= len(p.want); at += len(p.want) {
		b := p.in[at : at+len(p.want)]
		xid := xidOf(b[oncrpc.RecordMarkSize:])
		if string(b[:4]) != string(p.want[:4]) || string(b[8:]) != string(p.want[8:]) || xid != p.expected {
			t.wrong++
			return replies, fmt.Errorf("a wrong reply, %x; its xid should be %d", b, p.expected)
		}
		p.expected++
		t.answered++
		t.latency.add(now.Sub(p.sent[xid%uint32(len(p.sent))]), 1)
		replies++
	}
	p.held = copy(p.in, p.in[at:p.held])
	return replies, nil
}

// pipelined keeps size calls in flight on one connection. It takes a quarter of the replies at a time and sends as many calls
// anew, so that there are always some that the server has yet to answer: with all at once the two would take turns, and the
// server would be idle while its replies are compared.
func pipelined(to unix.Sockaddr, size int, e exchange, d time.Duration) (t tally, err error) {
	fd, err := dialStream(to)
	if err != nil {
		return t, err
	}
	defer unix.Close(fd)
	p := newPipe(fd, size, e)
	p.in = p.in[:max(1, size/4)*len(p.want)]
	begin := time.Now()
	refill := size
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		if refill > 0 {
			if err = p.send(refill, now); err != nil {
				return t, err
			}
		}
		if refill, err = p.receive(&t); err != nil {
			return t, err
		}
	}
	for p.expected != p.next {
		if _, err = p.receive(&t); err != nil {
			return t, err
		}
	}
	t.took = time.Since(begin)
	return t, nil
}

// manyConnections keeps one call in flight on each of n connections.
func manyConnections(to unix.Sockaddr, n int, e exchange, d time.Duration) (t tally, err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return t, err
	}
	defer unix.Close(epoll)
	pipes := make([]*pipe, n)
	for i := range pipes {
		fd, err := dialStream(to)
		if err != nil {
			return t, err
		}
		defer unix.Close(fd)
		pipes[i] = newPipe(fd, 1, e)
		pipes[i].in = pipes[i].in[:1024]
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return t, err
		}
	}
	begin := time.Now()
	for _, p := range pipes {
		if err = p.send(1, begin); err != nil {
			return t, err
		}
	}
	events := make([]unix.EpollEvent, 128)
	for open := n; open > 0; {
		k, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_WAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 2000, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || k == 0 {
			return t, fmt.Errorf("%d connections are without a reply for two seconds: %w", open, errno)
		}
		for _, e := range events[:k] {
			p := pipes[e.Fd]
			got, err := p.receive(&t)
			if err != nil {
				return t, err
			}
			if got == 0 {
				continue
			}
			if now := time.Now(); now.Sub(begin) >= d {
				open--
			} else if err := p.send(1, now); err != nil {
				return t, err
			}
		}
	}
	t.took = time.Since(begin)
	return t, nil
}

// connectPerCall makes a connection for each call. Several destination addresses keep the ports from running out.
func connectPerCall(port int, e exchange, d time.Duration) (t tally, err error) {
	begin := time.Now()
	p := newPipe(-1, 1, e)
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		to := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, byte(1 + t.answered%200)}}
		if p.fd, err = dialStream(to); err != nil {
			return t, err
		}
		if err = p.send(1, now); err == nil {
			_, err = p.receive(&t)
		}
		unix.Close(p.fd)
		if err != nil {
			return t, err
		}
	}
	t.took = time.Since(begin)
	return t, nil
}

// dumps asks for the list of version 2 again and again. Each reply has to have as many entries as are registered, at least,
// and to be the same as the first but for its xid.
func dumps(to unix.Sockaddr, entries int, d time.Duration) (t tally, err error) {
	fd, err := dialStream(to)
	if err != nil {
		return t, err
	}
	defer unix.Close(fd)
	call := record(dump().call)
	var first, b []byte
	begin := time.Now()
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		if err = writeAll(fd, call); err != nil {
			return t, err
		}
		if b, err = readRecord(fd, b[:0]); err != nil {
			return t, err
		}
		if first == nil {
			first = append(first, b...)
		}
		const entry = 20 // octets
		if len(b) < entries*entry || string(b) != string(first) {
			t.wrong++
			continue
		}
		t.answered++
		t.latency.add(time.Since(now), 1)
	}
	t.took = time.Since(begin)
	return t, nil
}

// readRecord reads a record, of any number of fragments, and appends it to b.
func readRecord(fd int, b []byte) ([]byte, error) {
	var mark [oncrpc.RecordMarkSize]byte
	for last := false; !last; {
		if err := readFull(fd, mark[:]); err != nil {
			return b, err
		}
		m := binary.BigEndian.Uint32(mark[:])
		last = m>>31 != 0
		start, n := len(b), int(m&^(1<<31))
		if cap(b)-start < n {
			b = append(make([]byte, 0, 2*(start+n)), b...)
		}
		b = b[:start+n]
		if err := readFull(fd, b[start:]); err != nil {
			return b, err
		}
	}
	return b, nil
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := rawRead(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// rawRead waits for input, for silentFor at most; see datagramSocket.receive.
func rawRead(fd int, b []byte) (int, error) {
	var until time.Time
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == unix.EINTR && until.IsZero():
			until = time.Now().Add(silentFor)
		case errno == unix.EINTR && time.Now().Before(until):
		case errno != 0:
			return 0, fmt.Errorf("read: %w", errno)
		case n == 0:
			return 0, errEnd
		default:
			return int(n), nil
		}
	}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			b = b[n:]
		case unix.EINTR:
		default:
			return fmt.Errorf("write: %w", errno)
		}
	}
	return nil
}

func dialStream(to unix.Sockaddr) (int, error) {
	family := unix.AF_INET
	if _, ok := to.(*unix.SockaddrUnix); ok {
		family = unix.AF_UNIX
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for {
		err = unix.Connect(fd, to)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil && err != unix.EISCONN {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	if family == unix.AF_INET {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	// A server that says nothing ends the measurement, not this program.
	tv := unix.NsecToTimeval(silentFor.Nanoseconds())
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}
