package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// addresses lists the addresses of a program on all transports of the protocol family that is used to ask.
func (a *asker) addresses(ctx context.Context) (answer, error) {
	c, err := a.dialListed(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	found := addressed{host: a.host}
	if found.program, found.version, err = a.programVersion(); err != nil {
		return nil, err
	}
	var failed *rpcError
	if found.list, failed = c.addresses(ctx, found.program, found.version); failed != nil {
		return nil, notCalled("rpcinfo: can't contact rpcbind: ", failed)
	}
	return found, nil
}

// programVersion reads the program and, if it is there, the version.
func (a *asker) programVersion() (prog, vers uint32, err error) {
	prog, err = a.program(a.opt.args[0])
	if err == nil && len(a.opt.args) > 1 {
		vers, err = parseVersion(a.opt.args[1])
	}
	return prog, vers, err
}

func (c *client) addresses(ctx context.Context, prog, vers uint32) (list []rpcbind.Entry, failed *rpcError) {
	about := rpcbind.RPCB{Program: prog, Version: vers, Netid: rpcbind.Netid(c.netid), Addr: c.uaddr()}
	failed = c.ask(ctx, rpcbind.RPCBVers4, rpcbind.ProcGetAddrList, rpcbind.AppendRPCB(nil, about), func(d *xdr.Decoder) {
		list = rpcbind.ReadEntryList(d, maxString)
	})
	return list, failed
}

// addressed are the addresses of a program.
type addressed struct {
	host             string
	program, version uint32
	list             []rpcbind.Entry
}

func (f addressed) text(n names) string {
	if len(f.list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString("   program vers  tp_family/name/class    address\t\t  service\n")
	for _, e := range f.list {
		class := printable(e.Family + "/" + e.Proto + "/" + semantics(e.Semantics) + " ")
		fmt.Fprintf(&b, "%10d%3d    %s%s %s\n", f.program, f.version, left(class, 24), left(printable(e.Addr), 24), left(n.of(f.program, "-"), 13))
	}
	return b.String()
}

func semantics(s uint32) string {
	switch s {
	case rpcbind.SemanticsCLTS:
		return "clts"
	case rpcbind.SemanticsCOTS:
		return "cots"
	}
	return "cots_ord"
}
