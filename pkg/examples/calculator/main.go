// Calculator is a service of ONC RPC and its client: what rpcgen would be given is in protocol.go.
//
//	calculator serve             serves on free ports of TCP and UDP, registered with this host's portmapper
//	calculator add 40 2          asks the one of this host over TCP: 42
//	calculator -host nfs.example -network udp divide 7 2
//
// Neither knows the other's port. Without a portmapper at port 111 both take that of gportmap's unprivileged instances, or
// of any other, by -host: `calculator -host 127.0.0.1:1111 serve`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

const usage = "usage: calculator [-host HOST[:PORT]] serve | [-host HOST[:PORT]] [-network tcp|udp] add|divide A B"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "calculator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("calculator", flag.ContinueOnError)
	host := flags.String("host", "", "`HOST[:PORT]` of the portmapper; without, this host's")
	network := flags.String("network", "tcp", "tcp or udp")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() == 1 && flags.Arg(0) == "serve":
		var registrar rpcbind.Registrar // of this host
		if *host != "" {
			registrar.Dial = func(ctx context.Context) (*rpcbind.Client, error) {
				return rpcbind.DialPortmapper(ctx, "tcp", *host)
			}
		}
		return serve(ctx, &registrar, out)
	case flags.NArg() != 3:
		return errors.New(usage)
	}
	if *host == "" {
		*host = "localhost"
	}
	a, errA := strconv.ParseInt(flags.Arg(1), 10, 64)
	b, errB := strconv.ParseInt(flags.Arg(2), 10, 64)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := dial(ctx, *network, *host)
	if err != nil {
		return err
	}
	defer c.Close()
	var result int64
	switch flags.Arg(0) {
	case "add":
		result, err = c.Add(ctx, a, b)
	case "divide":
		result, err = c.Divide(ctx, a, b)
	default:
		return errors.New(usage)
	}
	if err == nil {
		_, err = fmt.Fprintln(out, result)
	}
	return err
}
