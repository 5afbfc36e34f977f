package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// programPath is the package path that the binary of gportmap says it was built from.
const programPath = "github.com/gportmap/gportmap/cmd/gportmap"

// answerLimit bounds how long a portmapper may take to answer one who looks how it is.
const answerLimit = 5 * time.Second

// States of an instance, as [Status] tells them.
const (
	StateRunning      = "running"
	StateNotAnswering = "not answering"             // it has the lock, and no socket of it answers
	StateOther        = "another portmapper"        // rpcbind, say, is serving in gportmap's place
	StateDeadPIDFile  = "dead, its pid file stays"  // and who asks may not remove it
	StateDeadLock     = "dead, its lock file stays" // the same
	StateStopped      = "stopped"
	StateUnknown      = "unknown"
)

// Exit codes of status, those of the Linux Standard Base (Core 5.0, 22.2).
const (
	StatusRunning     = 0
	StatusDeadPIDFile = 1
	StatusDeadLock    = 2
	StatusStopped     = 3
	StatusUnknown     = 4
)

// A Status tells how an instance is. Its JSON is what `gportmap status --json` prints.
type Status struct {
	State    string `json:"state"`
	ExitCode int    `json:"exit_code"` // of status
	// Process is the portmapper that runs; nil if none does or it can't be seen.
	Process *Process `json:"process,omitempty"`
	// Serves is what the portmapper says it serves, as in "udp 0.0.0.0:111".
	Serves []string `json:"serves,omitempty"`
	// Registrations is how many it has, its own left out; nil if it wasn't asked or gave no answer.
	Registrations *int `json:"registrations,omitempty"`
	// Saved tells about the state on disk; nil if it can't be seen or nothing runs.
	Saved *Saved `json:"saved,omitempty"`
	// Report is what it tells of itself, if who asks may open its admin socket.
	Report *Report `json:"report,omitempty"`
	// Removed are stale files that are gone now, Stale those that are still there.
	Removed []string `json:"removed,omitempty"`
	Stale   []string `json:"stale,omitempty"`
	// Notes say what is unusual, a sentence each, and Remedy what to do about it.
	Notes  []string `json:"notes,omitempty"`
	Remedy string   `json:"remedy,omitempty"`
}

// A Process is a portmapper's.
type Process struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Program string    `json:"program,omitempty"`
	User    string    `json:"user"`
	Unit    string    `json:"unit,omitempty"`
	Since   time.Time `json:"since"`
	// Gportmap says that it is one, whatever its name, and Version which one, if that can be told.
	Gportmap bool   `json:"gportmap"`
	Version  string `json:"version,omitempty"`
	// Same says that it runs the very program that asks.
	Same bool `json:"same_program"`
	// Replaced says that the program's file was replaced since it began.
	Replaced bool `json:"program_replaced,omitempty"`
}

// Saved tells how the state on disk is, compared with the table.
type Saved struct {
	File    string    `json:"file"`
	Written time.Time `json:"written"`
	// Missing is how many registrations of the table the file doesn't have: they would be lost in a crash.
	Missing int `json:"missing"`
}

// Look tells how the instance is that a daemon with this configuration would be. What is stale it removes, while it holds
// the instance lock, unless it may not. An error means that nothing can be told, for what reason it says; a state that
// isn't well is none.
func Look(ctx context.Context, c Config) (Status, error) {
	c, err := c.complete()
	if err != nil {
		return Status{}, err
	}
	s, err := c.state()
	if err != nil {
		return Status{}, byCause(ExitConfig, err)
	}
	var removed []string
	var left error
	if s.Condition == instance.Unknown {
		s = c.lookFromOutside(s)
	}
	if len(s.Stale) > 0 && s.Condition != instance.Running {
		if removed, left = instance.Clear(c.paths()); left == nil || errors.Is(left, instance.ErrRunning) {
			left = nil
		}
		if len(removed) > 0 || left == nil {
			if s, err = c.state(); err != nil {
				return Status{}, byCause(ExitConfig, err)
			}
		}
	}
	st := Status{Removed: removed, Stale: s.Stale}
	if c.stateless() {
		st.Notes = append(st.Notes, statelessText)
	}
	if s.Note != "" {
		st.Notes = append(st.Notes, s.Note)
	}
	switch s.Condition {
	case instance.Running:
		st.State, st.ExitCode = StateRunning, StatusRunning
		c.lookAtRunning(ctx, &st, s.Process)
	case instance.DeadWithPIDFile:
		st.State, st.ExitCode = StateDeadPIDFile, StatusDeadPIDFile
	case instance.DeadWithLock:
		st.State, st.ExitCode = StateDeadLock, StatusDeadLock
	case instance.Stopped:
		st.State, st.ExitCode = StateStopped, StatusStopped
	default:
		st.State, st.ExitCode = StateUnknown, StatusUnknown
		st.Remedy = "look as root"
	}
	if len(st.Stale) > 0 && s.Condition != instance.Running {
		st.Remedy = c.clearRemedy(st.Stale, left)
	}
	return st, nil
}

