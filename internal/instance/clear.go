package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
)

// Clear removes the files that speak of a running portmapper although there is none, the lock file among them, and
// returns their paths. It holds the kernel lock meanwhile. If a portmapper has it the error is a [*RunningError], and
// nothing is touched. What can't be removed, or isn't of the kind that it should be, stays and is told in the error,
// beside what was removed.
func Clear(p Paths) (removed []string, err error) {
	locks := slices.DeleteFunc(present([]string{p.Lock, p.Rpcbind}), func(path string) bool { return !exists(path) })
	lock, _, err := AcquireBeside(p.Lock, p.Rpcbind)
	if errors.Is(err, fs.ErrNotExist) {
		if p.Rpcbind == "" {
			return nil, nil // no directory, so no files in it
		}
		// The state directory is gone, other files may not be.
		lock, _, err = acquireRpcbinds(p.Rpcbind, trustedUsers(p.Lock))
	}
	if err != nil {
		return nil, fmt.Errorf("clear stale files: instance lock: %w", err)
	}
	removed, err = lock.Clear(p)
	lock.Release()
	for _, path := range locks {
		if !exists(path) {
			removed = append(removed, path)
		}
	}
	return removed, err
}

// Clear is [Clear] for who holds the lock already and keeps it, with its file: a daemon that starts.
func (l *Lock) Clear(p Paths) (removed []string, err error) {
	if s, ok := survivor(p); ok {
		return nil, fmt.Errorf("clear stale files: a portmapper is %v", s)
	}
	note := func(path string, gone bool, failed error) {
		if gone {
			removed = append(removed, path)
		}
		switch {
		case failed == nil:
		case err == nil:
			err = fmt.Errorf("clear stale files: %w", failed)
		default:
			err = fmt.Errorf("%w; %w", err, failed) // one line
		}
	}
	for _, path := range p.pidFiles() {
		for _, path := range []string{path, temporary(path)} {
			gone, failed := removeRegular(path)
			note(path, gone, failed)
		}
	}
	for _, path := range p.subsys() {
		gone, failed := removeSubsys(path)
		note(path, gone, failed)
	}
	for _, path := range present([]string{p.Socket, p.Admin}) {
		gone, failed := removeSocket(path)
		note(path, gone, failed)
	}
	return removed, err
}

// removeRegular removes a file that is of the kind that we make. A link is none: whoever put it there had a reason.
func removeRegular(path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%s is not a regular file (%v); remove it", path, info.Mode())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

// removeSocket removes a socket that nobody serves. One that is served is not stale: systemd may hold it.
func removeSocket(path string) (bool, error) {
	stale, err := sys.StaleSocket(path)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("local socket %s: %w", path, err)
	case !stale:
		return false, nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}
