package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// addresses lists the addresses of a program on all transports of the protocol family that is used to ask.
func (a *asker) addresses(ctx context.Context) error {
	if len(a.opt.operands) != 3 {
		return errUsage
	}
	c, err := a.dialListed(ctx, a.opt.operands[:1])
	if err != nil {
		return err
	}
	defer c.close()
	prog, vers, err := a.programVersion(a.opt.operands[1:])
	if err != nil {
		return err
	}
	list, failed := c.addresses(ctx, prog, vers)
	if failed != nil {
		return notCalled("rpcinfo: can't contact rpcbind: ", failed)
	}
	return a.print(addressesText(list, prog, vers, a.names))
}

// programVersion reads the operands that are a program and, if it is there, a version.
func (a *asker) programVersion(operands []string) (prog, vers uint32, err error) {
	prog, err = a.program(operands[0])
	if err == nil && len(operands) > 1 {
		vers, err = parseVersion(operands[1])
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

func addressesText(list []rpcbind.Entry, prog, vers uint32, n names) string {
	if len(list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString("   program vers  tp_family/name/class    address\t\t  service\n")
	for _, e := range list {
		class := printable(e.Family + "/" + e.Proto + "/" + semantics(e.Semantics) + " ")
		fmt.Fprintf(&b, "%10d%3d    %s%s %s\n", prog, vers, left(class, 24), left(printable(e.Addr), 24), left(n.of(prog, "-"), 13))
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
