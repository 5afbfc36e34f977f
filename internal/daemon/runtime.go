package daemon

import (
	"fmt"
	"syscall"
)

// CheckRuntime returns an error where the Go runtime would end the program with a stack trace, because a sandbox refuses a
// system call that it needs to wait for files. It is called before the first timer and the first file.
func CheckRuntime() error {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return fmt.Errorf("the system call eventfd2 is refused (%w); allow it in the seccomp profile or SystemCallFilter= (@system-service has it)", errno)
	}
	return syscall.Close(int(fd))
}
