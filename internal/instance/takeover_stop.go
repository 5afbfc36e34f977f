package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// How long the end of a portmapper may take: after SIGTERM, and by systemd, which by default sends SIGKILL after 90 s.
const (
	endPatience  = 10 * time.Second
	unitPatience = 100 * time.Second
)

// ErrStillRunning says that the portmapper has not ended although it was told to.
var ErrStillRunning = errors.New("it has not ended")

// Units are the units of systemd's that are stopped in place of the process, sockets first; none if there are none.
func (p *Predecessor) Units() []string {
	units := slices.Clone(p.sockets)
	if p.service != "" {
		units = append(units, p.service)
	}
	return units
}

// findUnits finds out what systemd has to stop: the unit whose process it is, because systemd would start it again, and
// the units of sockets, which systemd holds itself. A process that somebody started by hand is also in some unit, such as
// that of the ssh server: only the unit's main process stands for the unit.
func (p *Predecessor) findUnits(ctx context.Context) error {
	switch booted, err := Booted(); {
	case err != nil:
		return err
	case !booted && p.Systemd:
		return fmt.Errorf("systemd holds the sockets of %s, but can't be asked: %s isn't here", p.Name(), bootedPath)
	case !booted:
		return nil
	}
	p.sockets = p.SocketUnits
	// Systemd is asked whether the unit is this process, so anybody may have chosen the name.
	origin := parseOrigin(p.Process.Cgroups)
	unit := origin.Unit
	own := parseOrigin(readOwnCgroups()).Unit
	if origin.User == "" && strings.HasSuffix(unit, ".service") && unit != own {
		properties, err := unitProperties(ctx, unit)
		if err != nil {
			return fmt.Errorf("%s is of unit %s, which can't be asked about: %w", p.Name(), printable(unit), err)
		}
		main := properties["MainPID"]
		// The units that systemd makes of init scripts have no main process.
		if main == strconv.Itoa(p.Process.PID) || main == "0" && isPortmapperName(strings.TrimSuffix(unit, ".service")) {
			p.service = unit
			// A package that was removed leaves nothing to read of the units that systemd still has.
			if own := strings.TrimSuffix(unit, ".service") + ".socket"; !slices.Contains(p.sockets, own) {
				p.sockets = append(slices.Clone(p.sockets), own)
			}
			for _, socket := range strings.Fields(properties["TriggeredBy"]) {
				if strings.HasSuffix(socket, ".socket") && !slices.Contains(p.sockets, socket) {
					p.sockets = append(slices.Clone(p.sockets), socket)
				}
			}
		}
	}
	var active []string
	for _, socket := range p.sockets {
		properties, err := unitProperties(ctx, socket)
		if err != nil {
			return fmt.Errorf("systemd may hold the sockets of %s for %s, which can't be asked about: %w", p.Name(), socket, err)
		}
		if properties["ActiveState"] == "active" {
			active = append(active, socket)
		}
	}
	p.sockets = active
	if p.Systemd && len(p.sockets) == 0 {
		return fmt.Errorf("systemd holds the sockets of %s for a unit that can't be told: look with systemctl list-sockets and stop it", p.Name())
	}
	return nil
}

// unitProperties asks systemd about a unit.
func unitProperties(ctx context.Context, unit string) (map[string]string, error) {
	out, err := systemctl(ctx, "show", "--property=MainPID", "--property=TriggeredBy", "--property=ActiveState", "--property=Id",
		"--property=LoadState", "--", unit)
	if err != nil {
		return nil, err
	}
	properties := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		properties[name] = value
	}
	return properties, nil
}

// systemctl runs it and returns its output. The error has what it said.
func systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--no-pager", "--no-ask-password"}, args...)...)
	cmd.WaitDelay = time.Second
	// ^C on the terminal is for us: what a signal ends is decided in one place, by ctx.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && len(exit.Stderr) > 0:
		err = fmt.Errorf("systemctl %s: %w: %s", args[0], err, printable(strings.Join(strings.Fields(string(exit.Stderr)), " ")))
	case err != nil:
		err = fmt.Errorf("systemctl %s: %w", args[0], err)
	}
	return string(out), err
}

// stopUnits stops units and nothing else: what requires them, as NFS's services do, would be stopped as well, although it
// is served on.
func stopUnits(ctx context.Context, units ...string) error {
	_, err := systemctl(ctx, append([]string{"stop", "--job-mode=ignore-dependencies", "--"}, units...)...)
	return err
}

