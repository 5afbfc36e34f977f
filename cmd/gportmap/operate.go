package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// exitNo is the exit code of a command whose answer is no.
const exitNo = 1

// askLimit bounds how long a command waits for a portmapper.
const askLimit = 10 * time.Second

// A command asks a portmapper something. Args are as many as its usage says.
type command struct {
	usage string
	least int // number of arguments
	most  int
	run   func(ctx context.Context, to target, args []string, stdout io.Writer) error
}

func commands() map[string]command {
	return map[string]command{
		"list":     {"list [--json]", 0, 0, list},
		"set":      {"set PROGRAM VERSION NETID ADDRESS", 4, 4, set},
		"unset":    {"unset PROGRAM VERSION [NETID]", 2, 3, unset},
		"firewall": {"firewall [--format nft|firewalld|ufw] [--table TABLE] [--zone ZONE] [--watch [--interval TIME]]", 0, 0, firewall},
		"getaddr":  {"getaddr PROGRAM VERSION NETID", 3, 3, getAddr},
	}
}

// operate runs a command and returns the exit code.
func operate(name string, args []string, stdout, stderr io.Writer) int {
	err := func() error {
		c, ok := commands()[args[0]]
		if !ok {
			return daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("unknown command %q; see --help", args[0]))
		}
		var to target
		help := false
		f := pflag.NewFlagSet(args[0], pflag.ContinueOnError)
		f.Usage = func() {}
		f.StringVar(&to.socket, "socket", "", "")
		f.StringVarP(&to.host, "host", "h", "", "")
		f.BoolVar(&help, "help", false, "")
		if args[0] == "list" {
			f.BoolVar(&to.json, "json", false, "")
		}
		if args[0] == "firewall" {
			f.StringVar(&to.firewall.format, "format", "nft", "")
			f.StringVar(&to.firewall.table, "table", "inet filter", "")
			f.StringVar(&to.firewall.zone, "zone", "", "")
			f.BoolVar(&to.firewall.watch, "watch", false, "")
			f.DurationVar(&to.firewall.interval, "interval", 2*time.Second, "")
		}
		if err := f.Parse(args[1:]); err != nil {
			return daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("%s: %w; see --help", args[0], err))
		}
		switch n := f.NArg(); {
		case help:
			_, err := fmt.Fprintf(stdout, "Usage: %s %s [--socket PATH | --host HOST[:PORT]]\n", name, c.usage)
			return err
		case n < c.least || n > c.most:
			return daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("usage: %s [--socket PATH | --host HOST[:PORT]]", c.usage))
		case f.Changed("host") && f.Changed("socket"):
			return daemon.WithExitCode(daemon.ExitUsage, errors.New("--host and --socket name two portmappers; give one of them"))
		}
		ctx, cancel := context.WithTimeout(context.Background(), askLimit)
		defer cancel()
		return c.run(ctx, to, f.Args(), stdout)
	}()
	if err != nil {
		fail(stderr, name, err)
	}
	return daemon.ExitCode(err)
}

// target says which portmapper to ask.
type target struct {
	socket string
	host   string
	json   bool // of list

	firewall firewallFlags
}

// dial opens a connection to the portmapper: to another host's over the network given, to one of this host by its local
// socket. The path comes first, although libtirpc tries the abstract socket before it: while no portmapper serves that
// name, any user can.
func (to target) dial(ctx context.Context, network string) (*rpcbind.Client, error) {
	if to.host != "" {
		c, err := rpcbind.DialPortmapper(ctx, network, to.host)
		return c, asked(err)
	}
	path := to.socket
	if path == "" {
		path = rpcbind.SocketPath
	}
	c, err := rpcbind.DialPortmapper(ctx, "unix", path)
	if err == nil {
		return c, nil
	}
	if !strings.HasPrefix(path, "@") {
		if c, err := rpcbind.DialPortmapper(ctx, "unix", "@"+path); err == nil {
			return c, nil
		}
	}
	return nil, asked(fmt.Errorf("%w; is a portmapper running? Another one is named by --socket or --host", err))
}

// asked gives the error of a question its exit code.
func asked(err error) error {
	var denied *oncrpc.DeniedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &denied):
		return daemon.WithExitCode(daemon.ExitPermission, err)
	}
	return daemon.WithExitCode(daemon.ExitUnavailable, err)
}

// no is the error of an answer that is no.
func no(format string, args ...any) error {
	return daemon.WithExitCode(exitNo, fmt.Errorf(format, args...))
}

// A listed registration is what `gportmap list --json` prints an array of.
type listed struct {
	Program uint32 `json:"program"`
	Version uint32 `json:"version"`
	Netid   string `json:"netid"`
	Address string `json:"address"`
	Port    uint16 `json:"port,omitempty"`
	Owner   string `json:"owner"`
	Service string `json:"service,omitempty"`
}

func listOf(all []rpcbind.RPCB) []listed {
	list := make([]listed, len(all))
	for i, b := range all {
		list[i] = listed{Program: b.Program, Version: b.Version, Netid: string(b.Netid), Address: b.Addr, Owner: b.Owner}
		if ap, ok := rpcbind.ParseUAddr(b.Addr); ok {
			list[i].Port = ap.Port()
		}
		if name := service(b.Program); name != "-" {
			list[i].Service = name
		}
	}
	return list
}

