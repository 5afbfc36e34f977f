package daemon

import (
	"log/slog"
	"net/netip"
	"sync"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/sys"
)

// deadServers finds registrations whose server is gone: no socket of this host is bound to their port any more.
type deadServers struct {
	log   *slog.Logger
	isOwn func(netip.Addr) bool // tells whether an address is one of this host's interfaces
	bound func(netid string, addr netip.AddrPort) (bool, error)

	untold sync.Once
}

func newDeadServers(log *slog.Logger, isOwn func(netip.Addr) bool) *deadServers {
	return &deadServers{log: log, isOwn: isOwn, bound: sys.Bound}
}

// isDead tells whether the server of a registration is certainly gone. What isn't an IP address of this host may be
// served where nobody here can see it, and where the kernel doesn't tell nothing is certain.
func (d *deadServers) isDead(e *registry.Entry) bool {
	if e.Own || !e.IP.IsValid() {
		return false
	}
	transport, ok := e.Netid.Transport()
	if !ok || !transport.IP() {
		return false
	}
	if a := e.IP.Addr(); !a.IsUnspecified() && !a.IsLoopback() && !d.isOwn(a) {
		return false
	}
	bound, err := d.bound(string(transport.Netid), e.IP)
	if err != nil {
		d.untold.Do(func() {
			d.log.Warn("the kernel doesn't tell which ports are bound: registrations of servers that are gone stay until they are unregistered", "err", err)
		})
		return false
	}
	return !bound
}
