package instance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Registrations asks the portmapper for everything that is registered, its own entries included, in its order: by version
// 4, else 3, both of which tell the owners, else 2. From version 2 each owner is the user who has the socket at that port,
// and root where that can't be told.
func (p *Predecessor) Registrations(ctx context.Context) ([]rpcbind.RPCB, error) {
	regs, err := registrations(ctx, p.asks)
	if err != nil {
		return nil, fmt.Errorf("read the registrations of %s: %w", p.Name(), err)
	}
	return regs, nil
}

func registrations(ctx context.Context, asks []question) ([]rpcbind.RPCB, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*askPatience)
	defer cancel()
	var regs []rpcbind.RPCB
	var first error
	for _, q := range asks {
		err := q.ask(ctx, func(ctx context.Context, c *rpcbind.Client) (err error) {
			regs, err = c.Dump(ctx)
			return err
		})
		if err == nil {
			return withOwners(regs), nil
		}
		if first == nil {
			first = err
		}
	}
	for _, q := range asks {
		var mappings []rpcbind.Mapping
		err := q.ask(ctx, func(ctx context.Context, c *rpcbind.Client) (err error) {
			mappings, err = c.DumpMappings(ctx)
			return err
		})
		if err == nil {
			return withOwners(fromMappings(mappings)), nil
		}
	}
	return nil, first
}

// fromMappings turns what version 2 tells into registrations without owners.
func fromMappings(mappings []rpcbind.Mapping) []rpcbind.RPCB {
	var regs []rpcbind.RPCB
	for _, m := range mappings {
		if netid, ok := rpcbind.NetidOfProt(m.Prot); ok && m.Port <= 0xffff {
			addr := rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
			regs = append(regs, rpcbind.RPCB{Program: m.Program, Version: m.Version, Netid: netid, Addr: addr})
		}
	}
	return regs
}

// withOwners gives owners to registrations that have none.
func withOwners(regs []rpcbind.RPCB) []rpcbind.RPCB {
	if !slices.ContainsFunc(regs, func(b rpcbind.RPCB) bool { return b.Owner == "" }) {
		return regs
	}
	bound, _ := sys.BoundSockets() // without it everything is root's
	for i, b := range regs {
		if at, ok := rpcbind.ParseUAddr(b.Addr); ok && b.Owner == "" {
			regs[i].Owner = ownerOf(bound, string(b.Netid), at.Port())
		}
	}
	return regs
}

// ownerOf returns the owner to give to what is registered at a port.
func ownerOf(bound sys.BoundTable, netid string, port uint16) string {
	for _, s := range bound {
		if (s.Netid == netid || s.Netid == netid+"6" && s.DualStack) && s.Addr.Port() == port && s.HasUID && s.UID != 0 {
			return strconv.FormatUint(uint64(s.UID), 10)
		}
	}
	return rpcbind.OwnerSuperuser
}
