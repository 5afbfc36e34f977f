package daemon

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/internal/warmstart"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// Numbers of capabilities, <linux/capability.h>.
const (
	capSetGID         = 6
	capSetUID         = 7
	capNetBindService = 10
)

// privileges looks whether ports can be bound and privileges dropped.
func (d *doctor) privileges() {
	has, known := capabilities()
	if os.Geteuid() != 0 && d.config.StateDir == "" {
		d.add(Note, "privileges", fmt.Sprintf("looked as uid %d: the system's portmapper is started by root, and root sees more", os.Geteuid()), "run the doctor as root")
		return
	}
	if !known {
		d.add(Note, "privileges", "capabilities couldn't be seen: /proc/self/status can't be read", "")
		return
	}
	if first, _ := sys.UnprivilegedPorts(); d.config.Port < first && has&(1<<capNetBindService) == 0 {
		d.add(Error, "privileges", fmt.Sprintf("port %d can't be bound: ports below %d need CAP_NET_BIND_SERVICE", d.config.Port, first),
			"start as root or with that capability, or choose another --port")
	}
	if d.config.DropPrivileges && os.Geteuid() == 0 {
		if has&(1<<capSetUID) == 0 || has&(1<<capSetGID) == 0 {
			d.add(Error, "privileges", "privileges can't be dropped: CAP_SETUID or CAP_SETGID is missing", "start without -s, or with these capabilities")
		}
		if err := d.config.checkUser(); err != nil {
			user := cmp.Or(d.config.User, "_rpc")
			d.add(Error, "privileges", "privileges can't be dropped: "+err.Error(), "useradd --system --no-create-home --shell /usr/sbin/nologin "+instance.ShellWord(user))
		}
	}
}

// netlink looks whether the kernel can be asked for interfaces and owners of ports.
func (d *doctor) netlink() {
	_, refused, err := currentInterfaces()
	const remedy = "allow AF_NETLINK: RestrictAddressFamilies= of the unit, or the container's seccomp profile"
	switch {
	case err != nil:
		d.add(Error, "privileges", "the interfaces can't be listed: "+err.Error(), remedy)
	case refused != nil:
		d.add(Warning, "privileges", "AF_NETLINK is missing, so changed interfaces are noticed late, and over TCP and UDP nobody is root: "+refused.Error(), remedy)
	}
}

// capabilities returns the effective ones of this process as bits.
func capabilities() (bits uint64, known bool) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			bits, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 16, 64)
			return bits, err == nil
		}
	}
	return 0, false
}

// state looks at the state directory and what is in it, as the daemon would, and changes nothing.
func (d *doctor) state() {
	dir := d.config.stateDir()
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			d.add(Error, "state", fmt.Sprintf("the state directory %s can't be made: %v", dir, err), "mkdir -p "+instance.ShellWord(filepath.Dir(dir)))
		}
		return
	case err != nil:
		d.add(Note, "state", fmt.Sprintf("the state directory couldn't be seen: %v", err), "look as root")
		return
	case info.Mode().Type() == fs.ModeSymlink:
		d.add(Error, "state", fmt.Sprintf("the state directory %s is a symbolic link, which isn't followed", dir), warmstart.DirectoryRemedy(dir, true))
		return
	case !info.IsDir():
		d.add(Error, "state", fmt.Sprintf("the state directory %s is not a directory", dir), warmstart.DirectoryRemedy(dir, true))
		return
	}
	if why := d.untrusted(info); why != "" {
		d.add(Error, "state", fmt.Sprintf("the state directory %s isn't safe: %s", dir, why), warmstart.DirectoryRemedy(dir, d.owned(info)))
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		d.add(Note, "state", fmt.Sprintf("the state couldn't be seen: %v", err), "look as root")
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Name() == stateFile || e.Name() == "portmap.xdr":
			d.stateFile(path)
		case strings.HasSuffix(e.Name(), ".damaged") || strings.HasSuffix(e.Name(), ".untrusted"):
			d.add(Warning, "state", path+" was set aside by an earlier start: look at it and remove it", "rm "+instance.ShellWord(path))
		}
	}
}

// untrusted tells what is wrong with a file or directory that holds the state, "" if nothing is.
func (d *doctor) untrusted(info fs.FileInfo) string {
	switch st, ok := info.Sys().(*syscall.Stat_t); {
	case !ok:
		return "its owner can't be told"
	case !d.owned(info):
		return fmt.Sprintf("it belongs to uid %d", st.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("its mode %v lets others write", info.Mode().Perm())
	}
	return ""
}

// owned reports whether a file or directory belongs to a user whose state is believed.
func (d *doctor) owned(info fs.FileInfo) bool {
	trusted := append([]uint32{0}, serviceUIDs()...)
	if d.config.StateDir != "" {
		trusted = append(trusted, uint32(os.Geteuid()))
	}
	if user, err := d.config.privilegeless(); err == nil && d.config.DropPrivileges {
		trusted = append(trusted, user.UID)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && slices.Contains(trusted, st.Uid)
}

// stateFile looks whether a start would read a file of the state to its end.
func (d *doctor) stateFile(path string) {
	info, err := os.Lstat(path)
	if err != nil {
		return // it is being replaced
	}
	if !info.Mode().IsRegular() {
		d.add(Warning, "state", fmt.Sprintf("%s is not a regular file (%v) and isn't followed", path, info.Mode()), outOfTheWay(path))
		return
	}
	if why := d.untrusted(info); why != "" {
		d.add(Warning, "state", fmt.Sprintf("%s isn't believed and a start sets it aside: %s", path, why), trustOrRemove(path))
		return
	}
	b, _, err := readState(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.add(Note, "state", path+" couldn't be read", "look as root")
		return
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		d.add(Warning, "state", fmt.Sprintf("%s can't be read: %v", path, err), "see whether the disk is well")
		return
	}
	if n, err := wholeEntries(filepath.Base(path), b); err != nil && d.running == 0 {
		d.add(Warning, "state", fmt.Sprintf("%s is damaged (%v); a start keeps the %d registrations before the damage and sets the file aside", path, err, n),
			d.config.startCommand())
	}
}

// wholeEntries returns how many entries of a state file are whole, and what is wrong behind them.
func wholeEntries(name string, b []byte) (int, error) {
	dec := xdr.NewDecoder(b)
	n := 0
	if name == stateFile {
		n = len(rpcbind.ReadRPCBList(&dec, stateString))
	} else {
		n = len(rpcbind.ReadMappingList(&dec))
	}
	if err := dec.Err(); err != nil {
		return n, err
	}
	if rest := len(dec.Rest()); rest > 0 {
		return n, fmt.Errorf("%d octets behind the end of the list", rest)
	}
	return n, nil
}
