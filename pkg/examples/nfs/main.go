// Nfs serves a directory by NFS version 3, for reading, with github.com/willscott/go-nfs, which can't register itself:
//
//	nfs [-listen ADDRESS] DIRECTORY
//
// It takes a free port and registers it with this host's portmapper for NFS and for MOUNT: clients need nothing but the
// host's name.
//
// Everybody who reaches the port may read: without -listen that is this host. It is a module of its own, so that the
// libraries it needs are no dependencies of gportmap.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	gonfs "github.com/willscott/go-nfs"
	"github.com/willscott/go-nfs/helpers"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The programs of an NFS server (RFC 1813 sections 3 and 5.0).
const (
	nfsProgram   = 100003
	mountProgram = 100005
	version      = 3
)

// handles is how many file handles are remembered at a time.
const handles = 4096

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nfs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("nfs", flag.ContinueOnError)
	address := flags.String("listen", "127.0.0.1:0", "`ADDRESS` to serve at")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("usage: nfs [-listen ADDRESS] DIRECTORY")
	}
	l, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	return serve(ctx, new(rpcbind.Registrar), l, flags.Arg(0), out)
}

// serve serves a directory, registered, until ctx ends.
func serve(ctx context.Context, registrar *rpcbind.Registrar, l net.Listener, directory string, out io.Writer) error {
	defer l.Close()
	served := make(chan error, 1)
	files := readOnly{osfs.New(directory, osfs.WithBoundOS())}
	handler := helpers.NewCachingHandler(helpers.NewNullAuthHandler(files), handles)
	go func() { served <- gonfs.Serve(l, handler) }() // both programs, at one port

	for _, program := range []uint32{nfsProgram, mountProgram} {
		registration, err := registrar.Register(ctx, program, version, l)
		if err != nil {
			return err
		}
		defer registration.Close()
	}
	fmt.Fprintln(out, "serving", directory, "at", l.Addr())
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		return err
	}
}

// readOnly is a file system of which go-nfs is told that it can't be written: clients get NFS3ERR_ROFS.
type readOnly struct{ billy.Filesystem }

func (readOnly) Capabilities() billy.Capability { return billy.ReadCapability | billy.SeekCapability }