// lookFromOutside is for who may not open the lock file, where the kernel tells too little: if the process of the pid file
// has ended and nobody serves the local socket, the daemon is dead.
func (c Config) lookFromOutside(s instance.Status) instance.Status {
	path := c.paths().PIDFile
	h, err := instance.VerifyPIDFile(path, c.lockPath())
	if err == nil {
		h.Close()
		return s
	}
	unserved, socketErr := sys.StaleSocket(c.Socket)
	if _, statErr := os.Lstat(c.Socket); errors.Is(statErr, fs.ErrNotExist) {
		unserved = true
	}
	if errors.Is(err, instance.ErrStale) && socketErr == nil && unserved {
		return instance.Status{Condition: instance.DeadWithPIDFile, Stale: []string{path, c.lockPath()}}
	}
	return s
}

// clearRemedy tells how to get rid of stale files that couldn't be removed.
func (c Config) clearRemedy(stale []string, why error) string {
	text := "run the same as root, or start gportmap, which removes"
	if len(stale) == 1 {
		text += " it"
	} else {
		text += " them"
	}
	if why != nil && !errors.Is(why, fs.ErrPermission) {
		text = oneLine(why).Error()
	}
	return text
}

// lookAtRunning tells of the portmapper that has the lock.
func (c Config) lookAtRunning(ctx context.Context, st *Status, p sys.Process) {
	h, err := instance.HolderOf(p.PID, c.wildcards()...)
	known := p.PID != 0 && err == nil
	if known {
		st.Process = c.processOf(h)
		if st.Process.Replaced {
			st.Notes = append(st.Notes, "its program was replaced since it began: a restart runs the new one")
		}
		if !st.Process.Gportmap {
			st.State, st.ExitCode, st.Remedy = StateOther, StatusStopped, h.Remedy()
			for _, path := range []string{c.paths().PIDFile, c.paths().Subsys} {
				if _, err := os.Lstat(path); path != "" && err == nil {
					st.Stale = append(st.Stale, path)
					st.Notes = append(st.Notes, path+" is of a gportmap that has ended; the next start removes it")
				}
			}
		}
	}
	all, err := c.ask(ctx)
	if err != nil {
		st.Notes = append(st.Notes, "it gives no answer: "+err.Error())
		if st.State == StateRunning {
			st.State, st.ExitCode = StateNotAnswering, StatusUnknown
			st.Remedy = c.restartCommand(st.Process)
		}
		return
	}
	others := 0
	for _, b := range all {
		if b.Program != rpcbind.Program {
			others++
		} else if s := served(b); !slices.Contains(st.Serves, s) {
			st.Serves = append(st.Serves, s)
		}
	}
	st.Registrations = &others
	if st.State != StateRunning {
		return
	}
	c.lookAtAbstract(st, p.PID)
	if c.stateless() {
		return
	}
	c.lookAtSaved(ctx, st, all)
	if st.Report, err = c.askReport(ctx); err != nil {
		st.Notes = append(st.Notes, "there is more to tell for root, and for the group of --admin-group: "+err.Error())
	}
}

// served names what an own entry says is served.
func served(b rpcbind.RPCB) string {
	if at, ok := rpcbind.ParseUAddr(b.Addr); ok {
		return string(b.Netid) + " " + at.String()
	}
	return string(b.Netid) + " " + b.Addr
}

// ask returns every registration of the portmapper that runs.
func (c Config) ask(ctx context.Context) ([]rpcbind.RPCB, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	client, err := c.Limits.dialPortmapper(ctx, "unix", c.Socket)
	if err != nil {
		// Systemd may have handed over other sockets than those that the configuration names.
		var second error
		if client, second = c.Limits.dialPortmapper(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", c.Port)); second != nil {
			return nil, err
		}
	}
	defer client.Close()
	return client.Dump(ctx)
}

// processOf returns what is known of a holder that may be the daemon of this configuration.
func (c Config) processOf(h instance.Holder) *Process {
	p := &Process{
		PID: h.Process.PID, Command: h.Process.Command, Program: h.Process.Program, User: h.User, Unit: h.Origin.Unit,
		Since: h.Process.Started.Round(time.Second), // it is told a little differently each time
	}
	exe := fmt.Sprintf("/proc/%d/exe", p.PID)
	p.Replaced = strings.HasSuffix(p.Program, " (deleted)")
	// Read, never run: who runs a program decides what it does.
	info, err := sys.ReadGoBuild(exe)
	switch {
	case err == nil:
		p.Gportmap, p.Version = info.Path == programPath, info.Main.Version
	case !errors.Is(err, sys.ErrNoGoBuild):
		// It can't be read just now, or the process is another user's and we lack CAP_SYS_PTRACE, as root does in a container. Its name may be that of a
		// link, such as rpcbind; the admin socket is one that only gportmap makes.
		p.Gportmap = p.Command == "gportmap" || len(h.Process.Args) > 0 && filepath.Base(h.Process.Args[0]) == "gportmap" ||
			c.servesAdmin(p.PID)
	}
	if !p.Gportmap {
		p.Version = ""
	}
	theirs, err := os.Stat(exe)
	if ours, ourErr := os.Stat("/proc/self/exe"); err == nil && ourErr == nil {
		p.Same = os.SameFile(theirs, ours)
	}
	return p
}

// servesAdmin reports whether a process serves the admin socket of this configuration.
func (c Config) servesAdmin(pid int) bool {
	listener, err := sys.ListenerPID(c.adminSocket())
	return err == nil && pid != 0 && listener == pid
}
