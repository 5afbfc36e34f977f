package instance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// pidFileOctets bounds what is read of a pid file.
const pidFileOctets = 64

// maxPID is the largest process id that Linux gives, PID_MAX_LIMIT.
const maxPID = 4 << 20

// startTolerance is how much later than a pid file its process may seem to have begun: start times are told in
// hundredths of a second since boot, and the clock may have been corrected since.
const startTolerance = 2 * time.Second

// writeAttempts bounds how often a pid file's temporary name may be found taken.
const writeAttempts = 3

// ErrStale says that a file speaks of a process that isn't there any more.
var ErrStale = errors.New("stale")

// A StaleError tells why a pid file isn't believed. errors.Is(err, [ErrStale]) holds for it.
type StaleError struct {
	Path   string
	PID    int // what the file says; 0 if it says none
	Reason string
}

// Error names the file and the reason.
func (e *StaleError) Error() string { return fmt.Sprintf("%s is stale: %s", e.Path, e.Reason) }

// Unwrap returns [ErrStale].
func (e *StaleError) Unwrap() error { return ErrStale }

// A PIDFile is the one that this process wrote.
type PIDFile struct {
	path string
	file os.FileInfo
}

// WritePIDFile writes this process's id and a line feed to path, mode 0644: into a new file beside it, "path.new", that is
// then given its name, so that nobody ever reads half of it. A symbolic link at path is replaced and one at the other name
// removed; neither is followed. The caller holds the instance lock.
func WritePIDFile(path string) (*PIDFile, error) {
	f, err := createBeside(path)
	if err != nil {
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	var info os.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	return &PIDFile{path: path, file: info}, nil
}

// temporary is the name under which a pid file is written.
func temporary(path string) string { return path + ".new" }

// createBeside makes the temporary file. One that is there was left by an instance that was killed at just that moment.
func createBeside(path string) (*os.File, error) {
	for attempt := 1; ; attempt++ {
		f, err := os.OpenFile(temporary(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
		if !errors.Is(err, fs.ErrExist) || attempt == writeAttempts {
			return f, err
		}
		if err := os.Remove(temporary(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// Remove removes the file if it is still the one written. The error is one for which errors.Is(err, fs.ErrPermission)
// holds after privileges were dropped: the file stays then, and [Clear] finds it stale. A nil PIDFile does nothing.
func (p *PIDFile) Remove() error {
	if p == nil {
		return nil
	}
	now, err := os.Lstat(p.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("pid file: %w", err)
	case !os.SameFile(now, p.file):
		return nil
	}
	if pid, _, err := ReadPIDFile(p.path); err != nil || pid != os.Getpid() {
		return nil // another's number in our file: a script's doing, and its to remove
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}

// ReadPIDFile returns the process id that the file says and when it was written. Whether that process is the one meant
// only [VerifyPIDFile] tells. Errors: one for which errors.Is(err, fs.ErrNotExist) holds if there is no file; a
// [*StaleError] if there is no process id in it; a [*fs.PathError] if it isn't a regular file. Links aren't followed.
func ReadPIDFile(path string) (pid int, written time.Time, err error) {
	f, err := open(path, 0)
	if err != nil {
		return 0, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, time.Time{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, pidFileOctets))
	if err != nil {
		return 0, time.Time{}, err
	}
	text := strings.Trim(string(b), " \t\n")
	pid, err = strconv.Atoi(text)
	if err != nil || pid <= 0 || pid > maxPID || text[0] == '+' {
		return 0, info.ModTime(), &StaleError{Path: path, Reason: fmt.Sprintf("it has no process id in it, but %q", text)}
	}
	return pid, info.ModTime(), nil
}

// VerifyPIDFile returns the running portmapper that the pid file at path tells of; the caller closes the handle. The
// number alone is never believed. The process must either hold the instance lock at lockPath, or be a portmapper by its
// name that began before the file was written: its lock file may have been removed by hand.
//
// Errors: as [ReadPIDFile], and a [*StaleError] if the process isn't there or another one has its number.
func VerifyPIDFile(path, lockPath string) (*sys.ProcessHandle, error) {
	pid, written, err := ReadPIDFile(path)
	if err != nil {
		return nil, err
	}
	stale := func(format string, args ...any) (*sys.ProcessHandle, error) {
		return nil, &StaleError{Path: path, PID: pid, Reason: fmt.Sprintf(format, args...)}
	}
	h, err := sys.OpenProcess(pid)
	if errors.Is(err, syscall.ESRCH) {
		return stale("process %d has ended", pid)
	}
	if err != nil {
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	// Start times are no criterion for who holds the lock: the clock of a machine without a battery is set after boot, and
	// then each process seems to have begun later than the files that it wrote before.
	if holdsLock(pid, lockPath) {
		return h, nil
	}
	switch {
	case !isPortmapper(h.Process):
		h.Close()
		return stale("process %d is %s, which is no portmapper and has no lock on %s", pid, printable(h.Command), lockPath)
	case h.Started.After(written.Add(startTolerance)):
		h.Close()
		return stale("process %d began at %s, after the file was written", pid, h.Started.Format(time.DateTime))
	}
	return h, nil
}

// holdsLock tells whether the process can be seen to have the lock on the file at path.
func holdsLock(pid int, path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	i, ok := inodeOf(info)
	if !ok {
		return false
	}
	if holds(strconv.Itoa(pid), i, false) {
		return true
	}
	// Only root sees the descriptors of others, but everybody who took a lock.
	return lockTaker(path) == pid
}

func inodeOf(info os.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false
	}
	return inode{device(st.Dev), strconv.FormatUint(st.Ino, 10)}, true
}

// isPortmapper tells whether a process is one by its name: the kernel's for it, or that of its program file. Anybody can give
// a process of his own such a name.
func isPortmapper(p sys.Process) bool {
	return isPortmapperName(p.Command) || isPortmapperName(programName(p))
}

func isPortmapperName(name string) bool {
	return slices.Contains([]string{"rpcbind", "portmap", "rpc.portmap", "gportmap"}, name)
}

// programName returns the name of the process's program file; "." if it can't be told.
func programName(p sys.Process) string {
	return filepath.Base(strings.TrimSuffix(p.Program, deletedMark))
}
