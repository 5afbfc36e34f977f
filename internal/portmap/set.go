package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// set is SET of versions 3 and 4: TRUE if the address is registered afterwards. The owner that the call claims is
// ignored.
func (p *Portmapper) set(dst []byte, r *request) []byte {
	a, ok := readRPCBArgs(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.mayRegister(r, a.prog) {
		return appendRefused(dst, r)
	}
	return p.register(dst, r, rpcbind.RPCB{
		Program: a.prog, Version: a.vers, Netid: rpcbind.Netid(a.netid), Addr: withoutZone(rpcbind.Netid(a.netid), string(a.addr)),
	})
}

// withoutZone returns an IPv6 address without its zone: "fe80::1%eth0.8.1" becomes "fe80::1.8.1". A zone means something on
// this host alone, and a universal address has no place for one (RFC 5665 section 5.2.3). Any other text is returned as it is.
func withoutZone(netid rpcbind.Netid, addr string) string {
	host, rest, found := strings.Cut(addr, "%")
	transport, known := netid.Transport()
	if !found || !known || !transport.IP() {
		return addr
	}
	port := strings.LastIndexByte(rest[:max(strings.LastIndexByte(rest, '.'), 0)], '.') // a zone may have dots, as eth0.100
	if port <= 0 {
		return addr
	}
	if ip, ok := rpcbind.ParseUAddr(host + rest[port:]); !ok || ip.Addr().Is4() {
		return addr
	}
	return host + rest[port:]
}

// pmapSet is SET of version 2: a mapping becomes a registration of the wildcard address on tcp or udp.
func (p *Portmapper) pmapSet(dst []byte, r *request) []byte {
	m, ok := readMapping(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.mayRegister(r, m.Program) {
		return appendRefused(dst, r)
	}
	b := rpcbind.RPCB{Program: m.Program, Version: m.Version}
	if b.Netid, ok = rpcbind.NetidOfProt(m.Prot); !ok {
		return p.refuse(dst, r, b, fmt.Errorf("protocol %d is neither tcp (6) nor udp (17)", m.Prot))
	}
	if m.Port > 0xffff {
		return p.refuse(dst, r, b, fmt.Errorf("port %d is above 65535", m.Port))
	}
	b.Addr = rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
	return p.register(dst, r, b)
}

func (p *Portmapper) register(dst []byte, r *request, b rpcbind.RPCB) []byte {
	b.Owner = p.policy.Owner(r.from)
	err := p.policy.Grants(b.Owner, b)
	if err == nil {
		err = p.table.Set(b)
	}
	if errors.Is(err, registry.ErrTaken) {
		err = p.replaceDead(b)
	}
	if err != nil {
		p.tellRefused(r, b, b.Netid.Is, err)
	} else {
		p.stats.block(r.Version).sets.Add(1)
	}
	return xdr.AppendBool(appendSuccess(dst, r), err == nil)
}

// refuse answers FALSE to what can't be a registration, whoever asks.
func (p *Portmapper) refuse(dst []byte, r *request, b rpcbind.RPCB, err error) []byte {
	if p.refused != nil {
		b.Owner = p.policy.Owner(r.from)
		p.refused(Refused{From: r.from, Set: true, Wanted: b, Err: err})
	}
	return xdr.AppendBool(appendSuccess(dst, r), false)
}

// replaceDead registers b in the place of a registration with another address whose server is gone, as a server that was
// killed leaves it behind. Whether it is gone is asked last: that costs a call to the kernel.
func (p *Portmapper) replaceDead(b rpcbind.RPCB) error {
	old := p.table.Lookup(b.Program, b.Version, b.Netid)
	switch {
	case p.dead == nil:
		return registry.ErrTaken
	case old == nil || old.Version != b.Version || old.Addr == b.Addr:
		return p.table.Set(b) // unregistered meanwhile, or registered again
	}
	if err := old.RemovableBy(b.Owner); err != nil {
		return err
	}
	if !p.dead(old, b.Owner) {
		return registry.ErrTaken
	}
	return p.table.Replace(old, b)
}

// unset is UNSET of versions 3 and 4: it ignores the address; an empty netid stands for every one.
func (p *Portmapper) unset(dst []byte, r *request) []byte {
	a, ok := readRPCBArgs(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.mayRegister(r, a.prog) {
		return appendRefused(dst, r)
	}
	netid := rpcbind.Netid(cString(a.netid))
	b := rpcbind.RPCB{Program: a.prog, Version: a.vers, Netid: netid}
	return p.unregister(dst, r, b, func(n rpcbind.Netid) bool { return netid == "" || n.Is(netid) })
}

// pmapUnset is UNSET of version 2: it ignores protocol and port and covers tcp and udp (RFC 1833 section 3.2).
func (p *Portmapper) pmapUnset(dst []byte, r *request) []byte {
	m, ok := readMapping(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.mayRegister(r, m.Program) {
		return appendRefused(dst, r)
	}
	return p.unregister(dst, r, rpcbind.RPCB{Program: m.Program, Version: m.Version}, func(n rpcbind.Netid) bool {
		_, ok := n.Prot()
		return ok
	})
}

// unregister answers TRUE when afterwards there is nothing that was to be removed, so also when there was nothing.
func (p *Portmapper) unregister(dst []byte, r *request, b rpcbind.RPCB, covers func(rpcbind.Netid) bool) []byte {
	b.Owner = p.policy.Owner(r.from)
	_, err := p.table.Unset(b.Program, b.Version, covers, b.Owner)
	if err != nil {
		p.tellRefused(r, b, covers, err)
	} else {
		p.stats.block(r.Version).unsets.Add(1)
	}
	return xdr.AppendBool(appendSuccess(dst, r), err == nil)
}

// tellRefused tells the daemon of a SET or UNSET that was refused, for its log: who wanted what, and who has it on one of the
// netids that the call covers.
func (p *Portmapper) tellRefused(r *request, b rpcbind.RPCB, covers func(rpcbind.Netid) bool, err error) {
	if p.refused == nil {
		return
	}
	refused := Refused{From: r.from, Set: r.Procedure == rpcbind.ProcSet, Wanted: b, Err: err}
	for _, e := range p.table.Version(b.Program, b.Version) {
		if covers(e.Netid) && e.RemovableBy(b.Owner) != nil {
			refused.Holder = e
			break
		}
	}
	p.refused(refused)
}
