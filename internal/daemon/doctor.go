package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

// A Severity tells what a finding means for a start.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // a start fails, or what runs doesn't work
	Warning Severity = "warning" // a start works, and something is wrong all the same
	Note    Severity = "note"    // nothing is wrong: what was seen, and what couldn't be
)

// A Finding is one thing that the doctor found.
type Finding struct {
	Severity Severity `json:"severity"`
	// Subject is what was looked at: "configuration", "instance", "files", "sockets", "privileges", "state", "IPv6" or
	// "services".
	Subject string `json:"subject"`
	Text    string `json:"text"`             // one line
	Remedy  string `json:"remedy,omitempty"` // one line
	Fixed   bool   `json:"fixed,omitempty"`  // it was repaired
}

// A Diagnosis is what the doctor found. Its JSON is what `gportmap doctor --json` prints.
type Diagnosis struct {
	// OK says that nothing is wrong: there are notes only, and what was repaired.
	OK       bool      `json:"ok"`
	Findings []Finding `json:"findings"`
}

// doctor collects findings.
type doctor struct {
	config   Config
	fix      bool
	root     string   // where the services' links are looked for; "" is the host's
	running  int      // pid of the portmapper that has the lock; 0 for none
	serves   []string // what it says it serves, if it is gportmap, as in "udp 0.0.0.0:111"
	findings []Finding
}

// Diagnose checks everything that a start with this configuration needs, without starting. With fix it removes stale files,
// while it holds the instance lock. Without root it sees less, and says so.
func Diagnose(ctx context.Context, c Config, fix bool) Diagnosis {
	d := &doctor{fix: fix, findings: []Finding{}}
	complete, err := c.complete()
	if err != nil {
		d.add(Error, "configuration", err.Error(), "")
		return d.diagnosis()
	}
	d.config = complete
	d.privileges()
	d.netlink()
	d.accessLists()
	d.instance(ctx)
	addrs := d.addresses()
	d.sockets(addrs)
	if d.config.stateless() {
		d.add(Note, "state", statelessText, "")
	} else {
		d.files()
		d.state()
	}
	d.services()
	return d.diagnosis()
}

func (d *doctor) add(s Severity, subject, text, remedy string) {
	d.findings = append(d.findings, Finding{Severity: s, Subject: subject, Text: strings.ReplaceAll(text, "\n", "; "), Remedy: remedy})
}

func (d *doctor) diagnosis() Diagnosis {
	wrong := func(f Finding) bool { return f.Severity != Note && !f.Fixed }
	return Diagnosis{OK: !slices.ContainsFunc(d.findings, wrong), Findings: d.findings}
}

// instance looks who has the lock, and for what is left of who had it.
func (d *doctor) instance(ctx context.Context) {
	s, err := d.config.state()
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return // the lock is in the state directory, which isn't one: see state
	case err != nil:
		d.add(Error, "instance", err.Error(), pathRemedy(err))
		return
	case s.Condition == instance.Running:
		d.lookAtRunning(ctx, s)
		return
	case s.Condition == instance.Unknown:
		d.add(Note, "instance", "whether a portmapper runs couldn't be seen: "+s.Note, "look as root")
		return
	}
	if booted, err := instance.Booted(); booted || err != nil {
		// Systemd makes this file for the unit and leaves it.
		rpcbind := d.config.paths().Rpcbind
		s.Stale = slices.DeleteFunc(s.Stale, func(path string) bool { return path == rpcbind })
	}
	if len(s.Stale) == 0 {
		d.add(Note, "instance", "no portmapper runs, and none left anything behind", "")
		return
	}
	d.stale(s.Stale)
}

