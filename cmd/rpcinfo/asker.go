package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is what the linker was told (-X main.version=), empty for a build by go build or go install alone.
var version string

// asker asks one host, or this one.
type asker struct {
	opt   *options
	world world
	name  string // of the program, for messages
	names names
	nets  transports
	host  string // to be asked
	local bool   // this host, by its socket
	out   io.Writer
	errs  io.Writer

	pinging  bool // calls aren't sent again
	maxReply int  // octets; 0 is package rpcbind's limit
}

// start does what the options say.
func start(ctx context.Context, name string, o *options, w world) error {
	a := &asker{opt: o, world: w, name: name, names: readNames(w.rpcFile), out: w.stdout, errs: w.stderr}
	a.nets = readTransports(w.netconfigFile)
	a.nets.netpath, a.nets.hasNetpath = w.lookupEnv("NETPATH")
	switch o.mode {
	case modeHelp:
		return a.print(helpText)
	case modeVersion:
		return a.print("rpcinfo of gportmap " + versionName() + "\n")
	}
	if o.hostsFile != "" {
		hosts, err := readHosts(o.hostsFile, w.stdin)
		if err != nil {
			return err
		}
		o.hosts = append(o.hosts, hosts...)
	}
	if o.watch || o.ping { // which end well when they are interrupted
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
	}
	switch {
	case len(o.hosts) > 1:
		return a.askAll(ctx, o.hosts)
	case len(o.hosts) == 1:
		a.host = o.hosts[0]
	default:
		a.local = true
	}
	return a.run(ctx)
}

// answer is what there is to tell about a host. Those that take their time print their text meanwhile, and have none left.
type answer interface {
	text(n names) string
	json(n names) any
}

// run asks the host and prints the answer. If there are both an answer and an error, the error decides about the exit code.
func (a *asker) run(ctx context.Context) error {
	got, err := a.ask(ctx)
	printed := error(nil)
	switch {
	case got != nil && a.opt.json:
		printed = a.printJSON(got.json(a.names))
	case got != nil:
		printed = a.print(got.text(a.names))
	case a.opt.json && err != nil && !errors.Is(err, errFailed):
		printed = a.printJSON(jsonError{Host: a.host, Error: explain(err)})
		err = errFailed
	}
	if printed != nil {
		return printed
	}
	return err
}

func (a *asker) ask(ctx context.Context) (answer, error) {
	switch a.opt.mode {
	case modeDump, modeShort:
		if a.opt.watch {
			return nil, a.watch(ctx)
		}
		return a.dump(ctx)
	case modeMappings:
		return a.mappings(ctx)
	case modeStats:
		return a.stats(ctx)
	case modeAddresses:
		return a.addresses(ctx)
	case modeBroadcast:
		return nil, a.broadcast(ctx)
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

// resolve returns the addresses of a host.
func (a *asker) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opt.timeout)
	defer cancel()
	return resolve(ctx, host)
}

func versionName() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(unknown version)"
}