// ReleaseUnits lets systemd give up its hold on the sockets, which the portmapper still serves then. Without such units it
// does nothing.
func (p *Predecessor) ReleaseUnits(ctx context.Context) error {
	if len(p.sockets) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, unitPatience)
	defer cancel()
	p.released = true // also if it fails: part of it may be done
	return stopUnits(ctx, p.sockets...)
}

// CopySockets copies the sockets of the portmapper, so that no call is refused from its end until they are served, if it
// alone has them. Otherwise, and where the kernel doesn't let us, the error says why, and there is nothing to do but to bind
// new ones.
func (p *Predecessor) CopySockets() ([]*sys.CopiedSocket, error) {
	holders, err := Holders(p.endpoints...)
	if err != nil {
		return nil, err
	}
	for _, h := range holders {
		if h.Process.PID == p.Process.PID && h.Process.StartTicks == p.Process.StartTicks && h.More == 0 && !h.Systemd {
			return p.handle.CopySockets(h.Sockets)
		}
	}
	return nil, errors.New("the portmapper isn't the only one that has its sockets")
}

// CopyConnections copies the connections that the portmapper has accepted on its local sockets, at most that many, root's first;
// see [sys.ProcessHandle.CopyConnections].
func (p *Predecessor) CopyConnections(most int) ([]*sys.Connection, error) {
	var names []string
	for _, s := range p.Sockets {
		if s.Netid == "local" && s.Serving {
			names = append(names, s.Path)
		}
	}
	if names == nil {
		return nil, nil
	}
	return p.handle.CopyConnections(names, most)
}

// Stop ends the portmapper, by systemd if it is a unit, else by SIGTERM, and returns when it has ended. It never sends
// SIGKILL; systemd may, for a unit that takes too long. For one that stays errors.Is(err, [ErrStillRunning]) holds. Nothing
// interrupts it: the portmapper ends in any case once it was told to, and the caller must know whether it has.
func (p *Predecessor) Stop() error {
	p.ordered = true
	err := p.stopProcess
	if p.service != "" {
		err = p.stopService
	}
	if err := err(); err != nil {
		return fmt.Errorf("stop %s: %w", p.Name(), err)
	}
	p.removeLock()
	return nil
}

func (p *Predecessor) stopProcess() error {
	if err := p.handle.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	limit, cancel := context.WithTimeout(context.Background(), endPatience)
	defer cancel()
	if err := p.handle.Wait(limit); err != nil {
		return fmt.Errorf("%w within %v of SIGTERM; see what it waits for, or kill -9 %d", ErrStillRunning, endPatience, p.Process.PID)
	}
	return nil
}

// stopService waits for the end of the process, not for that of systemctl, which comes later.
func (p *Predecessor) stopService() error {
	limit, cancel := context.WithTimeout(context.Background(), unitPatience)
	defer cancel()
	stopped, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// It goes on when the process has ended, until systemd has taken note.
		ctx, cancel := context.WithTimeout(context.Background(), unitPatience)
		defer cancel()
		stopped <- stopUnits(ctx, p.service)
	}()
	go func() { ended <- p.handle.Wait(limit) }()
	var failed error
	select {
	case err := <-ended:
		if err == nil {
			return nil
		}
	case failed = <-stopped:
		// What systemd says of the end the kernel says at once. Systemd may have begun what systemctl says has failed.
		time.AfterFunc(endPatience, cancel)
		if <-ended == nil {
			return nil
		}
	}
	if failed != nil {
		return fmt.Errorf("%w: %w", ErrStillRunning, failed)
	}
	return fmt.Errorf("%w within %v of systemctl stop", ErrStillRunning, unitPatience)
}

// removeLock removes the lock file of the portmapper that has ended. Everybody may open rpcbind's, and who has locked it
// would keep the next portmapper from starting, this one or that one again.
func (p *Predecessor) removeLock() {
	if now, err := os.Lstat(p.lockPath); err == nil && p.lockFile != nil && os.SameFile(now, p.lockFile) {
		_ = os.Remove(p.lockPath)
	}
}

// deletedMark is what the kernel writes behind the path of a program file that was replaced or removed.
const deletedMark = " (deleted)"
