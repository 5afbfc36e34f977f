package bench_test

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr    unix.Msghdr
	octets uint32
}

// A datagramSocket is a connected UDP socket that sends and receives many datagrams by one system call.
//
// System calls are made without telling the scheduler of Go: the thread is locked, and a wake-up of the generator's own
// scheduler is nothing that should be measured.
type datagramSocket struct {
	fd      int
	out, in []mmsghdr
	outIovs []unix.Iovec
	inIovs  []unix.Iovec
	calls   [][]byte
	replies [][]byte
}

const replyRoom = 512 // octets; every reply that is asked for is shorter

func dialDatagrams(port, batch int, call []byte) (*datagramSocket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &datagramSocket{
		fd: fd, out: make([]mmsghdr, batch), in: make([]mmsghdr, batch),
		outIovs: make([]unix.Iovec, batch), inIovs: make([]unix.Iovec, batch),
	}
	for i := range batch {
		c, r := append([]byte(nil), call...), make([]byte, replyRoom)
		s.calls, s.replies = append(s.calls, c), append(s.replies, r)
		s.outIovs[i], s.inIovs[i] = unix.Iovec{Base: &c[0]}, unix.Iovec{Base: &r[0]}
		s.outIovs[i].SetLen(len(c))
		s.inIovs[i].SetLen(len(r))
		s.out[i].hdr.Iov, s.in[i].hdr.Iov = &s.outIovs[i], &s.inIovs[i]
		s.out[i].hdr.SetIovlen(1)
		s.in[i].hdr.SetIovlen(1)
	}
	return s, nil
}

// sendCalls sends the first n of calls.
func (s *datagramSocket) sendCalls(n int) error {
	for sent := 0; sent < n; {
		k, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.out[sent])), uintptr(n-sent), 0, 0, 0)
		switch {
		case errno == 0:
			sent += int(k)
		case errno != unix.EINTR:
			return fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	return nil
}

// receive returns how many replies there are; with unix.MSG_WAITFORONE it waits for the first, for the timeout of the socket
// or lostAfter at most: signals of Go's scheduler, one in 10 ms, begin the former anew.
func (s *datagramSocket) receive(flags int) (int, error) {
	var until time.Time
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in[0])), uintptr(len(s.in)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
			if now := time.Now(); until.IsZero() {
				until = now.Add(lostAfter)
			} else if now.After(until) {
				return 0, nil
			}
		default:
			return 0, fmt.Errorf("recvmmsg: %w", errno)
		}
	}
}

// reply returns the octets of reply i.
func (s *datagramSocket) reply(i int) []byte { return s.replies[i][:s.in[i].octets] }

func (s *datagramSocket) setTimeout(d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func (s *datagramSocket) close() { unix.Close(s.fd) }
