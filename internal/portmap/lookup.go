package portmap

import (
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// getPort is GETPORT of version 2: the port of a program on tcp or udp, 0 if there is none.
func (p *Portmapper) getPort(dst []byte, r *request) []byte {
	m, ok := readMapping(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.permits(r, m.Program) {
		return appendRefused(dst, r)
	}
	var port uint32
	if netid, ok := rpcbind.NetidOfProt(m.Prot); ok {
		found, exact := p.table.Port(m.Program, m.Version, netid)
		port = uint32(found)
		t, _ := TransportOf(netid)
		p.stats.lookedUp(r.Version, addrKey{m.Program, m.Version, t}, outcome{found: port != 0, exact: exact})
	}
	return xdr.AppendUint32(appendSuccess(dst, r), port)
}

// Which versions of a program a lookup accepts.
type versionRule bool

const (
	anyVersion   versionRule = false // another version if there is no other way: GETADDR
	exactVersion versionRule = true  // GETVERSADDR
)

// getAddr is GETADDR of versions 3 and 4 and GETVERSADDR: the address of a program on the transport that the call
// came by, whatever its r_netid says; empty if there is none. r_addr is a hint at which address of this host the
// caller uses.
func (p *Portmapper) getAddr(dst []byte, r *request, rule versionRule) []byte {
	a, ok := readRPCBArgs(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.permits(r, a.prog) {
		return appendRefused(dst, r)
	}
	t := r.from.Transport
	e := p.table.Lookup(a.prog, a.vers, t.Netid())
	exact := e != nil && e.Version == a.vers
	dst = appendSuccess(dst, r)
	if e == nil || rule == exactVersion && !exact {
		p.stats.lookedUp(r.Version, addrKey{a.prog, a.vers, t}, outcome{})
		return xdr.AppendString(dst, "")
	}
	p.stats.lookedUp(r.Version, addrKey{a.prog, a.vers, t}, outcome{found: e.Addr != "", exact: exact})
	return p.appendMerged(dst, e, cString(a.addr), r.from)
}

// appendMerged appends the address of e as the caller can use it, as an XDR string.
func (p *Portmapper) appendMerged(dst []byte, e *registry.Entry, hint []byte, from Caller) []byte {
	ap, ok := p.interfaces.Load().merge(e, hint, from)
	switch {
	case ok:
	case e.IP.IsValid() && len(e.Addr) > rpcbind.MaxUAddrSize:
		// An IPv6 address can be spelled longer than it has to be, too long for addrAllowance.
		ap = e.IP
	default:
		return xdr.AppendString(dst, e.Addr)
	}
	var buf [rpcbind.MaxUAddrSize]byte
	return xdr.AppendOpaque(dst, rpcbind.AppendUAddr(buf[:0], ap))
}

// getAddrList is GETADDRLIST of version 4: the addresses of one version of a program on all transports of the
// protocol family that the call came by. Over the local socket the list is empty: rpcbind finds no address there
// that it could merge with the caller's.
func (p *Portmapper) getAddrList(dst []byte, r *request) []byte {
	a, ok := readRPCBArgs(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.permits(r, a.prog) {
		return appendRefused(dst, r)
	}
	hint := cString(a.addr)
	t := r.from.Transport
	_, usable := readHint(hint, t)
	usable = usable && t != Local
	dst = appendSuccess(dst, r)
	found := false
	for _, e := range p.family(a.prog, a.vers, t) {
		if e == nil || !usable {
			continue
		}
		found = true
		transport, _ := e.Netid.Transport()
		addr := e.Addr
		if ap, ok := p.interfaces.Load().merge(e, hint, r.from); ok {
			addr = rpcbind.UAddr(ap)
		}
		dst = rpcbind.AppendEntryElement(dst, rpcbind.Entry{Addr: addr, Transport: transport})
	}
	p.stats.lookedUp(r.Version, addrKey{a.prog, a.vers, t}, outcome{found: found, exact: found})
	return xdr.AppendBool(dst, false)
}

// family returns the registrations of a version on the two transports of the protocol family of t, those that came first
// before the others; nil stands for none.
func (p *Portmapper) family(prog, vers uint32, t Transport) [2]*registry.Entry {
	both := [2]*registry.Entry{p.table.Lookup(prog, vers, rpcbind.UDP), p.table.Lookup(prog, vers, rpcbind.TCP)}
	if t.IPv6() {
		both = [2]*registry.Entry{p.table.Lookup(prog, vers, rpcbind.UDP6), p.table.Lookup(prog, vers, rpcbind.TCP6)}
	}
	for i, e := range both {
		if e != nil && e.Version != vers {
			both[i] = nil
		}
	}
	if both[0] != nil && both[1] != nil && both[1].Before(both[0]) {
		both[0], both[1] = both[1], both[0]
	}
	return both
}

// dump is DUMP of versions 3 and 4: every registration in the order of arrival.
func (p *Portmapper) dump(dst []byte, r *request) []byte {
	return p.appendList(dst, r, p.table.RPCBOctets, p.table.RPCBs)
}

// dumpMappings is DUMP of version 2: the registrations on tcp and udp.
func (p *Portmapper) dumpMappings(dst []byte, r *request) []byte {
	return p.appendList(dst, r, p.table.MappingOctets, p.table.Mappings)
}

// appendList appends an encoded list and its end. A list that the reply has no room for isn't encoded or copied first: a
// datagram of 40 octets must not cost a copy of the whole table.
func (p *Portmapper) appendList(dst []byte, r *request, octets func() int, list func() registry.List) []byte {
	start := len(dst)
	dst = appendSuccess(dst, r)
	if len(dst)-start+octets()+xdr.Unit > p.room(r) {
		return p.appendTooLarge(dst[:start], r)
	}
	elements := list()
	if r.around && elements.Octets >= longList {
		r.at, r.list = len(dst), elements.Parts
		return xdr.AppendBool(dst, false)
	}
	return xdr.AppendBool(elements.Append(dst), false)
}

// longList is the size in octets of the shortest list that is left out of a reply: to copy a shorter one costs less than to
// send it apart.
const longList = 4 << 10

// getTime is GETTIME of versions 3 and 4.
func (p *Portmapper) getTime(dst []byte, r *request) []byte {
	return xdr.AppendUint32(appendSuccess(dst, r), p.now())
}
