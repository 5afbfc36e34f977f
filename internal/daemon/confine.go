package daemon

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/gportmap/gportmap/internal/sys"
)

// confine gives up, once everything is served, what serving doesn't take: root; the privileges of programs that it would
// run, and running any; and changing files elsewhere than where our own are. What the kernel or the build can't do is told and
// served without. An error says that the process is in between and must end.
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

// leaveRoot becomes the service's user. Unlike with DropPrivileges it keeps one capability: with it pid file, lock and local
// socket, which lie in directories of root's, can be removed at the end. An instance of root's own, with a state directory of
// its own, stays with root, whose files these are, but with no other capability than those to keep them.
func leaveRoot(c Config) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if user := c.serviceUser(); user != nil {
		return sys.BecomeWith(user.UID, user.GID, sys.CapDACOverride)
	}
	return sys.KeepCapabilities(sys.CapChown, sys.CapDACOverride)
}

// ownPaths returns where the daemon changes files while it runs and at its end: its state, and what lies beside others' files.
func (c Config) ownPaths() []string {
	p := c.paths()
	list := []string{c.stateDir(), os.DevNull}
	for _, file := range []string{p.Lock, p.PIDFile, p.Subsys, p.Socket, p.Admin} {
		if file != "" {
			list = append(list, filepath.Dir(file))
		}
	}
	return list
}
