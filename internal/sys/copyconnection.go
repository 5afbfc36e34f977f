package sys

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// CopyConnections copies the descriptors of the accepted connections that the process has of local sockets with one of the
// names, "@name" for an abstract one: at most that many, root's first, because one of these may be the kernel's, which is never
// made anew. Nothing of a connection is changed, and nobody may read from one before the process has ended; then
// [Connection.Serve] is the first thing to do. The error tells what is missing, and doesn't mean that there are none.
func (h *ProcessHandle) CopyConnections(names []string, most int) ([]*Connection, error) {
	fail := func(err error) error { return fmt.Errorf("copy the connections of process %d: %w", h.PID, err) }
	if h.fd < 0 {
		return nil, fail(unix.ENOSYS)
	}
	sockets, err := socketNumbers(h.PID)
	if err != nil {
		return nil, fail(err)
	}
	// The oldest have the lowest numbers, more or less.
	numbers := make([]int, 0, len(sockets))
	for number := range sockets {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	var roots, others []*Connection
	left := 0
	var failed error
	seen := make(map[uint32]bool)
	for _, number := range numbers {
		if seen[sockets[number]] {
			continue // one copy will do of a socket that it has twice
		}
		seen[sockets[number]] = true
		fd, err := unix.PidfdGetfd(h.fd, number, 0) // close-on-exec
		if err != nil {
			if err != unix.EBADF && failed == nil { // it may have been closed meanwhile
				failed = os.NewSyscallError("pidfd_getfd", err)
			}
			continue
		}
		conn := &Connection{fd}
		list := &others
		switch root, ok := localConnection(fd, names); {
		case !ok:
			conn.Close()
			continue
		case root:
			list = &roots
		}
		if len(*list) == most {
			conn.Close()
			left++
			continue
		}
		*list = append(*list, conn)
	}
	all := slices.Concat(roots, others)
	for len(all) > most {
		all[len(all)-1].Close()
		all = all[:len(all)-1]
		left++
	}
	if left > 0 {
		failed = errors.Join(failed, fmt.Errorf("there are %d more than %d", left, most))
	}
	if failed != nil {
		failed = fail(failed)
	}
	return all, failed
}

// localConnection tells whether the descriptor is an accepted connection of a local socket with one of the names, to which
// there still is another end, and whether that is root's.
func localConnection(fd int, names []string) (root, ok bool) {
	k, err := kindOf(fd)
	if err != nil || k.domain != unix.AF_UNIX || !k.fits() || k.listening {
		return false, false
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return false, false
	}
	if sa, is := own.(*unix.SockaddrUnix); !is || !slices.Contains(names, sa.Name) {
		return false, false
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return false, false
	}
	state := []unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(state, 0); err != nil || state[0].Revents&unix.POLLHUP != 0 {
		return false, false
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && cred.Uid == 0, err == nil
}

// Serve makes a copy of another process's connection one like ours, once that process has ended: until then it would have
// been changed for that one as well.
func (c *Connection) Serve() error {
	return os.NewSyscallError("set O_NONBLOCK", unix.SetNonblock(c.fd, true))
}
