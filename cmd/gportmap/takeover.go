package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

const takeoverUsage = "takeover [--enable | the daemon's flags]"

// takeOver is the command takeover: the flag --takeover for a daemon in the background or, where gportmap is a unit of
// systemd's, the same for that. It returns the exit code.
func takeOver(name string, args []string, stdout, stderr io.Writer) int {
	var enable bool
	o, err := parse(args[1:], func(f *pflag.FlagSet) { f.BoolVar(&enable, "enable", false, "") })
	switch {
	case err != nil:
		fail(stderr, name, fmt.Errorf("%s: %w", args[0], err))
		return daemon.ExitUsage
	case o.help:
		return print(stdout, fmt.Sprintf("Usage: %s %s\n", name, takeoverUsage))
	case o.version:
		return print(stdout, versionText())
	}
	ctx, _, release := handleSignals()
	installed, err := daemon.UnitInstalled(ctx)
	if err != nil {
		release()
		fail(stderr, name, fmt.Errorf("takeover: %w", err))
		return daemon.ExitCode(err)
	}
	if !installed {
		release()
		if enable {
			fail(stderr, name, fmt.Errorf("takeover: --enable needs %s, which isn't installed or not under systemd", daemon.Unit))
			return daemon.ExitUsage
		}
		o.Takeover = true
		return serve(name, o, stderr)
	}
	defer release()
	if len(args) > 2 || len(args) == 2 && !enable {
		fail(stderr, name, fmt.Errorf("takeover: %s is installed and has flags of its own: give none here, or use %s --takeover with flags", daemon.Unit, name))
		return daemon.ExitUsage
	}
	handler := logging.New(logging.Stderr(os.Stderr, name), slog.LevelWarn)
	defer handler.Close()
	o.Log = slog.New(handler)
	text, err := daemon.TakeOverByUnit(ctx, o.Config, enable)
	if err != nil {
		fail(stderr, name, err)
		return daemon.ExitCode(err)
	}
	return print(stdout, logging.Escape(text)+"\n")
}

// daemonArgs returns the command line of the daemon that a command line starts.
func daemonArgs() []string {
	args := slices.Clone(os.Args)
	if len(args) > 1 && args[1] == "takeover" {
		args[1] = "--takeover"
	}
	return args
}

// tellTakeover returns the function that tells how a takeover went whoever started a daemon in the background.
func tellTakeover(name string, stderr io.Writer) func(string) {
	return func(text string) {
		fmt.Fprintf(stderr, "%s: %s\n", logging.Escape(name), logging.Escape(text))
	}
}
