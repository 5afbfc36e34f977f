package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ListenerPID returns the process id of who made the local stream socket at path a listening one, as seen from this process's
// PID namespace (SO_PEERCRED, unix(7)). It works without any privilege over that process, also while the process hangs. The id
// is 0 for a process outside this PID namespace.
func ListenerPID(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return 0, fmt.Errorf("connect to %s: %w", path, err)
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return int(cred.Pid), nil
}
