package portmapper

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

// host is what is known of this host's interfaces.
type host struct {
	loopback map[uint32]bool     // by index
	own      map[netip.Addr]bool // addresses of interfaces that are up
}

// look takes note of the interfaces as they are now. If they can't be told, what was known stays.
func (p *Portmapper) look() {
	interfaces, err := net.Interfaces()
	if err != nil {
		p.log.Warn("portmapper: the host's interfaces can't be told", "err", err)
		return
	}
	h := &host{loopback: make(map[uint32]bool), own: make(map[netip.Addr]bool)}
	known := make([]portmap.Interface, 0, len(interfaces))
	for _, i := range interfaces {
		f := portmap.Interface{
			Index:        uint32(i.Index),
			Up:           i.Flags&net.FlagUp != 0,
			Loopback:     i.Flags&net.FlagLoopback != 0,
			PointToPoint: i.Flags&net.FlagPointToPoint != 0,
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface has just gone
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			if !ok {
				continue
			}
			ip = ip.Unmap()
			f.Addrs = append(f.Addrs, netip.PrefixFrom(ip, ones))
			if f.Up {
				h.own[ip] = true
			}
		}
		h.loopback[f.Index] = f.Loopback
		known = append(known, f)
	}
	p.host.Store(h)
	p.portmap.SetInterfaces(portmap.NewInterfaces(known))
}

// watch looks at the interfaces again and again until ctx ends.
func (p *Portmapper) watch(ctx context.Context) {
	t := time.NewTicker(interfacesEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.look()
		case <-ctx.Done():
			return
		}
	}
}

// onLoopback tells whether a call arrived on the loopback interface. Where the system doesn't tell the interface, 0, the
// addresses have to do: what is sent to or from a loopback address should go by no other.
func (p *Portmapper) onLoopback(ifindex uint32, remote, local netip.Addr) bool {
	if ifindex != 0 {
		return p.host.Load().loopback[ifindex]
	}
	return remote.IsLoopback() && (!local.IsValid() || local.IsUnspecified() || local.IsLoopback())
}

// plain is the address and port of an IP address of package net, without a zone, and as IPv4 if it is IPv4-mapped.
func plain(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
