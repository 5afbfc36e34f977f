package daemon

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/gportmap/gportmap/internal/sys"
)

// confine gives up, once everything is served, what serving doesn't take: the capabilities of root, but those with which it
// keeps files in a directory that belongs to the service's user; the privileges of programs that it would run, and running
// any; and changing files elsewhere than where our own are. What the kernel can't do is told and served without.
//
// System calls are not filtered here but by the unit's SystemCallFilter: which ones Go's runtime makes differs from version
// to version, and a filter that is wrong kills the daemon on a kernel that nobody has tried.
func confine(c Config) {
	told := func(what string, err error) {
		switch {
		case err == nil:
		case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
			c.Log.Debug(what, "err", err)
		default:
			c.Log.Warn(what, "err", err)
		}
	}
	if err := sys.NoNewPrivileges(); err != nil {
		told("the process isn't kept from new privileges", err)
		return // Landlock takes it
	}
	if os.Geteuid() == 0 {
		told("root's capabilities are kept", sys.KeepCapabilities(sys.CapChown, sys.CapDACOverride))
	}
	told("Landlock doesn't confine the process to its own files", sys.ConfineWrites(c.ownPaths()...))
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
