package instance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// readPatience is how long one list may take: the largest has tens of megabytes.
const readPatience = 10 * time.Second

// Registrations asks the portmapper for everything that is registered, its own entries included, in its order: by version
// 4 or 3, both of which tell the owners. Only of one that says that it has neither, as portmap does, version 2's list is
// taken; lossy tells so. Then each owner is the user who has the socket at that port, and root where that can't be told.
//
// Any other failure is an error: version 2 leaves out owners, IPv6 and local transports.
func (p *Predecessor) Registrations(ctx context.Context) (regs []rpcbind.RPCB, lossy bool, err error) {
	regs, lossy, err = registrations(ctx, p.asks)
	if err != nil {
		err = fmt.Errorf("the registrations of %s can't be read: %w; see what keeps it from listing them (rpcinfo), or stop it and start without a takeover", p.Name(), err)
	}
	return regs, lossy, err
}

func registrations(ctx context.Context, asks []question) (regs []rpcbind.RPCB, lossy bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*readPatience)
	defer cancel()
	err = anyOf(asks, func(q question) error {
		return q.ask(ctx, readPatience, func(ctx context.Context, c *rpcbind.Client) (err error) {
			regs, err = c.Dump(ctx)
			return err
		})
	})
	if err != nil {
		return nil, false, err
	}
	// Versions 3 and 4 tell an owner of each.
	lossy = slices.ContainsFunc(regs, func(b rpcbind.RPCB) bool { return b.Owner == "" })
	if lossy {
		regs, err = withOwners(regs)
	}
	return regs, lossy, err
}

// withOwners gives owners to registrations that have none.
func withOwners(regs []rpcbind.RPCB) ([]rpcbind.RPCB, error) {
	bound, err := sys.BoundSockets()
	if err != nil {
		return nil, fmt.Errorf("whose they are can't be told: %w", err)
	}
	for i, b := range regs {
		if b.Owner != "" {
			continue
		}
		regs[i].Owner = rpcbind.OwnerSuperuser
		if at, ok := rpcbind.ParseUAddr(b.Addr); ok {
			regs[i].Owner = ownerOf(bound, string(b.Netid), at.Port())
		}
	}
	return regs, nil
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
