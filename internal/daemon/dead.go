package daemon

import (
	"log/slog"
	"net/netip"
	"sync"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/sys"
)

// deadServers finds registrations whose server is gone: no socket of this host is bound to their port any more.
type deadServers struct {
	log   *slog.Logger
	isOwn func(netip.Addr) bool // tells whether an address is one of this host's interfaces
	// receives tells by one lookup that a socket is bound there; false says nothing. bound tells for certain, and walks all
	// sockets of the host for that.
	receives func(netid string, addr netip.AddrPort) bool
	bound    func(netid string, addr netip.AddrPort) (bool, error)
	share    *share

	untold sync.Once
}

func newDeadServers(log *slog.Logger, isOwn func(netip.Addr) bool, kernel *sys.Owners) *deadServers {
	return &deadServers{
		log: log, isOwn: isOwn, bound: sys.Bound, share: newShare(),
		receives: func(netid string, addr netip.AddrPort) bool {
			_, found, _ := kernel.Receiver(netid, addr) // bound tells of an error
			return found
		},
	}
}

// isDead tells an owner who wants to replace a registration whether its server is certainly gone. What isn't an IP address of
// this host may be served where nobody here can see it, and where the kernel doesn't tell, or was asked for too long, nothing
// is certain.
func (d *deadServers) isDead(e *registry.Entry, owner string) bool {
	if e.Own || !d.here(e) {
		return false
	}
	dead := false
	d.share.spend(owner, func() { dead = !d.receives(netidOf(e), e.IP) && d.state(e) == admin.Dead })
	return dead
}

// state tells whether the server of a registration is there, as [admin.Registration] says it.
func (d *deadServers) state(e *registry.Entry) string {
	switch {
	case e.Own:
		return admin.Alive
	case !d.here(e):
		return admin.Unknown
	}
	bound, err := d.bound(netidOf(e), e.IP)
	switch {
	case err != nil:
		d.untold.Do(func() {
			d.log.Warn("the kernel doesn't tell which ports are bound: registrations of servers that are gone stay until they are unregistered", "err", err)
		})
		return admin.Unknown
	case bound:
		return admin.Alive
	case e.Static: // it may stand for a server that is elsewhere
		return admin.Unknown
	}
	return admin.Dead
}

func netidOf(e *registry.Entry) string {
	transport, _ := e.Netid.Transport()
	return string(transport.Netid)
}

// here tells whether a registration is of an IP address of this host, where its socket can be seen.
func (d *deadServers) here(e *registry.Entry) bool {
	if !e.IP.IsValid() {
		return false
	}
	transport, ok := e.Netid.Transport()
	if !ok || !transport.IP() {
		return false
	}
	a := e.IP.Addr()
	return a.IsUnspecified() || a.IsLoopback() || d.isOwn(a)
}

// atOnce returns deadServers that looks at all ports now, for who asks about every registration.
func (d *deadServers) atOnce() *deadServers {
	now := &deadServers{log: d.log, isOwn: d.isOwn}
	table, err := sys.BoundSockets()
	now.bound = func(netid string, addr netip.AddrPort) (bool, error) { return table.Covers(netid, addr), err }
	if err != nil {
		now.untold.Do(func() {}) // d tells that, once
	}
	return now
}
