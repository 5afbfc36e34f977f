// Services lists what the portmapper of a host has registered, in JSON, with Go's and not universal addresses:
//
//	services [HOST[:PORT]]
//
// Without a host it is this one's, asked over its local socket. Whatever the portmapper says becomes one JSON string
// each: what is in it can't reach a terminal as it is.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// service is a registration. Where the portmapper has version 2 of the protocol alone, owners are missing.
type service struct {
	Program uint32          `json:"program"`
	Version uint32          `json:"version"`
	Netid   string          `json:"netid"`
	Address *netip.AddrPort `json:"address,omitempty"` // where the program listens; the unspecified address for all
	Path    string          `json:"path,omitempty"`    // in place of an address: what isn't one of IP
	Owner   string          `json:"owner,omitempty"`
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "services:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var c *rpcbind.Client
	var err error
	switch len(args) {
	case 0:
		c, err = rpcbind.DialLocal(ctx)
	case 1:
		c, err = rpcbind.DialPortmapper(ctx, "tcp", args[0]) // over UDP long lists may be refused
	default:
		return errors.New("usage: services [HOST[:PORT]]")
	}
	if err != nil {
		return err
	}
	defer c.Close()
	registered, err := c.Dump(ctx)
	if err != nil {
		return err
	}
	services := []service{} // so that none is [] and not null
	for _, b := range registered {
		s := service{Program: b.Program, Version: b.Version, Netid: string(b.Netid), Owner: b.Owner}
		if at, ok := rpcbind.ParseUAddr(b.Addr); ok {
			s.Address = &at
		} else {
			s.Path = b.Addr
		}
		services = append(services, s)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(services)
}
