// Rpcinfo asks portmappers and RPC services what they have and whether they answer: a drop-in for the rpcinfo(8) that
// comes with rpcbind, with the same options, output and exit codes, and more; see --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/term"
)

// Exit codes, those of rpcinfo(8): there are no others.
const (
	exitOK     = 0
	exitFailed = 1
)

func main() {
	os.Exit(run(context.Background(), os.Args, newWorld()))
}

// world is what a run sees of the machine: tests have their own.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	terminal       bool // stderr is one
	columns        func() int
	getenv         func(string) string
	rpcFile        string // names of programs
	netconfigFile  string // transports
	socket         string // of this host's portmapper
	port           uint16 // of portmappers
}

func newWorld() world {
	return world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), getenv: os.Getenv,
		columns: func() int {
			columns, _, _ := term.GetSize(int(os.Stderr.Fd()))
			return columns
		},
		rpcFile: "/etc/rpc", netconfigFile: "/etc/netconfig", socket: socketPath, port: portmapperPort,
	}
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
	return report(err, w)
}

// report prints an error and returns the exit code.
func report(err error, w world) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		_, _ = io.WriteString(w.stderr, usageText)
	case errors.Is(err, errFailed):
	default:
		fmt.Fprintf(w.stderr, "%s\n", printable(err.Error()))
		if hint := hintOf(err); hint != "" && w.terminal {
			fmt.Fprintf(w.stderr, "(%s)\n", printable(hint))
		}
	}
	return exitFailed
}
