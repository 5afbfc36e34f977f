package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

const checkConfigUsage = "check-config [FILE] [the daemon's flags]"

// checkConfig tells whether a daemon would start with a configuration file and flags, as far as they go, and what in
// hosts.allow and hosts.deny is not honoured. It changes nothing and returns the exit code.
func checkConfig(name string, args []string, stdout, stderr io.Writer) int {
	rest := args[1:]
	if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		rest = append([]string{"--config", rest[0]}, rest[1:]...)
	}
	o, err := parse(rest)
	switch {
	case err != nil:
		fail(stderr, name, fmt.Errorf("%s: %w", args[0], err))
		return daemon.ExitUsage
	case o.help:
		return print(stdout, fmt.Sprintf("Usage: %s %s\n", name, checkConfigUsage))
	case o.version:
		return print(stdout, versionText())
	}
	err = o.fileError
	var warnings []string
	if err == nil {
		warnings, err = daemon.Check(o.Config)
	}
	if err != nil {
		fail(stderr, name, err)
		return daemon.ExitCode(err)
	}
	var b strings.Builder
	for _, w := range warnings {
		b.WriteString(logging.Escape("warning: "+w) + "\n")
	}
	if o.file == "" {
		b.WriteString("ok; there is no configuration file\n")
	} else {
		b.WriteString(logging.Escape(o.file) + ": ok\n")
	}
	return print(stdout, b.String())
}
