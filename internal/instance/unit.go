package instance

import (
	"context"
	"time"
)

// startUnitPatience is more than systemd lets a unit take by default, 90 s.
const startUnitPatience = 100 * time.Second

// UnitLoaded tells whether systemd knows a unit of that name.
func UnitLoaded(ctx context.Context, unit string) bool {
	properties, err := unitProperties(ctx, unit)
	return err == nil && properties["LoadState"] == "loaded"
}

// StartUnit starts a unit of systemd's and returns when systemd takes it for started. The error has what systemctl said.
func StartUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, startUnitPatience)
	defer cancel()
	_, err := systemctl(ctx, "start", "--", unit)
	return err
}

// StopUnit stops a unit of systemd's.
func StopUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, unitPatience)
	defer cancel()
	_, err := systemctl(ctx, "stop", "--", unit)
	return err
}

// IsUnit tells whether the portmapper is that unit of systemd's.
func (p *Predecessor) IsUnit(unit string) bool { return p.service == unit }