// lookAtRunning tells of a portmapper that runs already.
func (d *doctor) lookAtRunning(ctx context.Context, s instance.Status) {
	d.running = s.Process.PID
	h, err := instance.HolderOf(s.Process.PID, d.config.wildcards()...)
	if d.running == 0 || err != nil {
		d.add(Error, "instance", fmt.Sprintf("a portmapper holds %s that can't be seen from here", d.config.lockPath()),
			"look as root; if root sees nothing either it runs outside this pid namespace: look on the host")
		return
	}
	p := d.config.processOf(h)
	if !p.Gportmap {
		d.add(Error, "instance", fmt.Sprintf("%s is held %s, not by gportmap", d.config.lockPath(), h.Who()), h.Remedy())
		return
	}
	if s.Note != "" {
		d.add(Warning, "instance", fmt.Sprintf("gportmap runs (pid %d); %s", p.PID, s.Note), "gportmap takeover")
	}
	if r, err := AskStatus(ctx, d.config); err == nil {
		d.serves = r.Listeners
	}
	if _, err := d.config.ask(ctx); err != nil {
		d.add(Error, "instance", fmt.Sprintf("gportmap runs (pid %d) and gives no answer: %v", p.PID, err), d.config.restartCommand(p))
		return
	}
	if p.Replaced {
		d.add(Warning, "instance", fmt.Sprintf("gportmap runs (pid %d) a program whose file was replaced since", p.PID), d.config.restartCommand(p))
	}
	d.add(Note, "instance", fmt.Sprintf("gportmap runs (pid %d, user %s) and answers", p.PID, p.User), "")
}

// stale tells of files that speak of a portmapper that doesn't run, and removes them if it is to.
func (d *doctor) stale(stale []string) {
	var removed []string
	var failed error
	if d.fix {
		removed, failed = instance.Clear(d.config.paths())
	}
	for _, path := range stale {
		f := Finding{Severity: Warning, Subject: "files", Text: path + " is stale: no portmapper runs",
			Remedy: "gportmap doctor --fix" + d.config.instanceFlags()}
		switch {
		case slices.Contains(removed, path):
			f.Fixed, f.Text = true, f.Text+"; removed"
		case d.fix && errors.Is(failed, fs.ErrPermission):
			f.Text += "; only root may remove it"
		case !regular(path):
			f.Text, f.Remedy = path+" is in the way: it is not a regular file", outOfTheWay(path)
		}
		d.findings = append(d.findings, f)
	}
	if failed != nil && !errors.Is(failed, fs.ErrPermission) && !slices.ContainsFunc(stale, func(path string) bool { return !regular(path) }) {
		d.add(Warning, "files", failed.Error(), pathRemedy(failed))
	}
}

// regular reports whether there is a regular file, or a socket, as a daemon leaves them.
func regular(path string) bool {
	info, err := os.Lstat(path)
	return err != nil || info.Mode().IsRegular() || info.Mode().Type() == fs.ModeSocket
}

// addresses returns what UDP and TCP are to be served on.
func (d *doctor) addresses() []netip.Addr {
	ipv6 := sys.IPv6Available()
	if !ipv6 {
		d.add(Note, "IPv6", "this host has no IPv6: gportmap serves IPv4 only", "")
	}
	addrs, err := addresses(d.config, ipv6)
	if err != nil {
		d.add(Error, "configuration", err.Error(), "")
	}
	return addrs
}

// sockets looks who has what a start binds, the portmapper left out of which was told already.
func (d *doctor) sockets(addrs []netip.Addr) {
	needed := d.config.endpoints(addrs)
	holders, err := instance.Holders(needed...)
	if err != nil {
		d.add(Note, "sockets", "not all that holds ports and sockets could be seen: "+err.Error(), "look as root")
	}
	found := false
	for _, h := range holders {
		switch {
		case d.running != 0 && (h.Process.PID == d.running || d.servedByOurs(h)):
			continue
		case d.heldForUs(h):
			d.add(Note, "sockets", h.String()+"; the service behind it isn't running", "systemctl start gportmap.service")
		case onlyOptional(h):
			d.add(Warning, "sockets", h.String()+"; gportmap serves without it, and clients that try it first ask that process", h.Remedy())
		default:
			d.add(Error, "sockets", h.String(), h.Remedy())
		}
		found = true
	}
	if !found && err == nil && len(holders) == 0 {
		d.add(Note, "sockets", "free: "+endpointNames(needed), "")
	}
}

