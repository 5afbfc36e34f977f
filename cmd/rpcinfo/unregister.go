package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// unregister removes what this host's portmapper has of a version of a program, on the transport named or on all.
func (a *asker) unregister(ctx context.Context) (answer, error) {
	b := rpcbind.RPCB{Owner: strconv.Itoa(os.Geteuid())}
	if a.opt.hasNetid {
		t, ok := a.nets.find(a.opt.netid)
		if !ok {
			return nil, failure{text: fmt.Sprintf("rpcinfo: netid %s not supported", a.opt.netid)}
		}
		b.Netid = rpcbind.Netid(t.netid)
	}
	var err error
	if b.Program, b.Version, err = a.programVersion(); err != nil {
		return nil, err
	}
	if !a.unset(ctx, b) {
		return nil, failure{text: fmt.Sprintf("rpcinfo: Could not delete registration for prog %s version %s", a.opt.args[0], a.opt.args[1])}
	}
	return deleted{b.Program, b.Version, string(b.Netid)}, nil
}

// deleted is a registration that is gone; the netid may be empty, for all.
type deleted struct {
	program, version uint32
	netid            string
}

func (deleted) text(names) string { return "" }

func (a *asker) unset(ctx context.Context, b rpcbind.RPCB) (done bool) {
	c, failed := a.dialLocal(ctx)
	if failed != nil {
		return false
	}
	defer c.close()
	failed = c.ask(ctx, rpcbind.RPCBVers3, rpcbind.ProcUnset, rpcbind.AppendRPCB(nil, b), func(d *xdr.Decoder) { done = d.Bool() })
	return done && failed == nil
}
