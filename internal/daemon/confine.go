package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/internal/warmstart"
)

// confine gives up, once everything is served, what serving doesn't take: root and every capability; the privileges of programs
// that it would run, and running any; and changing files elsewhere than in our own directories. What the kernel or the build
// can't do is told and served without. An error says that the process is in between and must end.
//
// System calls are not filtered here but by the unit's SystemCallFilter: which ones Go's runtime makes differs from version
// to version, and a filter that is wrong kills the daemon on a kernel that nobody has tried.
func confine(c Config) error {
	if err := leaveRoot(c); unconfinable(err) {
		c.Log.Debug("root is kept", "err", err)
	} else if err != nil {
		return byCause(ExitSystem, err)
	}
	told := func(what string, err error) {
		switch {
		case err == nil:
		case unconfinable(err):
			c.Log.Debug(what, "err", err)
		default:
			c.Log.Warn(what, "err", err)
		}
	}
	if err := sys.NoNewPrivileges(); err != nil {
		told("the process isn't kept from new privileges", err)
		return nil // Landlock takes it
	}
	told("Landlock doesn't confine the process to its own files", sys.ConfineWrites(c.ownPaths()...))
	return nil
}

// unconfinable tells whether an error is that of a kernel or a build that can't do it, or of a container that won't.
func unconfinable(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission)
}

// leaveRoot becomes the user that owns the state directory: the service's, to whom it was given. Where that is root, as for an
// instance of root's own, the process stays root, whose files these are, without a capability.
//
// So what lies in directories of root's, the pid file, rpcbind's lock and the local socket of the system's instance, can't be
// removed at the end: [Stop] does that, or the next start.
func leaveRoot(c Config) error {
	if os.Geteuid() == 0 {
		user, err := c.stateOwner()
		if err != nil {
			return err
		}
		if user.UID != 0 {
			if err := sys.DropPrivileges(user.UID, user.GID); err != nil {
				return err
			}
		}
	}
	return sys.DropCapabilities()
}

// stateOwner returns who owns the state directory, with the group that the user has.
func (c Config) stateOwner() (warmstart.Account, error) {
	if c.stateless() {
		if user, err := c.privilegeless(); err == nil {
			return *user, nil
		}
		return warmstart.Account{}, nil
	}
	var dir syscall.Stat_t
	if err := syscall.Lstat(c.stateDir(), &dir); err != nil {
		return warmstart.Account{}, &os.PathError{Op: "lstat", Path: c.stateDir(), Err: err}
	}
	user := warmstart.Account{UID: dir.Uid, GID: dir.Gid}
	if _, gid, err := sys.LookupUser(sys.UserName(dir.Uid)); err == nil {
		user.GID = gid
	}
	return user, nil
}

// ownPaths returns where the daemon changes files while it runs and at its end: its state and what lies with it, and the
// directory of the local socket if that is this user's.
func (c Config) ownPaths() []string {
	list := []string{os.DevNull}
	if !c.stateless() {
		list = append(list, c.stateDir())
	}
	var dir syscall.Stat_t
	socketDir := filepath.Dir(c.Socket)
	if us := os.Geteuid(); us != 0 && syscall.Stat(socketDir, &dir) == nil && int(dir.Uid) == us {
		list = append(list, socketDir)
	}
	return list
}
