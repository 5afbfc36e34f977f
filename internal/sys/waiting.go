package sys

import (
	"syscall"
	"unsafe"

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

// Read reads from a stream socket, or with peek only looks at what is there. Unlike recvfrom(2) as others have it, it
// allocates nothing for an address.
func Read(fd uintptr, b []byte, peek bool) (int, error) {
	if !peek {
		return syscall.Read(int(fd), b)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_PEEK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
