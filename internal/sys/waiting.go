package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// InputWaiting tells whether the socket holds a datagram, or a connection to accept, that nobody has taken yet. False also
// if that can't be told.
func (s *Socket) InputWaiting() bool {
	var raw syscall.RawConn
	if s.Packet != nil {
		raw = s.Packet.raw
	} else if c, ok := s.Listener.(syscall.Conn); ok {
		raw, _ = c.SyscallConn()
	}
	if raw == nil {
		return false
	}
	waiting := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		waiting = n == 1 && err == nil && fds[0].Revents&unix.POLLIN != 0
	})
	return waiting && err == nil
}
