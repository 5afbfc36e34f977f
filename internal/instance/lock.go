// Package instance sees to it that one portmapper runs at a time, tells whether one does, clears what a killed one left
// behind, and names who is in the way.
//
// The truth is a lock that the kernel holds for a living process (flock(2)) on a file that only root and the service's user
// can open. The file itself means nothing: a stale one hinders nobody. Rpcbind's lock is taken beside it, so that rpcbind and
// gportmap exclude each other; see [AcquireBeside].
package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// RpcbindLock is the lock file of rpcbind. Rpcbind makes it readable for every user, so every user can lock it.
const RpcbindLock = "/run/rpcbind.lock"

// ErrRunning says that another process holds the lock. The error that [Lock] returns wraps it in a [*RunningError].
var ErrRunning = errors.New("another portmapper is already running")

// RunningError tells who holds the lock. errors.Is(err, [ErrRunning]) holds for it.
type RunningError struct {
	Path string // the lock file
	// PID is the holder's process id, 0 if it can't be learnt: /proc isn't there, the holder lives in another PID
	// namespace, or it inherited the lock and only root may look into it.
	PID int
	// Command is the holder's command name as the kernel has it, at most 15 octets of any value; empty if unknown.
	Command string
	ending  bool // that process, or one that took the lock and shows no descriptor any more, is on its way out
}

// Error names the lock file and, if known, the holder.
func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%v: it holds %s and can't be seen from here, which root may, if it isn't in another "+
			"PID namespace; stop it before you start this one", ErrRunning, e.Path)
	}
	return fmt.Sprintf("%v: pid %d (%q) holds %s; stop it before you start this one", ErrRunning, e.PID, e.Command, e.Path)
}

// Unwrap returns [ErrRunning].
func (e *RunningError) Unwrap() error { return ErrRunning }

// A Lock is held from [Acquire] to [Lock.Release], or to the end of the process, however it ends.
type Lock struct {
	file   *os.File
	path   string
	beside *Lock // rpcbind's
}

// maxReplacements bounds how often Acquire finds that the file it locked was removed meanwhile. Each time another
// instance began or ended, so a second attempt is rare already.
const maxReplacements = 100

// Acquire takes the lock on the file at path, which it creates if need be. It waits only for those who may have it for a
// moment, to look or to clear stale files, and for a quarter of a second at most; for a process that was killed or is ending,
// 5 seconds. The path's last element may not be a symbolic link. A process that may not open the file can be given it as
// standard input or output by whoever starts it. Errors: a [*RunningError] if another process has it; a [*fs.PathError] if the
// file can't be opened or isn't a regular one.
func Acquire(path string) (*Lock, error) {
	for range maxReplacements {
		f, err := open(path, syscall.O_CREAT)
		if errors.Is(err, fs.ErrPermission) {
			if given := inherited(path); given != nil {
				f, err = given, nil
			}
		}
		if err != nil {
			return nil, err
		}
		if err := flock(path, f, syscall.LOCK_EX); err != nil {
			defer f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, holder(path, f)
			}
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		// Between open and flock the last holder may have removed the file. Then what is locked has no name any more,
		// and another process could lock a new file of that name.
		if same(path, f) {
			guard(path, f)
			return &Lock{file: f, path: path}, nil
		}
		f.Close()
	}
	return nil, &fs.PathError{Op: "lock", Path: path, Err: errors.New("the file is being replaced all the time")}
}

// guard lets nobody open the lock file but root and who owns its directory: rpcbind leaves one that everybody may lock.
// Failing for a file of another owner is no reason not to serve. A file with a second name isn't the one that was made here.
func guard(path string, f *os.File) {
	var file, dir syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &file) != nil || file.Nlink != 1 {
		return
	}
	if os.Geteuid() == 0 && syscall.Lstat(filepath.Dir(path), &dir) == nil && dir.Uid != file.Uid {
		_ = f.Chown(int(dir.Uid), int(dir.Gid)) // the service's user takes it at the next start
	}
	_ = f.Chmod(0o600)
}

