// Gportmap maps RPC program numbers to addresses: a portmapper (RFC 1833) that takes the place of rpcbind(8).
//
// Without a command it is the daemon and takes rpcbind's flags; see --help. Its commands ask and change a running
// portmapper.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

// version is what the linker was told (-X main.version=), empty for a build by go build or go install alone.
var version string

func main() {
	if err := daemon.CheckRuntime(); err != nil { // before the first timer and the first file
		fmt.Fprintln(os.Stderr, "gportmap:", err)
		os.Exit(daemon.ExitSystem)
	}
	name := "gportmap"
	if len(os.Args) > 0 {
		name = filepath.Base(os.Args[0])
	}
	os.Exit(run(name, os.Args[min(1, len(os.Args)):], os.Stdout, os.Stderr))
}

// run does what the arguments say and returns the exit code.
func run(name string, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "takeover":
			return takeOver(name, args, stdout, stderr)
		case "check-config":
			return checkConfig(name, args, stdout, stderr)
		case "explain":
			return explain(name, args, stdout, stderr)
		case "help":
			return print(stdout, manual(name))
		}
		if c, ok := controls()[args[0]]; ok {
			return c.control(name, args, stdout, stderr)
		}
		return operate(name, args, stdout, stderr)
	}
	o, err := parse(args)
	switch {
	case err != nil:
		fail(stderr, name, err)
		return daemon.ExitUsage
	case o.help:
		return print(stdout, help(name))
	case o.version:
		return print(stdout, versionText())
	}
	return serve(name, o, stderr)
}

// fail prints an error in one line that can't drive a terminal.
func fail(stderr io.Writer, name string, err error) {
	fmt.Fprintf(stderr, "%s: %s\n", logging.Escape(name), logging.Escape(err.Error()))
}

// print prints text and returns the exit code for that.
func print(stdout io.Writer, text string) int {
	if _, err := io.WriteString(stdout, text); err != nil {
		return daemon.ExitSystem
	}
	return daemon.ExitOK
}

// versionText tells the version, the commit and what is built in.
func versionText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "gportmap %s\n", versionName())
	if c := daemon.Commit(); c != "" {
		fmt.Fprintf(&b, "commit %s\n", c)
	}
	fmt.Fprintf(&b, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			fmt.Fprintf(&b, "%s %s\n", d.Path, d.Version)
		}
	}
	return b.String()
}

// versionName returns the version that the binary was built from.
func versionName() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(unknown version)"
}
