package sys

import (
	"golang.org/x/sys/unix"
)

// InputWaiting tells whether the socket holds a datagram, or a connection to accept, that nobody has taken yet. False also
// if that can't be told.
func (s *Socket) InputWaiting() bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	waiting := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		waiting = n == 1 && err == nil && fds[0].Revents&unix.POLLIN != 0
	})
	return waiting && err == nil
}