// open opens the lock file. O_NOFOLLOW, because the directory may be one that others write to; O_NONBLOCK, because a FIFO
// put there would otherwise hold us up for ever.
func open(path string, create int) (*os.File, error) {
	flags := create | syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC | syscall.O_NONBLOCK | syscall.O_NOCTTY
	fd, err := syscall.Open(path, flags, 0o600)
	for errors.Is(err, syscall.EINTR) {
		fd, err = syscall.Open(path, flags, 0o600)
	}
	if errors.Is(err, syscall.ELOOP) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a symbolic link, which is not followed; remove it")}
	}
	if errors.Is(err, syscall.EISDIR) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a directory; remove it")}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("is not a regular file (%v); remove it", info.Mode())}
	}
	return f, nil
}

// inherited returns the file at path if it is our standard input or output, else nil. So systemd gives the system's lock
// file, in a directory that is root's, to a service without privileges: StandardOutput=file:/run/rpcbind.lock.
func inherited(path string) *os.File {
	for fd := range 2 {
		dup, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
		if errno != 0 {
			continue
		}
		f := os.NewFile(dup, path)
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && same(path, f) {
			return f
		}
		f.Close()
	}
	return nil
}

// Those who look (see [State]) or clear have the lock for a moment, soon after they began. It is waited for if that may be
// so: a daemon doesn't start any later for it, it only fails later.
const (
	momentaryWait = 250 * time.Millisecond
	momentaryAge  = time.Second      // who is older has it to keep
	firstPause    = time.Millisecond // doubled each time
	// A process that ends, as one that was killed, keeps its locks until its last thread is gone. On a busy host that takes
	// longer than a look.
	endingWait = 5 * time.Second
)

// flock takes the lock in the given way, LOCK_EX or LOCK_SH; EWOULDBLOCK says that another process keeps it.
func flock(path string, f *os.File, how int) error {
	begun := time.Now()
	for pause := firstPause; ; pause *= 2 {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		waited := time.Since(begun)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK) || waited > endingWait:
			return err
		case waited > momentaryWait && !holder(path, f).ending:
			return err
		case pause == firstPause && keeps(holder(path, f)):
			return err
		}
		time.Sleep(min(pause, momentaryWait/10))
	}
}

// keeps tells whether a holder has the lock for long, by its age.
func keeps(e *RunningError) bool {
	if e.PID == 0 || e.ending {
		return false
	}
	p, err := sys.LookupProcess(e.PID)
	return err == nil && time.Since(p.Started) > momentaryAge
}

// same tells whether path still names the open file f.
func same(path string, f *os.File) bool {
	named, err := os.Lstat(path)
	if err != nil {
		return false
	}
	opened, err := f.Stat()
	return err == nil && os.SameFile(named, opened)
}

// Lost tells whether the lock's file was removed or replaced, so that by its name another process can take the lock.
func (l *Lock) Lost() bool { return !same(l.path, l.file) }

// Renew takes the lock on a new file of that name, as [Acquire] does. It isn't for several goroutines, nor beside Release.
func (l *Lock) Renew() error {
	again, err := Acquire(l.path)
	if err != nil {
		return err
	}
	l.file.Close()
	l.file = again.file
	return nil
}

// Path returns the path of the lock file.
func (l *Lock) Path() string { return l.path }

// Release removes the file, while the lock is still held so that nobody else's is removed, and then gives the lock up.
// A file that can't be removed, after privileges were dropped for instance, stays and hinders nobody. A nil Lock and a
// second Release do nothing.
func (l *Lock) Release() {
	if l == nil || l.file == nil {
		return
	}
	l.beside.Release()
	if same(l.path, l.file) {
		_ = os.Remove(l.path)
	}
	// Closing isn't enough where whoever started us has the same open file, as our standard output has.
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	l.file.Close()
	l.file = nil
}
