package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
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
		if _, err := d.config.privilegeless(); err != nil {
			d.add(Error, "privileges", "privileges can't be dropped: none of the users _rpc, rpc and daemon is there", "make one of them, or start without -s")
		}
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
			d.add(Error, "state", fmt.Sprintf("the state directory %s can't be made: %v", dir, err), "make "+filepath.Dir(dir))
		}
		return
	case err != nil:
		d.add(Note, "state", fmt.Sprintf("the state directory couldn't be seen: %v", err), "look as root")
		return
	case info.Mode().Type() == fs.ModeSymlink:
		d.add(Error, "state", fmt.Sprintf("the state directory %s is a symbolic link, which isn't followed", dir), "remove it, or name the directory it leads to by --state-dir")
		return
	case !info.IsDir():
		d.add(Error, "state", fmt.Sprintf("the state directory %s is not a directory", dir), "remove it, or choose another by --state-dir")
		return
	}
	if why := d.untrusted(info); why != "" {
		d.add(Error, "state", fmt.Sprintf("the state directory %s isn't safe: %s", dir, why), "chown root "+dir+"; chmod go-w "+dir)
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
			d.add(Warning, "state", path+" was set aside by an earlier start", "look at it, then remove it")
		}
	}
}

// untrusted tells what is wrong with a file or directory that holds the state, "" if nothing is.
func (d *doctor) untrusted(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "its owner can't be told"
	}
	trusted := append([]uint32{0}, serviceUIDs()...)
	if d.config.StateDir != "" {
		trusted = append(trusted, uint32(os.Geteuid()))
	}
	if user, err := d.config.privilegeless(); err == nil && d.config.DropPrivileges {
		trusted = append(trusted, user.UID)
	}
	switch {
	case !slices.Contains(trusted, st.Uid):
		return fmt.Sprintf("it belongs to uid %d", st.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("its mode %v lets others write", info.Mode().Perm())
	}
	return ""
}

// stateFile looks whether a start would read a file of the state to its end.
func (d *doctor) stateFile(path string) {
	info, err := os.Lstat(path)
	if err != nil {
		return // it is being replaced
	}
	const remedy = "a start keeps what is whole and sets the file aside; nothing needs to be done"
	if !info.Mode().IsRegular() {
		d.add(Warning, "state", fmt.Sprintf("%s is not a regular file (%v) and isn't followed", path, info.Mode()), "remove it")
		return
	}
	if why := d.untrusted(info); why != "" {
		d.add(Warning, "state", fmt.Sprintf("%s isn't believed: %s", path, why), "a start sets it aside; remove it if you don't know it")
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
		d.add(Warning, "state", fmt.Sprintf("%s is damaged (%v); %d registrations before the damage are whole", path, err, n), remedy)
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

// An initSystem is where services are enabled by links.
type initSystem struct {
	name    string
	links   []string // patterns, %s is the name of a service
	disable string   // command, %s is the name of a service
}

func initSystems() []initSystem {
	return []initSystem{
		{"systemd", []string{"/etc/systemd/system/*.wants/%s.service", "/etc/systemd/system/*.wants/%s.socket",
			"/etc/systemd/system/*.requires/%s.service", "/etc/systemd/system/*.requires/%s.socket"},
			"systemctl disable --now %s.socket %[1]s.service"},
		{"System V's init", []string{"/etc/rc[0-9S].d/S[0-9][0-9]%s", "/etc/rc.d/rc[0-9].d/S[0-9][0-9]%s"},
			"update-rc.d %s disable, or chkconfig %[1]s off"},
		{"OpenRC", []string{"/etc/runlevels/*/%s"}, "rc-update delete %s -a"},
	}
}

// services looks whether gportmap and what it replaces are both started at boot: then it is chance who gets the port.
func (d *doctor) services() {
	if d.config.StateDir != "" {
		return // an instance beside the system's
	}
	for _, manager := range initSystems() {
		if len(d.enabled(manager, "gportmap")) == 0 {
			continue
		}
		for _, rival := range []string{"rpcbind", "portmap"} {
			if links := d.enabled(manager, rival); len(links) > 0 {
				d.add(Warning, "services", fmt.Sprintf("%s starts %s as well as gportmap at boot (%s): one of them will fail",
					manager.name, rival, strings.Join(links, ", ")), fmt.Sprintf(manager.disable, rival))
			}
		}
	}
}

// enabled returns the links by which a service is enabled. A link under another's name that leads to gportmap's own, as
// systemd makes them for an Alias=, is none of the other's, nor is a masked one.
func (d *doctor) enabled(manager initSystem, service string) []string {
	var links []string
	for _, pattern := range manager.links {
		found, _ := filepath.Glob(filepath.Join(d.root, fmt.Sprintf(pattern, service)))
		for _, link := range found {
			to, err := filepath.EvalSymlinks(link)
			if base := filepath.Base(to); err == nil && (to == os.DevNull || service != "gportmap" && strings.HasPrefix(base, "gportmap")) {
				continue
			}
			// The unit itself may be masked or an alias although the link leads to another directory's file.
			override := filepath.Join(d.root, "/etc/systemd/system", filepath.Base(link))
			if to, err := os.Readlink(override); err == nil && (to == os.DevNull || service != "gportmap" && strings.HasPrefix(filepath.Base(to), "gportmap")) {
				continue
			}
			links = append(links, strings.TrimPrefix(link, d.root))
		}
	}
	return links
}
