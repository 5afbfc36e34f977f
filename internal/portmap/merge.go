package portmap

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Interface is a network interface of this host.
type Interface struct {
	Index        uint32
	Up           bool
	Loopback     bool
	PointToPoint bool
	Addrs        []netip.Prefix
}

// Interfaces is what is known of the host's interfaces at one time. It doesn't change.
type Interfaces struct {
	list []Interface
	ours map[netip.Addr]bool // addresses of interfaces that are up, link-local IPv6 addresses left out
	few  []netip.Addr        // the same, if they are at most fewAddrs
}

// fewAddrs is up to how many addresses are sooner compared than looked up.
const fewAddrs = 12

// NewInterfaces returns Interfaces with the given ones, in the order of the kernel. It keeps the slice.
func NewInterfaces(list []Interface) *Interfaces {
	i := &Interfaces{list: list, ours: make(map[netip.Addr]bool)}
	for _, f := range list {
		for _, a := range f.Addrs {
			if f.Up && !linkLocal(a.Addr()) {
				i.ours[a.Addr()] = true
			}
		}
	}
	if len(i.ours) <= fewAddrs {
		i.few = slices.Collect(maps.Keys(i.ours))
	}
	return i
}

// isOurs tells whether an address is one of this host's that mean the same on every interface.
func (i *Interfaces) isOurs(a netip.Addr) bool {
	if i.few != nil {
		return slices.Contains(i.few, a)
	}
	return i.ours[a]
}

// linkLocal tells whether an address means something only together with an interface.
func linkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// readHint returns the address of a hint, the zero Addr if it is empty, and whether it can be used on a transport: then it
// is empty or an address of the transport's family.
func readHint(hint []byte, t Transport) (netip.Addr, bool) {
	if len(hint) == 0 {
		return netip.Addr{}, true
	}
	ap, ok := rpcbind.ParseUAddr(hint)
	return ap.Addr(), ok && ap.Addr().Is6() == t.IPv6()
}

// merge returns the address at which a caller reaches the service of e, and false if that is e's address as it
// was registered.
//
// A service that listens on all addresses is answered with one of them: the address that the caller's hint names,
// if it is ours, else the address that the call was sent to. PROTOCOL section 8 no. 9 tells how that differs from
// rpcbind, which guesses by the networks of the interfaces.
func (i *Interfaces) merge(e *registry.Entry, hint []byte, from Caller) (netip.AddrPort, bool) {
	if from.Transport == Local || !e.IP.IsValid() {
		return netip.AddrPort{}, false
	}
	registered := e.IP.Addr()
	// Unmapped, ::ffff:0.0.0.0 is a wildcard as well.
	if !registered.Unmap().IsUnspecified() && (!registered.IsLoopback() || from.Remote.Addr().IsLoopback()) {
		return netip.AddrPort{}, false
	}
	hinted, ok := readHint(hint, from.Transport)
	if !ok {
		return netip.AddrPort{}, false
	}
	addr := i.address(hinted, from)
	// No address at all has neither family, and an IPv4 caller of a socket of both families gets no IPv6 service
	// at an IPv4 address.
	return netip.AddrPortFrom(addr, e.IP.Port()), addr.IsValid() && addr.Is4() == registered.Is4()
}

// address returns the address of this host that suits a caller best.
func (i *Interfaces) address(hint netip.Addr, from Caller) netip.Addr {
	remote, local := from.Remote.Addr(), from.Local.Addr()
	switch {
	case linkLocal(remote) && (!hint.IsValid() || linkLocal(hint)):
		// Only the interface that the call came by reaches this caller's link.
		if linkLocal(local) {
			return local
		}
		if a := i.onInterface(from.Ifindex, linkLocal); a.IsValid() {
			return a
		}
	case i.isOurs(hint):
		return hint
	}
	switch {
	case i.isOurs(remote):
		return remote
	case local.IsValid() && !local.IsUnspecified() && !local.IsMulticast():
		return local
	}
	return i.nearest(remote, from.Ifindex)
}

// onInterface returns the first address of an interface that fits.
func (i *Interfaces) onInterface(index uint32, fits func(netip.Addr) bool) netip.Addr {
	for _, f := range i.list {
		if f.Index != index || !f.Up {
			continue
		}
		for _, p := range f.Addrs {
			if fits(p.Addr()) {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

// nearest returns an address for a caller whose call has none of ours on it, because it went to a multicast group:
// one on the caller's network, else one of the interface that the call came by, else any, those of loopback and
// point-to-point interfaces last.
func (i *Interfaces) nearest(remote netip.Addr, index uint32) netip.Addr {
	var best netip.Addr
	rank := 0
	for _, f := range i.list {
		if !f.Up {
			continue
		}
		for _, p := range f.Addrs {
			a := p.Addr()
			if a.Is4() != remote.Is4() || linkLocal(a) {
				continue
			}
			r := 1
			switch {
			case p.Contains(remote):
				r = 4
			case f.Index == index:
				r = 3
			case !f.Loopback && !f.PointToPoint:
				r = 2
			}
			if r > rank {
				best, rank = a, r
			}
		}
	}
	return best
}
