package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const noPrograms = "No remote programs registered.\n"

// transportNamed returns the transport of -T, nil if there is none.
func (a *asker) transportNamed() (*transport, error) {
	if !a.opt.hasNetid || a.opt.mode == modeStats {
		return nil, nil
	}
	t, ok := a.nets.find(a.opt.netid)
	if !ok {
		return nil, failure{text: "rpcinfo: invalid transport: Netid not found in netconfig database"}
	}
	return &t, nil
}

// dialListed makes a client of the portmapper that is to be listed.
func (a *asker) dialListed(ctx context.Context) (*client, error) {
	if a.local {
		c, failed := a.dialLocal(ctx)
		if failed != nil {
			return nil, notCreated("rpcinfo: can't contact rpcbind", failed)
		}
		return c, nil
	}
	t, err := a.transportNamed()
	if err != nil {
		return nil, err
	}
	c, failed := a.dialPortmapper(ctx, t, a.host)
	if failed != nil {
		return nil, notCreated("rpcinfo: can't contact rpcbind", failed)
	}
	return c, nil
}

// dump lists the registrations.
func (a *asker) dump(ctx context.Context) (answer, error) {
	c, err := a.dialListed(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	list, failed := c.dump(ctx)
	switch {
	case failed != nil:
		return nil, notCalled("rpcinfo: can't contact rpcbind: ", failed)
	case a.opt.mode == modeShort:
		return inShort{a.host, list}, nil
	}
	return listed{a.host, list}, nil
}

// dump asks for the registrations in version 3, or in the other version that a portmapper says it has.
func (c *client) dump(ctx context.Context) (list []rpcbind.RPCB, failed *rpcError) {
	read := func(d *xdr.Decoder) { list = rpcbind.ReadRPCBList(d, maxString) }
	failed = c.ask(ctx, rpcbind.RPCBVers3, rpcbind.ProcDump, nil, read)
	if failed == nil || failed.status != progMismatch {
		return list, failed
	}
	switch {
	case failed.low == rpcbind.RPCBVers4:
		failed = c.ask(ctx, rpcbind.RPCBVers4, rpcbind.ProcDump, nil, read)
	case failed.high == rpcbind.PMAPVers:
		var mappings []rpcbind.Mapping
		if mappings, failed = c.mappings(ctx); failed == nil {
			list = registrations(mappings)
		}
	}
	return list, failed
}

func (c *client) mappings(ctx context.Context) (list []rpcbind.Mapping, failed *rpcError) {
	failed = c.ask(ctx, rpcbind.PMAPVers, rpcbind.ProcDump, nil, func(d *xdr.Decoder) { list = rpcbind.ReadMappingList(d) })
	return list, failed
}

// registrations makes of what version 2 answers what version 3 would.
func registrations(mappings []rpcbind.Mapping) []rpcbind.RPCB {
	var list []rpcbind.RPCB
	for _, m := range mappings {
		addr := rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
		list = append(list, rpcbind.RPCB{Program: m.Program, Version: m.Version, Netid: rpcbind.Netid(protocol(m.Prot)), Addr: addr, Owner: rpcbind.OwnerUnknown})
	}
	return list
}

// listed are the registrations of a host.
type listed struct {
	host string
	list []rpcbind.RPCB
}

func (l listed) text(n names) string {
	if len(l.list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString(listHead)
	for _, r := range l.list {
		b.WriteString(listLine(r, n))
	}
	return b.String()
}

const listHead = "   program version netid     address                service    owner\n"

func listLine(r rpcbind.RPCB, n names) string {
	return fmt.Sprintf("%10d%5d    %s %s %s %s\n", r.Program, r.Version, left(printable(string(r.Netid)), 9),
		left(printable(r.Addr), 22), left(n.of(r.Program, "-"), 10), printable(r.Owner))
}

// mappings lists the registrations of version 2.
func (a *asker) mappings(ctx context.Context) (answer, error) {
	if a.local {
		return a.mappingsBy(ctx, a.dialMappings)
	}
	// Devices that know version 2 alone don't answer calls of others, or aren't registered with themselves over TCP.
	return hedged(ctx,
		func(ctx context.Context) (answer, error) { return a.mappingsBy(ctx, a.dialMappings) },
		func(ctx context.Context) (answer, error) {
			return hedged(ctx,
				func(ctx context.Context) (answer, error) { return a.mappingsBy(ctx, a.dialVersion2("tcp")) },
				func(ctx context.Context) (answer, error) { return a.mappingsBy(ctx, a.dialVersion2("udp")) })
		})
}

// mappingsBy lists the registrations of version 2 by a client.
func (a *asker) mappingsBy(ctx context.Context, dial func(context.Context) (*client, error)) (answer, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	list, failed := c.mappings(ctx)
	switch {
	case failed == nil:
		return mapped{a.host, list}, nil
	case failed.status == progMismatch && failed.low > rpcbind.PMAPVers:
		host := a.host
		if a.local {
			host = "localhost"
		}
		return nil, failure{text: fmt.Sprintf("%s does not support portmapper.  Try rpcinfo %s instead", host, host)}
	}
	return nil, notCalled("rpcinfo: can't contact portmapper", failed)
}

// dialVersion2 returns a function that makes a client of a host's portmapper without a look-up of its port.
func (a *asker) dialVersion2(netid string) func(context.Context) (*client, error) {
	return func(ctx context.Context) (*client, error) {
		t, ok := a.nets.find(netid)
		if !ok {
			return nil, failure{text: "Cannot find suitable transport for protocol " + netid}
		}
		c, failed := a.dialFinder(ctx, t, a.host)
		if failed != nil {
			return nil, notCreated("rpcinfo: can't contact portmapper", failed)
		}
		return c, nil
	}
}

// dialMappings makes a client for version 2. Rpcinfo asks the portmapper of a host for its own port, over TCP.
func (a *asker) dialMappings(ctx context.Context) (*client, error) {
	if !a.local {
		return a.dialOver(ctx, "tcp", rpcbind.Program, rpcbind.PMAPVers)
	}
	c, failed := a.dialLocal(ctx)
	if failed != nil {
		return nil, notCreated("rpcinfo: can't contact portmapper", failed)
	}
	return c, nil
}

// mapped are the registrations of version 2 of a host.
type mapped struct {
	host string
	list []rpcbind.Mapping
}

func (l mapped) text(n names) string {
	if len(l.list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString("   program vers proto   port  service\n")
	for _, m := range l.list {
		fmt.Fprintf(&b, "%10d%5d%s%7d", m.Program, m.Version, right(protocol(m.Prot), 6), m.Port)
		if name := n.of(m.Program, ""); name != "" {
			b.WriteString("  " + name)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func protocol(prot uint32) string {
	if netid, ok := rpcbind.NetidOfProt(prot); ok {
		return string(netid)
	}
	return strconv.FormatUint(uint64(prot), 10)
}
