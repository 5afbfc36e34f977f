package portmap

import (
	"net/netip"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// RemoteCall is a call that the portmapper makes for a caller: CALLIT, BCAST or INDIRECT, checked and ready to
// be sent.
type RemoteCall struct {
	// From, XID, Version and Procedure are of the call that asked for it. Together they tell a retransmission.
	From      Caller
	XID       uint32
	Version   uint32
	Procedure uint32
	// Size is the size of that call in octets: no answer to a caller that may be forged is larger.
	Size int

	// Target is where the service listens, on this host.
	Target netip.AddrPort
	// Answer is the service's address as the caller is told it.
	Answer netip.AddrPort
	// Program, Vers and Proc are what to call there, with Args, which alias the asking call.
	Program, Vers, Proc uint32
	Args                []byte
}

// Relay sends remote calls.
type Relay interface {
	// Forward sends the call on and returns at once; when the service answers, the relay encodes the caller's answer
	// with [Portmapper.AppendRemoteReply] and sends it by the socket that the call came by. It copies c.Args before
	// it returns. It is silent about a retransmission of a call in flight. An error says that the call could not be
	// sent.
	Forward(c RemoteCall) error
}

// Numbers of the programs and procedures that are never called for somebody else, because their servers trust
// calls from this host more than others (PROTOCOL section 7; CVE-1999-0168).
const (
	progNFS      = 100003
	progYP       = 100004
	progMount    = 100005
	progYPBind   = 100007
	progYPPasswd = 100009
	progRQuota   = 100011
)

// forwardable tells whether a procedure may be called for somebody else. Procedure 0 does nothing, by convention
// of RFC 5531 section 12, and always may.
func forwardable(prog, proc uint32) bool {
	if proc == rpcbind.ProcNull {
		return true
	}
	switch prog {
	case rpcbind.Program, progNFS, progYPPasswd, progRQuota:
		return false
	case progMount:
		return proc != 1 && proc != 3 // MNT, UMNT
	case progYPBind:
		return proc != 2 // SETDOM
	case progYP:
		switch proc {
		case 3, 4, 5, 8: // MATCH, FIRST, NEXT, ALL
			return false
		}
	}
	return true
}

// mayForward tells whether the caller may have that procedure called, and may know where its program is: the answer
// tells that as well.
func (p *Portmapper) mayForward(r *request, c *RemoteCall) bool {
	if !p.permits(r, c.Program) || !p.permitsClass(r, Lookup, c.Program) {
		return false
	}
	may := forwardable(c.Program, c.Proc) && p.policy.MayForward(c.Program, c.Proc)
	if !may && p.relay != nil {
		p.tellDenied(r, Remote, c.Program, NotForwarded)
	}
	return may
}

// callIt is CALLIT of versions 2 and 3, BCAST and INDIRECT of version 4: a call of another program on this host,
// over UDP alone. CALLIT and BCAST are made to be broadcast, so they are silent on every failure; INDIRECT tells.
func (p *Portmapper) callIt(dst []byte, r *request) []byte {
	if !r.from.Transport.Datagram() {
		return oncrpc.AppendAccepted(dst, r.XID, oncrpc.ProcUnavail)
	}
	if r.Procedure == rpcbind.ProcIndirect {
		return p.indirect(dst, r)
	}
	c, ok := p.readRemoteCall(r)
	if !ok || !p.mayForward(r, &c) {
		return dst
	}
	e := p.remoteService(r, &c, false)
	if e == nil || e.Version != c.Vers || p.relay == nil {
		return dst
	}
	if r.Version == rpcbind.PMAPVers && r.from.Transport.IPv6() {
		return dst // the answer of version 2 is a port of udp, not of udp6
	}
	p.forward(c, e) // silence is the answer to its failure as well
	return dst
}

func (p *Portmapper) indirect(dst []byte, r *request) []byte {
	c, ok := p.readRemoteCall(r)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	if !p.mayForward(r, &c) {
		return appendRefused(dst, r)
	}
	e := p.remoteService(r, &c, true)
	switch {
	case e == nil:
		return oncrpc.AppendAccepted(dst, r.XID, oncrpc.ProgUnavail)
	case e.Version != c.Vers:
		low, high := p.versions(e)
		return oncrpc.AppendProgMismatch(dst, r.XID, low, high)
	case p.relay == nil || p.forward(c, e) != nil:
		return oncrpc.AppendAccepted(dst, r.XID, oncrpc.SystemErr)
	}
	return dst
}

func (p *Portmapper) readRemoteCall(r *request) (RemoteCall, bool) {
	d := xdr.NewDecoder(r.Args)
	c := RemoteCall{From: r.from, XID: r.XID, Version: r.Version, Procedure: r.Procedure, Size: r.size}
	c.Program, c.Vers, c.Proc = d.Uint32(), d.Uint32(), d.Uint32()
	c.Args = d.Opaque(maxString)
	return c, d.Err() == nil
}

// remoteService looks up the service that a remote call wants and counts the call.
func (p *Portmapper) remoteService(r *request, c *RemoteCall, indirect bool) *registry.Entry {
	e := p.table.Lookup(c.Program, c.Vers, r.from.Transport.Netid())
	k := remoteKey{c.Program, c.Vers, c.Proc, r.from.Transport}
	exact := e != nil && e.Version == c.Vers
	p.stats.calledRemote(r.Version, k, outcome{found: exact, exact: exact, indirect: indirect})
	return e
}

// versions returns the lowest and the highest version of e's program on its netid. It begins with e's own, so that
// the answer makes sense even if all of them were removed since e was looked up.
func (p *Portmapper) versions(e *registry.Entry) (low, high uint32) {
	low, high, ok := p.table.Versions(e.Program, e.Netid)
	if !ok {
		return e.Version, e.Version
	}
	return min(low, e.Version), max(high, e.Version)
}

func (p *Portmapper) forward(c RemoteCall, e *registry.Entry) error {
	i := p.interfaces.Load()
	c.Target = i.target(e)
	if merged, ok := i.merge(e, nil, c.From); ok {
		c.Answer = merged
	} else {
		c.Answer = e.IP
	}
	return p.relay.Forward(c)
}

// target returns where on this host a service is reached: over loopback, unless it listens on one other address
// of this host alone. What somebody registered with an address of another host is tried over loopback too: a
// portmapper carries no calls to other hosts.
func (i *Interfaces) target(e *registry.Entry) netip.AddrPort {
	a := e.IP.Addr()
	switch {
	case a.IsLoopback() || i.isOurs(a):
	case a.Is4():
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		a = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(a, e.IP.Port())
}

// AppendRemoteReply encodes the answer to the caller of a remote call from the whole reply message of the service,
// nil if it can't be reached. Unchanged length says that nothing is to be sent: CALLIT and BCAST are answered only
// with a result.
func (p *Portmapper) AppendRemoteReply(dst []byte, c *RemoteCall, reply []byte) []byte {
	start := len(dst)
	r := request{from: c.From, size: c.Size}
	r.XID, r.Version, r.Procedure = c.XID, c.Version, c.Procedure
	indirect := c.Version == rpcbind.RPCBVers4 && c.Procedure == rpcbind.ProcIndirect
	parsed, err := oncrpc.ParseReply(reply)
	switch {
	case err == nil && !parsed.Denied && parsed.Accept == oncrpc.Success:
		dst = appendRemoteResult(dst, &r, c, parsed.Results)
	case indirect:
		dst = oncrpc.AppendAccepted(dst, c.XID, oncrpc.SystemErr)
	}
	return p.fit(dst, start, &r)
}

// appendRemoteResult appends the service's address, in version 2 its port, and its results as opaque data
// (RFC 1833 sections 2.1 and 3.1).
func appendRemoteResult(dst []byte, r *request, c *RemoteCall, results []byte) []byte {
	dst = appendSuccess(dst, r)
	if r.Version == rpcbind.PMAPVers {
		dst = xdr.AppendUint32(dst, uint32(c.Answer.Port()))
	} else {
		dst = xdr.AppendString(dst, rpcbind.UAddr(c.Answer))
	}
	return xdr.AppendOpaque(dst, results)
}
