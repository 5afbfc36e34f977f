package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
)

// asker carries out one run.
type asker struct {
	opt   *options
	world world
	name  string // of the program, for messages
	names names
	nets  transports
	out   io.Writer
	errs  io.Writer
}

// start does what the options say.
func start(ctx context.Context, name string, o *options, w world) error {
	a := &asker{opt: o, world: w, name: name, names: readNames(w.rpcFile),
		nets: readTransports(w.netconfigFile, w.getenv("NETPATH")), out: w.stdout, errs: w.stderr}
	switch o.mode {
	case modeHelp:
		return a.print(helpText)
	case modeVersion:
		return a.print("rpcinfo of gportmap " + versionName() + "\n")
	case modeDump, modeShort:
		return a.dump(ctx)
	case modeMappings:
		return a.mappings(ctx)
	case modeStats:
		return a.stats(ctx)
	case modeAddresses:
		return a.addresses(ctx)
	case modeBroadcast:
		return a.broadcast(ctx)
	case modeDelete:
		return a.unregister(ctx)
	}
	return a.probe(ctx)
}

// print writes to standard output.
func (a *asker) print(s string) error {
	_, err := io.WriteString(a.out, s)
	return err
}

func (a *asker) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// failure is an error with a text in rpcinfo's form.
type failure struct{ text string }

func (f failure) Error() string { return f.text }

// notCreated is the error of a client that can't be made.
func notCreated(what string, e *rpcError) error { return failure{what + ": " + e.created()} }

// notCalled is the error of a call that failed.
func notCalled(what string, e *rpcError) error { return failure{what + ": " + e.called()} }

// version is what the linker was told (-X main.version=), empty for a build by go build or go install alone.
var version string

func versionName() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(unknown version)"
}

// resolve returns the addresses of a host.
func (a *asker) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opt.timeout)
	defer cancel()
	return resolve(ctx, host)
}
