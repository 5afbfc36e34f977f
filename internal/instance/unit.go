package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// startUnitPatience is more than systemd lets a unit take by default, 90 s.
const startUnitPatience = 100 * time.Second

// bootedPath is there if systemd manages the system, see sd_booted(3).
const bootedPath = "/run/systemd/system"

// Booted tells whether systemd manages the system.
func Booted() (bool, error) {
	info, err := os.Lstat(bootedPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("whether systemd manages this system can't be told: %w", err)
	}
	return info.IsDir(), nil
}

// LoadState returns what systemd says of a unit's files: "loaded", "not-found", "masked" or what is wrong with them
// (systemd(1), org.freedesktop.systemd1(5)).
func LoadState(ctx context.Context, unit string) (string, error) {
	properties, err := unitProperties(ctx, unit)
	if err == nil && properties["LoadState"] == "" {
		err = errors.New("systemctl show says nothing of it")
	}
	if err != nil {
		return "", fmt.Errorf("whether %s is installed can't be told: %w", unit, err)
	}
	return properties["LoadState"], nil
}

// StartUnits starts units of systemd's and returns when systemd takes them for started. The error has what systemctl said.
func StartUnits(ctx context.Context, units ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startUnitPatience)
	defer cancel()
	_, err := systemctl(ctx, append([]string{"start", "--"}, units...)...)
	return err
}

// ReplaceUnits is StartUnits for units in the place of others that have ended, without what they say of each other: systemd
// would stop those others once more, and with them what requires them.
func ReplaceUnits(ctx context.Context, units ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startUnitPatience)
	defer cancel()
	_, err := systemctl(ctx, append([]string{"start", "--job-mode=ignore-dependencies", "--"}, units...)...)
	return err
}

// UnitName returns the name of a unit that has aliases.
func UnitName(ctx context.Context, unit string) (string, error) {
	properties, err := unitProperties(ctx, unit)
	if err != nil {
		return "", err
	}
	return properties["Id"], nil
}

// EnableUnits has systemd start units at boot.
func EnableUnits(ctx context.Context, units ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startUnitPatience)
	defer cancel()
	_, err := systemctl(ctx, append([]string{"enable", "--quiet", "--"}, units...)...)
	return err
}

// StopUnits stops units of systemd's.
func StopUnits(ctx context.Context, units ...string) error {
	ctx, cancel := context.WithTimeout(ctx, unitPatience)
	defer cancel()
	_, err := systemctl(ctx, append([]string{"stop", "--"}, units...)...)
	return err
}

// StartedAtBoot returns those of Units that systemd starts again: not those that are ours by now, as when a package of ours takes
// the place of the portmapper's, nor those that are no more.
func (p *Predecessor) StartedAtBoot() []string {
	return slices.DeleteFunc(p.Units(), func(unit string) bool {
		ours, there := IsOurs(unit)
		return ours || !there
	})
}

// IsOurs reports whether systemd reads a unit of that name, and whether it is one of ours: each names the program or its manual.
func IsOurs(unit string) (ours, there bool) {
	for _, dir := range unitDirectories() {
		if b, err := os.ReadFile(filepath.Join(dir, unit)); err == nil {
			return bytes.Contains(b, []byte("gportmap")), true
		}
	}
	return false, false
}

// IsGportmap tells whether the portmapper is a gportmap.
func (p *Predecessor) IsGportmap() bool {
	return filepath.Base(strings.TrimSuffix(p.Process.Program, deletedMark)) == "gportmap"
}

// IsUnit tells whether the portmapper is that unit of systemd's.
func (p *Predecessor) IsUnit(unit string) bool { return p.service == unit }
