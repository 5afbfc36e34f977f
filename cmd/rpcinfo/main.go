// Rpcinfo asks portmappers and RPC services what they have and whether they answer: a drop-in for the rpcinfo(8) that
// comes with rpcbind, with the same options, output and exit codes, and more; see --help.
package main

import (
	"bufio"
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
	buffered       bool // stdout is no terminal
	terminal       bool // stderr is one
	columns        func() int
	lookupEnv      func(string) (string, bool)
	rpcFile        string // names of programs
	netconfigFile  string // transports
	socket         string // of this host's portmapper
	port           uint16 // of portmappers
}

func newWorld() world {
	return world{
		buffered: !term.IsTerminal(int(os.Stdout.Fd())),
		stdin:    os.Stdin, stdout: os.Stdout, stderr: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), lookupEnv: os.LookupEnv,
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
	if err != nil {
		return report(err, w)
	}
	flush := w.buffer(o)
	code := report(start(ctx, filepath.Base(name), o, w), w)
	if err := flush(); err != nil {
		return report(fmt.Errorf("rpcinfo: %w", err), w)
	}
	return code
}

// stdoutBuffer is the size in octets of the buffer that stdio(3) gives a standard output that is no terminal.
const stdoutBuffer = 4096

// buffer makes standard output one as stdio(3) does it: then what goes wrong stands before the output where both go to the same
// file. What takes its time is written when it is there.
func (w *world) buffer(o *options) (flush func() error) {
	if !w.buffered || o.watch || o.ping || o.mode == modeBroadcast || len(o.hosts) > 1 || o.hostsFile != "" {
		return func() error { return nil }
	}
	b := bufio.NewWriterSize(w.stdout, stdoutBuffer)
	w.stdout = b
	return b.Flush
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
