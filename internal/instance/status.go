package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// Paths are the files that an instance has, besides its state. An empty one isn't had.
type Paths struct {
	Lock    string // the instance lock: the only truth
	Rpcbind string // rpcbind's lock, which is taken beside it
	PIDFile string
	Subsys  string // see [SubsysLock]
	Socket  string // the local socket
	Admin   string // the socket that tells how the daemon is
	// OtherPIDFiles and OtherSubsys are files of the same kind that those who share the lock may leave behind.
	OtherPIDFiles, OtherSubsys []string
	// Serves are the endpoints by which a portmapper is found that has lost its files.
	Serves []Endpoint
}

// SystemPaths are those of the system's portmapper. The lock lies in the state directory, where root and the service's user
// alone can make files. The socket is rpcbind's own. The pid file is not: Debian's init script of rpcbind writes and removes /run/rpcbind.pid itself, whether or not its start succeeded.
func SystemPaths() Paths {
	return Paths{
		Lock:          "/run/rpcbind/gportmap.lock",
		Rpcbind:       RpcbindLock,
		PIDFile:       "/run/gportmap.pid",
		Subsys:        "/var/lock/subsys/gportmap",
		Socket:        "/run/rpcbind.sock",
		OtherPIDFiles: []string{"/run/rpcbind.pid"},
		OtherSubsys:   []string{"/var/lock/subsys/rpcbind"},
	}
}

// DirPaths are those of an instance of its own, with everything in one directory and no subsys lock.
func DirPaths(dir string) Paths {
	return Paths{
		Lock:    filepath.Join(dir, "rpcbind.lock"),
		PIDFile: filepath.Join(dir, "gportmap.pid"),
		Socket:  filepath.Join(dir, "rpcbind.sock"),
	}
}

// A Condition is the exit code that the Linux Standard Base gives "status" (Core 5.0, 22.2 Init Script Actions).
type Condition int

// The conditions.
const (
	Running         Condition = 0
	DeadWithPIDFile Condition = 1
	DeadWithLock    Condition = 2 // a lock file or subsys lock that nobody holds
	Stopped         Condition = 3
	Unknown         Condition = 4 // only a more privileged user can tell
)

// String is a word or two, such as "running".
func (c Condition) String() string {
	switch c {
	case Running:
		return "running"
	case DeadWithPIDFile:
		return "dead, but its pid file exists"
	case DeadWithLock:
		return "dead, but its lock file exists"
	case Stopped:
		return "stopped"
	case Unknown:
		return "unknown"
	}
	return "condition " + strconv.Itoa(int(c))
}

// A Status tells whether a portmapper runs, be it ours or rpcbind.
type Status struct {
	Condition Condition
	// Process is the running one. Its PID is 0 if it can't be seen, see [RunningError].
	Process sys.Process
	// Stale are the files that speak of a running one although there is none: [Clear] removes them.
	Stale []string
	// Note says in a sentence what is unusual about it, if anything.
	Note string
}

// String is one line, as in "running (pid 4568, rpcbind, since 2026-01-02 03:04:05)".
func (s Status) String() string {
	text := s.Condition.String()
	switch p := s.Process; {
	case s.Condition == Running && p.PID != 0:
		text += fmt.Sprintf(" (pid %d, %s, since %s)", p.PID, printable(p.Command), p.Started.Format(time.DateTime))
	case s.Condition == Running:
		text += " (its process can't be seen from here)"
	case len(s.Stale) > 0:
		text += fmt.Sprintf(" (stale: %s)", strings.Join(s.Stale, ", "))
	}
	if s.Note != "" {
		text += "; " + s.Note
	}
	return text
}

// State tells how things are without changing them, for which it takes the kernel locks for a moment if nobody has them. An
// error means that a file is in the way of the truth, such as a link in place of the lock.
func State(p Paths) (Status, error) {
	err := probe(p.Lock)
	var running *RunningError
	switch {
	case errors.As(err, &running):
		return runningStatus(p, running), nil
	case errors.Is(err, fs.ErrPermission):
		return statusFromOutside(p), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Status{Condition: Unknown}, fmt.Errorf("instance lock: %w", err)
	}
	other, note := p.portmapperAt()
	if other != nil {
		return runningStatus(p, other), nil
	}
	s := deadStatus(p, err == nil)
	if s.Note == "" {
		s.Note = note
	}
	return s, nil
}

