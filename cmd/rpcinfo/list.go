package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const noPrograms = "No remote programs registered.\n"

// transportNamed returns the transport of -T, nil if there is none.
func (a *asker) transportNamed() (*transport, error) {
	if !a.opt.hasNetid {
		return nil, nil
	}
	t, ok := a.nets.find(a.opt.netid)
	if !ok {
		return nil, failure{"rpcinfo: invalid transport: Netid not found in netconfig database"}
	}
	return &t, nil
}

// dialListed makes a client of the portmapper that is to be listed.
func (a *asker) dialListed(ctx context.Context, host []string) (*client, error) {
	if len(host) == 0 {
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
	c, failed := a.dialPortmapper(ctx, t, host[0])
	if failed != nil {
		return nil, notCreated("rpcinfo: can't contact rpcbind", failed)
	}
	return c, nil
}

// dump lists the registrations.
func (a *asker) dump(ctx context.Context) error {
	if len(a.opt.operands) > 1 {
		return errUsage
	}
	c, err := a.dialListed(ctx, a.opt.operands)
	if err != nil {
		return err
	}
	defer c.close()
	list, failed := c.dump(ctx)
	if failed != nil {
		return notCalled("rpcinfo: can't contact rpcbind: ", failed)
	}
	if a.opt.mode == modeShort {
		return a.print(shortText(list, a.names))
	}
	return a.print(dumpText(list, a.names))
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
		netid, ok := rpcbind.NetidOfProt(m.Prot)
		if !ok {
			netid = rpcbind.Netid(strconv.FormatUint(uint64(m.Prot), 10))
		}
		addr := rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
		list = append(list, rpcbind.RPCB{Program: m.Program, Version: m.Version, Netid: netid, Addr: addr, Owner: rpcbind.OwnerUnknown})
	}
	return list
}

func dumpText(list []rpcbind.RPCB, n names) string {
	if len(list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString("   program version netid     address                service    owner\n")
	for _, r := range list {
		fmt.Fprintf(&b, "%10d%5d    %s %s %s %s\n", r.Program, r.Version, left(printable(string(r.Netid)), 9),
			left(printable(r.Addr), 22), left(n.of(r.Program, "-"), 10), printable(r.Owner))
	}
	return b.String()
}

// shortText has a line for each program, with its versions and netids, those registered last first.
func shortText(list []rpcbind.RPCB, n names) string {
	if len(list) == 0 {
		return noPrograms
	}
	type line struct {
		program          uint32
		versions, netids []string
		owner            string
	}
	var lines []*line
	of := make(map[uint32]*line)
	add := func(to *[]string, s string) {
		if !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	for _, r := range list {
		l, ok := of[r.Program]
		if !ok {
			l = &line{program: r.Program, owner: r.Owner}
			of[r.Program] = l
			lines = append(lines, l)
		}
		add(&l.versions, fmt.Sprint(signed(r.Version)))
		add(&l.netids, printable(string(r.Netid)))
	}
	var b strings.Builder
	b.WriteString("   program version(s) netid(s)                         service     owner\n")
	for _, l := range lines {
		slices.Reverse(l.versions)
		slices.Reverse(l.netids)
		versions := strings.Join(l.versions, ",")
		if len(versions) >= 10 {
			versions += " "
		}
		fmt.Fprintf(&b, "%10d  %s%s %s %s\n", l.program, left(versions, 10), left(strings.Join(l.netids, ","), 32),
			left(n.of(l.program, "-"), 11), printable(l.owner))
	}
	return b.String()
}

// mappings lists the registrations of version 2.
func (a *asker) mappings(ctx context.Context) error {
	if len(a.opt.operands) > 1 {
		return errUsage
	}
	c, err := a.dialMappings(ctx, a.opt.operands)
	if err != nil {
		return err
	}
	defer c.close()
	list, failed := c.mappings(ctx)
	if failed != nil && failed.status == progMismatch && failed.low > rpcbind.PMAPVers {
		host := "localhost"
		if len(a.opt.operands) > 0 {
			host = a.opt.operands[0]
		}
		return failure{fmt.Sprintf("%s does not support portmapper.  Try rpcinfo %s instead", host, host)}
	}
	if failed != nil {
		return notCalled("rpcinfo: can't contact portmapper", failed)
	}
	return a.print(mappingsText(list, a.names))
}

// dialMappings makes a client for version 2. Rpcinfo asks the portmapper of a host for its own port, over TCP.
func (a *asker) dialMappings(ctx context.Context, host []string) (*client, error) {
	if len(host) > 0 {
		return a.dialOver(ctx, "tcp", host[0], rpcbind.Program, rpcbind.PMAPVers)
	}
	c, failed := a.dialLocal(ctx)
	if failed != nil {
		return nil, notCreated("rpcinfo: can't contact portmapper", failed)
	}
	return c, nil
}

func mappingsText(list []rpcbind.Mapping, n names) string {
	if len(list) == 0 {
		return noPrograms
	}
	var b strings.Builder
	b.WriteString("   program vers proto   port  service\n")
	for _, m := range list {
		proto := strconv.FormatUint(uint64(m.Prot), 10)
		if netid, ok := rpcbind.NetidOfProt(m.Prot); ok {
			proto = string(netid)
		}
		fmt.Fprintf(&b, "%10d%5d%s%7d", m.Program, m.Version, right(proto, 6), m.Port)
		if name := n.of(m.Program, ""); name != "" {
			b.WriteString("  " + name)
		}
		b.WriteString("\n")
	}
	return b.String()
}