// list prints every registration.
func list(ctx context.Context, to target, _ []string, stdout io.Writer) error {
	c, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	if err != nil {
		return asked(err)
	}
	if to.json {
		return printJSON(stdout, listOf(all))
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "program\tvers\tnetid\tport\taddress\towner\tservice")
	for _, b := range all {
		port := "-"
		if ap, ok := rpcbind.ParseUAddr(b.Addr); ok {
			port = strconv.Itoa(int(ap.Port()))
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\t%s\n", b.Program, b.Version, logging.Escape(string(b.Netid)), port,
			logging.Escape(b.Addr), logging.Escape(b.Owner), service(b.Program))
	}
	return w.Flush()
}

// service returns the usual name of a program, "-" if it has none.
func service(program uint32) string {
	switch program {
	case rpcbind.Program:
		return "portmapper"
	case 100001:
		return "rstatd"
	case 100002:
		return "rusersd"
	case 100003:
		return "nfs"
	case 100004:
		return "ypserv"
	case 100005:
		return "mountd"
	case 100007:
		return "ypbind"
	case 100008:
		return "walld"
	case 100009:
		return "yppasswdd"
	case 100011:
		return "rquotad"
	case 100012:
		return "sprayd"
	case 100021:
		return "nlockmgr"
	case 100024:
		return "status"
	case 100227:
		return "nfs_acl"
	}
	return "-"
}

func set(ctx context.Context, to target, args []string, _ io.Writer) error {
	b, err := registration(args)
	if err != nil {
		return err
	}
	b.Addr = args[3]
	c, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer c.Close()
	ok, err := c.Set(ctx, b)
	if err != nil {
		return asked(err)
	}
	if !ok {
		return no("set %s: refused: %s", strings.Join(args[:3], " "), whyRefused(ctx, c, b))
	}
	return nil
}

// whyRefused finds out why a SET was refused, which the protocol doesn't tell.
func whyRefused(ctx context.Context, c *rpcbind.Client, b rpcbind.RPCB) string {
	if t, known := b.Netid.Transport(); known && t.IP() {
		if at, ok := rpcbind.ParseUAddr(b.Addr); !ok || at.Addr().Is4() != (t.Family == "inet") {
			return fmt.Sprintf("%q is no universal address of netid %q", b.Addr, string(b.Netid))
		}
	}
	all, err := c.Dump(ctx)
	if err != nil {
		return "see the portmapper's log"
	}
	for _, r := range all {
		if r.Program == b.Program && r.Version == b.Version && r.Netid.Is(b.Netid) {
			return fmt.Sprintf("%s is registered, by %s", r.Addr, r.Owner)
		}
	}
	return fmt.Sprintf("the portmapper has %d registrations, perhaps as many as it allows, or its rules say no; its log says which", len(all))
}

func unset(ctx context.Context, to target, args []string, _ io.Writer) error {
	b, err := registration(args)
	if err != nil {
		return err
	}
	c, err := to.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer c.Close()
	ok, err := c.Unset(ctx, b)
	if err != nil {
		return asked(err)
	}
	if !ok {
		return no("unset %s: refused: it belongs to another user (see the command list) or to the portmapper itself; root may remove all but the latter",
			strings.Join(args, " "))
	}
	return nil
}

// getAddr prints an address: of another host the one that its portmapper answers over the transport asked about, of this
// host the one that is registered, because over the local socket GETADDR sees only services on local sockets.
func getAddr(ctx context.Context, to target, args []string, stdout io.Writer) error {
	b, err := registration(args)
	if err != nil {
		return err
	}
	var addr string
	if to.host == "" {
		addr, err = registered(ctx, to, b)
	} else {
		addr, err = answered(ctx, to, b)
	}
	if err != nil {
		return err
	}
	if addr == "" {
		return no("getaddr %s: not registered", strings.Join(args, " "))
	}
	_, err = fmt.Fprintln(stdout, logging.Escape(addr))
	return err
}

func registered(ctx context.Context, to target, b rpcbind.RPCB) (string, error) {
	c, err := to.dial(ctx, "unix")
	if err != nil {
		return "", err
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	for _, r := range all {
		if r.Program == b.Program && r.Version == b.Version && r.Netid.Is(b.Netid) {
			return r.Addr, nil
		}
	}
	return "", asked(err)
}

func answered(ctx context.Context, to target, b rpcbind.RPCB) (string, error) {
	t, ok := b.Netid.Transport()
	if !ok || !t.IP() {
		return "", daemon.WithExitCode(daemon.ExitUsage,
			fmt.Errorf("netid %q: another host can be asked over udp, tcp, udp6 and tcp6 only", string(b.Netid)))
	}
	network := t.Proto + "4"
	if t.Family == "inet6" {
		network = t.Proto + "6"
	}
	c, err := to.dial(ctx, network)
	if err != nil {
		return "", err
	}
	defer c.Close()
	addr, err := c.GetAddr(ctx, b)
	return addr, asked(err)
}

// registration reads a program, a version and, if it is there, a netid.
func registration(args []string) (rpcbind.RPCB, error) {
	var b rpcbind.RPCB
	for i, n := range []struct {
		name string
		to   *uint32
	}{{"program", &b.Program}, {"version", &b.Version}} {
		v, err := strconv.ParseUint(args[i], 0, 32)
		if err != nil {
			return b, daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("%s %q: give a number from 0 to 4294967295", n.name, args[i]))
		}
		*n.to = uint32(v)
	}
	if len(args) > 2 {
		b.Netid = rpcbind.Netid(args[2])
	}
	return b, nil
}