// probe tells whether the lock is held, without making the file: nil says that it is free. The lock taken is a shared one,
// so that any number of processes may look at once.
func probe(path string) error {
	for range maxReplacements {
		f, err := open(path, 0)
		if err != nil {
			return err
		}
		if err := flock(path, f, syscall.LOCK_SH); err != nil {
			defer f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return holder(path, f)
			}
			return &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		current := same(path, f)
		f.Close()
		if current {
			return nil
		}
	}
	return &fs.PathError{Op: "lock", Path: path, Err: errors.New("the file is being replaced all the time")}
}

// runningStatus is the status while the lock is held.
func runningStatus(p Paths, e *RunningError) Status {
	s := Status{Condition: Running}
	if proc, err := sys.LookupProcess(e.PID); e.PID != 0 && err == nil {
		s.Process = proc
		return s
	}
	for _, path := range p.pidFiles() {
		if h, err := VerifyPIDFile(path, p.Lock); err == nil {
			s.Process = h.Process
			h.Close()
			break
		}
	}
	return s
}

// statusFromOutside is the status for somebody who may not open the lock file: the kernel's table of locks tells everybody
// who took one, but not who inherited it.
func statusFromOutside(p Paths) Status {
	if pid := lockTaker(p.Lock); pid != 0 {
		return runningStatus(p, &RunningError{Path: p.Lock, PID: pid})
	}
	if other, _ := p.portmapperAt(); other != nil {
		return runningStatus(p, other)
	}
	return Status{Condition: Unknown, Note: fmt.Sprintf("only root can tell, for %s may not be opened", p.Lock)}
}

// deadStatus is the status while the lock is free, its file being there or not.
func deadStatus(p Paths, lockExists bool) Status {
	if s, ok := survivor(p); ok {
		return s
	}
	if s, ok := server(p); ok {
		return s
	}
	s := Status{Condition: Stopped}
	note := func(path string, c Condition) {
		if exists(path) {
			s.Stale = append(s.Stale, path)
			s.Condition = min(s.Condition, c)
		}
	}
	for _, path := range p.pidFiles() {
		note(path, DeadWithPIDFile)
	}
	for _, path := range p.subsys() {
		note(path, DeadWithLock)
	}
	if lockExists {
		note(p.Lock, DeadWithLock)
	}
	if p.Rpcbind != "" && probe(p.Rpcbind) == nil {
		note(p.Rpcbind, DeadWithLock)
	}
	for _, path := range present([]string{p.Socket, p.Admin}) {
		if stale, err := sys.StaleSocket(path); stale && err == nil {
			s.Stale = append(s.Stale, path)
		}
	}
	return s
}

// lost says what is unusual about a portmapper that was found without its lock.
func (p Paths) lost() string {
	return fmt.Sprintf("its lock file %s was removed by somebody; gportmap takeover makes everything anew, and keeps every registration", p.Lock)
}

// survivor looks for a portmapper that has lost its lock, because somebody removed the file.
func survivor(p Paths) (Status, bool) {
	for _, path := range p.pidFiles() {
		h, err := VerifyPIDFile(path, p.Lock)
		if err != nil {
			continue
		}
		defer h.Close()
		// In a container the numbers are few, and the one of an earlier life may be ours now.
		if h.PID != os.Getpid() {
			return Status{Condition: Running, Process: h.Process, Note: p.lost()}, true
		}
	}
	return Status{}, false
}

// server looks for a portmapper that serves although it has lost its lock and its pid file.
func server(p Paths) (Status, bool) {
	if len(p.Serves) == 0 {
		return Status{}, false
	}
	holders, err := Holders(p.Serves...)
	if err != nil {
		return Status{Condition: Unknown, Note: fmt.Sprintf("who serves can't be told: %v; look as root", err)}, true
	}
	trusted := trustedUsers(p.Lock)
	if os.Geteuid() != 0 {
		trusted = append(trusted, uint32(os.Geteuid()))
	}
	for _, h := range holders {
		switch {
		case h.Unseen == Denied:
			return Status{Condition: Unknown, Note: h.String()}, true
		case h.Process.PID == 0 || h.Process.PID == os.Getpid() || h.isSystemdAlone():
		case proven(h.Process.PID, trusted):
			return Status{Condition: Running, Process: h.Process, Note: p.lost()}, true
		}
	}
	return Status{}, false
}

func (p Paths) pidFiles() []string { return present(append([]string{p.PIDFile}, p.OtherPIDFiles...)) }
func (p Paths) subsys() []string   { return present(append([]string{p.Subsys}, p.OtherSubsys...)) }

func present(paths []string) []string {
	var named []string
	for _, path := range paths {
		if path != "" {
			named = append(named, path)
		}
	}
	return named
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
