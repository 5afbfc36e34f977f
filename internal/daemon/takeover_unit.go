package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/syslog"
	"os"
	"slices"
	"time"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

// Unit is the name of our unit of systemd's that nobody else has: an alias of rpcbind.service, where that is ours.
const Unit = "gportmap.service"

// socketUnits are those of its sockets, under such names.
var socketUnits = []string{"gportmap.socket"}

// UnitInstalled tells whether systemd manages this system and has our unit. A unit that is masked, or that systemd can't
// read, is an error: without it the daemon would be served outside of any unit, which whoever masked it didn't want.
func UnitInstalled(ctx context.Context) (bool, error) {
	booted, err := instance.Booted()
	switch {
	case err != nil:
		return false, byCause(ExitSystem, err)
	case !booted:
		return false, nil
	}
	state, err := instance.LoadState(ctx, Unit)
	switch {
	case ctx.Err() != nil:
		return false, WithExitCode(ExitSystem, errors.New("told to end; nothing was changed"))
	case err != nil:
		return false, byCause(ExitSystem, fmt.Errorf("%w; nothing was changed; a daemon outside the unit takes over with --takeover", err))
	case state == "loaded" || state == "not-found":
		return state == "loaded", nil
	}
	return false, WithExitCode(ExitConfig, fmt.Errorf("systemd says that %s is %s; nothing was changed; mend or unmask it, or take over outside of the unit with --takeover", Unit, state))
}

// TakeOverByUnit stops the portmapper that runs and starts our unit in its place, which finds every registration in its
// state directory, that of a Config without StateDir. It returns when that one answers, with a sentence that tells how it
// went. If that fails the other portmapper is put back. With enable our unit takes its place at the next boot, too, and has
// its name.
func TakeOverByUnit(ctx context.Context, c Config, enable bool) (string, error) {
	c, err := c.complete()
	if err != nil {
		return "", err
	}
	_, statErr := os.Stat(c.stateDir()) // findPredecessor makes it
	t, err := findPredecessor(ctx, c)
	if errors.Is(err, instance.ErrNoPredecessor) {
		if err := instance.StartUnits(ctx, Unit); err != nil {
			return "", WithExitCode(ExitSystem, err)
		}
		return "no portmapper was running; " + Unit + " is started", nil
	}
	if err != nil {
		return "", unchanged(err)
	}
	t.stateless = errors.Is(statErr, fs.ErrNotExist)
	if err := t.toUnit(ctx, enable); err != nil {
		return "", t.settle(err)
	}
	text := t.describe(time.Since(t.ordered))
	err = t.settle(nil)
	if err == nil {
		// As if the unit had said it, so that journalctl -u shows who did what. Without a journal the command's answer does.
		sys.SendJournal(text, int(syslog.LOG_INFO), map[string]string{"OBJECT_SYSTEMD_UNIT": t.unit, "SYSLOG_IDENTIFIER": "gportmap"})
	}
	return text, err
}

// toUnit is the change itself.
func (t *takeover) toUnit(ctx context.Context, enable bool) error {
	var err error
	t.unit, err = instance.UnitName(ctx, Unit)
	switch {
	case err != nil:
		return fmt.Errorf("takeover: %w", err)
	case t.from.IsUnit(t.unit) && t.from.IsGportmap() && !t.stateless:
		return WithExitCode(ExitRunning, fmt.Errorf("takeover: gportmap serves already, as %s", t.unit))
	}
	if err := t.findSocketUnits(ctx); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	if err := t.replace(ctx); err != nil {
		return err
	}
	regs, ok := t.written()
	if !ok {
		t.writeState()
		regs = t.valid()
	}
	t.journaled = true
	t.restored = countOthers(regs)
	if enable {
		// While neither runs: of two units that become one by an alias, systemd forgets the state of one.
		if err := instance.EnableUnits(ctx, append([]string{Unit}, socketUnits...)...); err != nil {
			t.config.Log.Warn("takeover: not enabled, so the next boot starts what it did before", "err", err)
		}
	}
	err = t.startSocketUnits(ctx)
	if err == nil {
		withdraw := t.offerConnections()
		err = instance.ReplaceUnits(ctx, Unit)
		withdraw()
	}
	if err != nil {
		err = fmt.Errorf("takeover: %w", err)
		if stopErr := instance.StopUnits(context.WithoutCancel(ctx), append(t.ownSockets, Unit)...); stopErr != nil {
			err = fmt.Errorf("%w; %w", err, stopErr)
		}
		return err
	}
	t.serving = true
	return nil
}

// findSocketUnits finds out which units of sockets there are to start. One that is masked isn't wanted.
func (t *takeover) findSocketUnits(ctx context.Context) error {
	for _, unit := range socketUnits {
		state, err := instance.LoadState(ctx, unit)
		if err != nil {
			return err
		}
		if state == "loaded" {
			t.ownSockets = append(t.ownSockets, unit)
		}
	}
	return nil
}

// startSocketUnits has systemd bind our unit's sockets while those of the other portmapper, which has ended, are still there:
// a port that nobody has would refuse calls. Where that can't be, they are bound when those are gone.
func (t *takeover) startSocketUnits(ctx context.Context) error {
	// A local socket can't be shared; who finds nobody there tries TCP.
	t.copies = slices.DeleteFunc(t.copies, func(s *sys.CopiedSocket) bool {
		if s.Netid == "local" {
			s.Close()
			return true
		}
		err := s.Share()
		if err != nil {
			t.config.Log.Debug("takeover: a socket can't be shared", "err", err)
			s.Close()
		}
		return err != nil
	})
	if len(t.ownSockets) == 0 {
		t.closeCopies() // the service binds its own
		return nil
	}
	defer t.startAbstractUnit(ctx)
	if len(t.copies) > 0 && instance.ReplaceUnits(ctx, t.ownSockets...) == nil {
		t.shared = sys.MigrateConnections(t.closeCopies) == nil
		return nil
	}
	t.closeCopies()
	return instance.ReplaceUnits(ctx, t.ownSockets...)
}

// startAbstractUnit has systemd bind the abstract name, which any user may have instead: then the takeover goes on without it.
func (t *takeover) startAbstractUnit(ctx context.Context) {
	const unit = "gportmap-abstract.socket"
	if err := instance.ReplaceUnits(ctx, unit); err != nil {
		t.config.Log.Warn("takeover: the abstract socket isn't served; gportmap status tells who has it", "err", err)
		return
	}
	t.ownSockets = append(t.ownSockets, unit)
}
