package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/internal/warmstart"
)

// Check tells what would keep a daemon of this configuration from starting, as far as the configuration, the access lists and this
// host's users, groups and addresses can tell, and what in hosts.allow and hosts.deny is not honoured.
func Check(c Config) (warnings []string, err error) {
	if c, err = c.complete(); err != nil {
		return nil, err
	}
	if _, err := addresses(c, sys.IPv6Available()); err != nil {
		return nil, err
	}
	if err := errors.Join(c.checkUser(), c.checkGroup()); err != nil {
		return nil, WithExitCode(ExitConfig, oneLine(err))
	}
	hosts, err := readAccessLists()
	if err == nil {
		err = c.hiddenLists(hosts.Files())
	}
	if err != nil {
		return nil, WithExitCode(ExitConfig, err)
	}
	return hosts.Warnings(), nil
}

func readAccessLists() (*access.HostsAccess, error) {
	return access.ReadHostsAccess(os.ReadFile, access.HostsAllowPath, access.HostsDenyPath, access.HostsPath)
}

// hiddenLists returns an error that names the first of some files that root reads and the service's user doesn't, where the
// service reads them as that user: by systemd's unit, and with -s.
func (c Config) hiddenLists(paths []string) error {
	user := c.serviceUser()
	if user == nil || os.Geteuid() != 0 {
		return nil
	}
	if booted, err := instance.Booted(); err == nil && !booted && !c.DropPrivileges {
		return nil
	}
	for i, path := range paths {
		consequence := "doesn't start"
		if i >= 2 { // behind hosts.allow and hosts.deny, what their lines name
			consequence = "refuses whom lines that name it might mean"
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("access list: %w", err)
		case !readable(info, user):
			return fmt.Errorf("access list: %s has mode %#o: uid %d, as which the portmapper runs, can't read it and %s; chmod o+r %s",
				path, info.Mode().Perm(), user.UID, consequence, path)
		}
	}
	return nil
}

// readable tells whether a user's processes may read a file by its mode. The directories above are taken for open.
func readable(info fs.FileInfo, user *warmstart.Account) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !ok:
		return true
	case st.Uid == user.UID:
		return mode&0o400 != 0
	case st.Gid == user.GID:
		return mode&0o040 != 0
	}
	return mode&0o004 != 0
}

// accessLists looks whether hosts.allow and hosts.deny can be read, and what in them isn't honoured.
func (d *doctor) accessLists() {
	hosts, err := readAccessLists()
	if err == nil {
		err = d.config.hiddenLists(hosts.Files())
	}
	if err != nil {
		d.add(Error, "configuration", err.Error(), "make the file readable for the portmapper's user; it holds no secrets")
		return
	}
	for _, w := range hosts.Warnings() {
		d.add(Warning, "configuration", w, "gportmap explain tells whom a line refuses")
	}
}
