package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

// A control is a command about the instance that a daemon with the same flags would be. It takes the daemon's flags, so
// that a script can give it the very options that it starts the daemon with.
type control struct {
	usage string
	flags func(*pflag.FlagSet, *controlFlags) // its own; nil for none
	run   func(ctx context.Context, o options, f controlFlags, stdout io.Writer) (code int, err error)
}

// controlFlags are those that the daemon doesn't have.
type controlFlags struct {
	json, fix bool
	interval  time.Duration
	count     int
}

func controls() map[string]control {
	jsonFlag := func(f *pflag.FlagSet, c *controlFlags) { f.BoolVar(&c.json, "json", false, "") }
	return map[string]control{
		"status": {"status [--json]", jsonFlag, status},
		"doctor": {"doctor [--fix] [--json]", func(f *pflag.FlagSet, c *controlFlags) {
			jsonFlag(f, c)
			f.BoolVar(&c.fix, "fix", false, "")
		}, doctor},
		"watch": {"watch [--interval TIME] [--count N] [--json]", func(f *pflag.FlagSet, c *controlFlags) {
			jsonFlag(f, c)
			f.DurationVar(&c.interval, "interval", time.Second, "")
			f.IntVar(&c.count, "count", 0, "")
		}, watch},
		"stop":   {"stop", nil, stop},
		"reload": {"reload", nil, reload},
	}
}

// control runs the command and returns the exit code.
func (c control) control(name string, args []string, stdout, stderr io.Writer) int {
	var own controlFlags
	o, err := parse(args[1:], func(f *pflag.FlagSet) {
		if c.flags != nil {
			c.flags(f, &own)
		}
	})
	switch {
	case err != nil:
		fail(stderr, name, fmt.Errorf("%s: %w", args[0], err))
		return daemon.ExitUsage
	case o.help:
		return print(stdout, fmt.Sprintf("Usage: %s %s [the daemon's flags]\n", name, c.usage))
	case o.version:
		return print(stdout, versionText())
	}
	code, err := c.run(context.Background(), o, own, stdout)
	if err != nil {
		fail(stderr, name, err)
	}
	return code
}

// status prints how the instance is and returns LSB's exit code for that.
func status(ctx context.Context, o options, f controlFlags, stdout io.Writer) (int, error) {
	s, err := daemon.Look(ctx, o.Config)
	if err != nil {
		return daemon.StatusUnknown, err
	}
	if p := s.Process; p != nil && p.Gportmap && p.Same {
		p.Version = versionName()
	}
	if f.json {
		return s.ExitCode, printJSON(stdout, s)
	}
	_, err = io.WriteString(stdout, statusText(s))
	return s.ExitCode, err
}

// statusText tells a status, the first line for whom one is enough.
func statusText(s daemon.Status) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(logging.Escape(fmt.Sprintf(format, args...)) + "\n")
	}
	removed := ""
	if len(s.Removed) > 0 {
		removed = fmt.Sprintf(" (stale lock removed: %s)", strings.Join(s.Removed, ", "))
	}
	who := ""
	if s.Process != nil {
		who = " " + processText(*s.Process)
	}
	switch s.State {
	case daemon.StateOther:
		line("%s%s is serving, not gportmap%s", s.Process.Command, who, removed)
	case daemon.StateDeadPIDFile, daemon.StateDeadLock:
		line("stopped%s; stale, and this user may not remove it: %s", removed, strings.Join(s.Stale, ", "))
	default:
		line("%s%s%s", s.State, who, removed)
	}
	if s.Report != nil {
		line("health: %s", health(s.Report.Status))
	}
	if len(s.Serves) > 0 {
		line("serves: %s", strings.Join(s.Serves, ", "))
	}
	if s.Registrations != nil {
		line("registrations: %d", *s.Registrations)
	}
	if s.Saved != nil && s.Saved.Missing == 0 {
		line("state: all in %s, written %s", s.Saved.File, s.Saved.Written.Format(time.DateTime))
	} else if s.Saved != nil {
		line("state: %d registrations are not in %s, written %s", s.Saved.Missing, s.Saved.File, s.Saved.Written.Format(time.DateTime))
	}
	for _, n := range s.Notes {
		line("note: %s", n)
	}
	if s.Remedy != "" {
		line("remedy: %s", s.Remedy)
	}
	if s.Report != nil {
		b.WriteString(table(s.Report.Table, s.Report.Now))
	}
	return b.String()
}

func processText(p daemon.Process) string {
	parts := []string{fmt.Sprintf("pid %d", p.PID), "user " + p.User}
	if p.Unit != "" {
		parts = append(parts, "unit "+p.Unit)
	}
	parts = append(parts, "since "+p.Since.Format(time.DateTime))
	if p.Version != "" {
		parts = append(parts, "version "+p.Version)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func printJSON(stdout io.Writer, v any) error {
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// stop ends the daemon. One that doesn't run is stopped.
func stop(ctx context.Context, o options, _ controlFlags, stdout io.Writer) (int, error) {
	err := daemon.Stop(ctx, o.Config)
	if errors.Is(err, daemon.ErrNotRunning) {
		_, err = fmt.Fprintln(stdout, logging.Escape(err.Error()))
	}
	return daemon.ExitCode(err), err
}

// exitNotRunning is LSB's exit code of an action for which the service would have to run.
const exitNotRunning = 7

// reload has the daemon read its configuration, and says what of it takes a restart.
func reload(ctx context.Context, o options, _ controlFlags, stdout io.Writer) (int, error) {
	restart, err := daemon.Reload(ctx, o.Config)
	if errors.Is(err, daemon.ErrNotRunning) {
		return exitNotRunning, err
	}
	if len(restart) > 0 {
		_, err = fmt.Fprintf(stdout, "reloaded; these settings take a restart: %s\n", strings.Join(restart, ", "))
	}
	return daemon.ExitCode(err), err
}