// servedByOurs reports whether a process that may not be looked into is the gportmap that runs: it serves each of the
// sockets. Root may not look into another user's process without CAP_SYS_PTRACE, as in a container.
func (d *doctor) servedByOurs(h instance.Holder) bool {
	return h.Unseen == instance.Denied && !slices.ContainsFunc(h.Sockets, func(s sys.BoundSocket) bool {
		return !slices.Contains(d.serves, s.String())
	})
}

// heldForUs tells whether systemd holds the sockets for gportmap itself. Which of several units that name them it holds
// them for no file tells: then it is ours if the others aren't enabled.
func (d *doctor) heldForUs(h instance.Holder) bool {
	if !h.Systemd || h.Process.PID != 1 || !slices.Contains(h.SocketUnits, "gportmap.socket") {
		return false
	}
	systemd := initSystems()[0]
	return !slices.ContainsFunc(h.SocketUnits, func(unit string) bool {
		ours, _ := instance.IsOurs(unit)
		return !ours && unit != "gportmap.socket" && len(d.enabled(systemd, strings.TrimSuffix(unit, ".socket"))) > 0
	})
}

func endpointNames(all []instance.Endpoint) string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.String()
	}
	return strings.Join(names, ", ")
}

// files looks at where the lock, the pid file and the local socket are made.
func (d *doctor) files() {
	p := d.config.paths()
	for _, path := range []string{p.Lock, p.Socket} {
		dir := filepath.Dir(path)
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && dir == d.config.stateDir() {
			dir = filepath.Dir(dir) // a start makes it there
			info, err = os.Stat(dir)
		}
		switch {
		case errors.Is(err, fs.ErrPermission):
			d.add(Note, "files", fmt.Sprintf("%s couldn't be seen: %v", path, err), "look as root")
		case err != nil:
			d.add(Error, "files", fmt.Sprintf("%s can't be made: %v", path, err), "mkdir -p "+instance.ShellWord(dir))
		case !info.IsDir() && dir == d.config.stateDir(): // see state
		case !info.IsDir():
			d.add(Error, "files", fmt.Sprintf("%s can't be made: %s is not a directory", path, dir), outOfTheWay(dir)+" && mkdir "+instance.ShellWord(dir))
		case errors.Is(writable(dir), syscall.EROFS):
			d.add(Error, "files", fmt.Sprintf("%s can't be made: the file system of %s is read-only", path, dir), "mount -o remount,rw "+dir+", or choose another --state-dir")
		case writable(dir) != nil:
			d.add(d.unlessRoot(Error), "files", fmt.Sprintf("%s can't be made: this user may not write in %s", path, dir), "start as root, or with a --state-dir of your own")
		}
	}
	if info, err := os.Lstat(p.Socket); err == nil && info.Mode().Type() != fs.ModeSocket {
		d.add(Error, "files", fmt.Sprintf("%s is in the way of the local socket: it is no socket (%v)", p.Socket, info.Mode()), outOfTheWay(p.Socket))
	}
}

// unlessRoot returns the severity of what keeps this user from starting: for the system's instance it is no finding that
// who asks isn't root, who starts it.
func (d *doctor) unlessRoot(s Severity) Severity {
	if d.config.StateDir == "" && os.Geteuid() != 0 {
		return Note
	}
	return s
}

// writable returns why this process can't make files in a directory, nil if it can.
func writable(dir string) error {
	const wOK, xOK = 2, 1 // access(2)
	return syscall.Faccessat(atCWD, dir, wOK|xOK, atEAccess)
}

// For faccessat(2), <fcntl.h>: paths are relative to the working directory, and effective ids count.
const (
	atCWD     = -0x64
	atEAccess = 0x200
)
