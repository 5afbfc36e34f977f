package daemon

import (
	"errors"
	"syscall"

	"github.com/gportmap/gportmap/internal/instance"
)

// Exit codes, those of sysexits(3) as far as it has one.
const (
	ExitOK          = 0  // ended by SIGTERM or SIGINT, or served in the background from now on
	ExitUsage       = 64 // unknown flag, bad value, too many arguments
	ExitUnavailable = 69 // a port or local socket is in use
	ExitInternal    = 70 // the process in the background died before it served
	ExitSystem      = 71 // the operating system refused something
	ExitStateDir    = 72 // the state directory isn't ours alone: a symbolic link, another owner, writable for others
	ExitCantCreate  = 73 // the lock file, the state directory or the local socket can't be made
	ExitRunning     = 75 // another portmapper is running
	ExitPermission  = 77 // a privilege is missing
	ExitConfig      = 78 // an address isn't one of this host, a user doesn't exist, a socket handed over doesn't fit
)

// codedError is an error that knows its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// WithExitCode gives err an exit code, which [ExitCode] finds.
func WithExitCode(code int, err error) error { return &codedError{code, err} }

// ExitCode returns the exit code that tells err, and 0 for nil.
func ExitCode(err error) int {
	var coded *codedError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.code
	}
	return ExitSystem
}

// byCause gives err the exit code of its cause, or code if the cause is none of those that have one of their own.
func byCause(code int, err error) error {
	switch {
	case errors.Is(err, instance.ErrRunning):
		code = ExitRunning
	case errors.Is(err, syscall.EADDRINUSE):
		code = ExitUnavailable
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		code = ExitPermission
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		code = ExitConfig
	}
	return WithExitCode(code, err)
}
