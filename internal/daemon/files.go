package daemon

import (
	"cmp"
	"errors"
	"io/fs"
	"strings"

	"github.com/gportmap/gportmap/internal/instance"
)

// paths returns the files that tell whether the instance runs.
func (c Config) paths() instance.Paths {
	if c.stateless() {
		return c.statelessPaths()
	}
	p := instance.SystemPaths()
	if c.StateDir != "" {
		p = instance.DirPaths(c.StateDir)
	}
	p.Lock, p.Socket, p.Admin = c.lockPath(), c.Socket, c.adminSocket()
	p.Serves = c.wildcards()
	return p
}

// predecessorLock returns the lock of whom a takeover is from: every portmapper of the system holds rpcbind's.
func (c Config) predecessorLock() string {
	p := c.paths()
	return cmp.Or(p.Rpcbind, p.Lock)
}

// clearStale removes what an earlier daemon left behind that was killed, but for its socket, which is replaced when ours
// is bound. Nothing of it keeps this one from starting, so an error is only a warning, for later: what keeps us from
// starting is to be told alone.
func clearStale(c Config, lock *instance.Lock) (warning error) {
	if c.stateless() {
		return nil
	}
	p := c.paths()
	p.Socket = ""
	removed, err := lock.Clear(p)
	if len(removed) > 0 {
		c.Log.Info("stale files of an earlier portmapper removed", "files", strings.Join(removed, ", "))
	}
	return err
}

// marks are the files by which scripts know that we run. The instance lock is the truth, so what can't be written is
// logged and served without.
type marks struct {
	config Config
	pid    *instance.PIDFile
	subsys *instance.SubsysLock
}

// writePID writes the pid file, while we may still be root.
func (m *marks) writePID() {
	if m.config.stateless() {
		return
	}
	var err error
	m.pid, err = instance.WritePIDFile(m.config.paths().PIDFile)
	m.note("the pid file can't be written; nothing of ours needs it", err)
}

// createSubsys tells System V's scripts that we serve. Once privileges are dropped the directory refuses that, and rightly
// so: the file couldn't be removed at the end.
func (m *marks) createSubsys() {
	var err error
	m.subsys, err = instance.CreateSubsys(m.config.paths().Subsys)
	m.note("the subsys lock can't be made; shutdown scripts of System V's init may not stop us", err)
}

// remove removes them, as far as we still may.
func (m *marks) remove() {
	m.note("the subsys lock stays behind; status and the next start remove it", m.subsys.Remove())
	m.note("the pid file stays behind; status and the next start remove it", m.pid.Remove())
}

func (m *marks) note(what string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission):
		m.config.Log.Debug(what, "err", err)
	default:
		m.config.Log.Warn(what, "err", err)
	}
}
