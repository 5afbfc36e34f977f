// Rpcinfo asks portmappers and RPC services what they have and whether they answer: a drop-in for the rpcinfo(8) that
// comes with rpcbind, with the same options, output and exit codes, and more; see --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Exit codes, those of rpcinfo(8): there are no others.
const (
	exitOK     = 0
	exitFailed = 1
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, newWorld())
	stop()
	os.Exit(code)
}

// world is what a run sees of the machine: tests have their own.
type world struct {
	stdout, stderr io.Writer
	terminal       bool // stderr is one
	getenv         func(string) string
	rpcFile        string // names of programs
	netconfigFile  string // transports
	socket         string // of this host's portmapper
	port           uint16 // of portmappers
}

func newWorld() world {
	return world{
		stdout: os.Stdout, stderr: os.Stderr, terminal: isTerminal(os.Stderr), getenv: os.Getenv,
		rpcFile: "/etc/rpc", netconfigFile: "/etc/netconfig", socket: socketPath, port: portmapperPort,
	}
}

// isTerminal tells whether a person may be reading. The null device is none.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// Errors that aren't the text of a line.
var (
	errUsage  = errors.New("usage")  // print the usage
	errFailed = errors.New("failed") // everything is said; exit with 1
)

// run does what the arguments say and returns the exit code.
func run(ctx context.Context, argv []string, w world) int {
	name := "rpcinfo"
	if len(argv) > 0 {
		name = argv[0]
	}
	o, err := parse(name, argv[min(1, len(argv)):], w)
	if err == nil {
		err = start(ctx, filepath.Base(name), o, w)
	}
	return report(err, w.stderr)
}

// report prints an error and returns the exit code.
func report(err error, stderr io.Writer) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		_, _ = io.WriteString(stderr, usageText)
	case errors.Is(err, errFailed):
	default:
		fmt.Fprintf(stderr, "%s\n", printable(err.Error()))
	}
	return exitFailed
}
