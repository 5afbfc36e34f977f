package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gportmap/gportmap/internal/instance"
)

// Unit is the name of our unit of systemd's.
const Unit = "gportmap.service"

// booted is there if systemd manages the system, see sd_booted(3).
const booted = "/run/systemd/system"

// UnitInstalled tells whether systemd manages this system and knows our unit.
func UnitInstalled(ctx context.Context) bool {
	if info, err := os.Lstat(booted); err != nil || !info.IsDir() {
		return false
	}
	return instance.UnitLoaded(ctx, Unit)
}

// TakeOverByUnit stops the portmapper that runs and starts our unit in its place, which finds every registration in its
// state directory, that of a Config without StateDir. It returns when that one answers, with a sentence that tells how it
// went. If that fails the other portmapper is put back.
func TakeOverByUnit(ctx context.Context, c Config) (string, error) {
	c, err := c.complete()
	if err != nil {
		return "", err
	}
	t, err := findPredecessor(ctx, c)
	if errors.Is(err, instance.ErrNoPredecessor) {
		if err := instance.StartUnit(ctx, Unit); err != nil {
			return "", WithExitCode(ExitSystem, err)
		}
		return "no portmapper was running; " + Unit + " is started", nil
	}
	if err != nil {
		return "", unchanged(err)
	}
	if err := t.toUnit(ctx); err != nil {
		return "", t.settle(err)
	}
	return t.describe(time.Since(t.ordered)), t.settle(nil)
}

// toUnit is the change itself.
func (t *takeover) toUnit(ctx context.Context) error {
	if t.from.IsUnit(Unit) {
		return WithExitCode(ExitRunning, fmt.Errorf("takeover: %s is what serves", Unit))
	}
	if err := t.replace(ctx); err != nil {
		return err
	}
	// These would stand in the way of those that the unit binds.
	t.closeCopies()
	regs, ok := t.written()
	if !ok {
		t.writeState()
		regs = t.valid()
	}
	t.journaled = true
	t.restored = countOthers(regs)
	if err := instance.StartUnit(ctx, Unit); err != nil {
		err = fmt.Errorf("takeover: %w", err)
		if stopErr := instance.StopUnit(context.WithoutCancel(ctx), Unit); stopErr != nil {
			err = fmt.Errorf("%w; %w", err, stopErr)
		}
		return err
	}
	t.serving = true
	return nil
}
