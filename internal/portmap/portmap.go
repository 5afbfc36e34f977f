// Package portmap is program 100000: the procedures of PMAP version 2 and RPCBIND versions 3 and 4 (RFC 1833)
// over a table of registrations.
//
// It turns a call message into a reply message and knows nothing of sockets, files, privileges or clocks: who
// called arrives as a [Caller], who may do what is asked of a [Policy], and calls for somebody else are handed to
// a [Relay].
package portmap

import (
	"cmp"
	"sync/atomic"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// Config is what a Portmapper works with. Table, Policy and Now are needed.
type Config struct {
	Table  *registry.Table
	Policy Policy
	// Now returns the seconds since 1970 that GETTIME answers.
	Now func() uint32
	// Relay sends remote calls. Nil refuses them, as rpcbind does without -r.
	Relay Relay
	// Dead tells whether the server of a registration is certainly gone; nil says that it never is. It is asked only
	// when a SET is refused because another address is registered, by an owner who may unregister that. See PROTOCOL
	// section 8 no. 8.
	Dead func(e *registry.Entry, owner string) bool
	// Refused, if not nil, is told of each SET and UNSET of somebody who may register that was refused.
	Refused func(Refused)
	// Denied, if not nil, is told of each call that the policy refused.
	Denied func(Denied)
	// LookupStats and RemoteStats are how many lookups and remote calls GETSTAT lists for each version: at most
	// MaxLookupStats and MaxRemoteStats, which 0 stands for.
	LookupStats, RemoteStats int
	// Observe, if not nil, sees every message that got as far as this package, with its reply, which is empty for
	// silence. Both are valid only during the call.
	Observe func(from Caller, call, reply []byte)
	// Count, if not nil, is told of the same: of a call whose header passed the checks taken apart, of what else came as the
	// zero Call. Of a reply it sees at least the first word of the results, see AppendReplyAround.
	Count func(from Caller, call oncrpc.Call, reply []byte)
}

// Refused is a SET or UNSET that was answered FALSE.
type Refused struct {
	From   Caller
	Set    bool            // else UNSET
	Wanted rpcbind.RPCB    // with the caller as its owner; an UNSET has no address, and no netid if it is for several
	Holder *registry.Entry // a registration of somebody else that stands in the way, or nil
	Err    error           // why
}

// Denied is a call that the policy refused, answered AUTH_TOOWEAK or not at all.
type Denied struct {
	From   Caller
	Call   oncrpc.Call // valid only during the call
	Class  Class       // what was refused: of a remote call, perhaps the lookup that it takes
	Prog   uint32      // that the call names, 0 for none
	Reason DeniedReason
}

// DeniedReason is why the policy refused a call.
type DeniedReason uint8

// The reasons.
const (
	ByRule       DeniedReason = iota // [Policy.Permits]
	NotLocal                         // [Policy.MayRegister]
	TooLarge                         // the result is larger than the call: [Policy.MayAmplify]
	NotForwarded                     // a procedure that isn't called for others: [Policy.MayForward]
)

// Portmapper answers calls. Its methods may be called from any number of goroutines.
type Portmapper struct {
	table      *registry.Table
	policy     Policy
	now        func() uint32
	relay      Relay
	dead       func(e *registry.Entry, owner string) bool
	refused    func(Refused)
	denied     func(Denied)
	observe    func(from Caller, call, reply []byte)
	count      func(from Caller, call oncrpc.Call, reply []byte)
	stats      statistics
	interfaces atomic.Pointer[Interfaces]
}

// New returns a Portmapper that knows no interfaces yet: see [Portmapper.SetInterfaces].
func New(c Config) *Portmapper {
	p := &Portmapper{table: c.Table, policy: c.Policy, now: c.Now, relay: c.Relay, dead: c.Dead, refused: c.Refused, denied: c.Denied, observe: c.Observe, count: c.Count}
	p.stats.init(min(cmp.Or(c.LookupStats, MaxLookupStats), MaxLookupStats), min(cmp.Or(c.RemoteStats, MaxRemoteStats), MaxRemoteStats))
	p.interfaces.Store(NewInterfaces(nil))
	return p
}

// SetInterfaces replaces what is known of the host's interfaces and their addresses.
func (p *Portmapper) SetInterfaces(i *Interfaces) { p.interfaces.Store(i) }

// lastProc holds the highest procedure of versions 2, 3 and 4.
var lastProc = [...]uint32{rpcbind.ProcCallIt, rpcbind.ProcTAddr2UAddr, rpcbind.ProcGetStat}

// AppendReply answers one call message, a datagram or a record without its mark, by appending the reply to dst.
// Unchanged length says nothing is to be sent: over UDP that is all, on a stream the connection has to be closed,
// because what came was no call.
//
// There is no error to return: an error of the protocol is a reply. Nothing is allocated for GETPORT, GETADDR,
// GETVERSADDR and NULL, if dst has room.
func (p *Portmapper) AppendReply(dst, call []byte, from Caller) []byte {
	r := request{from: from, size: len(call)}
	return p.append(dst, call, &r)
}

// AppendReplyAround is AppendReply for a stream whose sender can gather: a long list, which every caller gets, isn't copied
// into the reply. Its parts have to be sent where the reply has offset at, and nobody may change them. Nil says that there is none.
func (p *Portmapper) AppendReplyAround(dst, call []byte, from Caller) (reply []byte, at int, list [][]byte) {
	r := request{from: from, size: len(call), around: p.observe == nil}
	reply = p.append(dst, call, &r)
	return reply, r.at, r.list
}

// MayWait tells whether the answer to a call may wait for something else than the processor. SET and UNSET are written to disk,
// and DUMP may have to encode the list beside them; what is observed may be logged.
func (p *Portmapper) MayWait(call []byte) bool {
	const procedure = 5 * xdr.Unit // behind xid, message type, RPC version, program and version
	if len(call) < procedure+xdr.Unit || p.observe != nil {
		return p.observe != nil
	}
	switch call[procedure+3] {
	case rpcbind.ProcSet, rpcbind.ProcUnset:
		return true
	case rpcbind.ProcDump:
		return !p.table.Encoded()
	}
	return false
}

func (p *Portmapper) append(dst, call []byte, r *request) []byte {
	if r.from.Self {
		return appendSelf(dst, call)
	}
	start := len(dst)
	if !r.from.Transport.Datagram() || p.policy.MayAnswer(r.from) {
		dst = p.fit(p.appendReply(dst, call, r), start, r)
	}
	if p.count != nil {
		p.count(r.from, r.Call, dst[start:])
	}
	if p.observe != nil {
		p.observe(r.from, call, dst[start:])
	}
	return dst
}

// request is a call; what is embedded is set once its header passed the checks.
type request struct {
	oncrpc.Call
	from Caller
	size int // of the call in octets
	most int // that the reply may have, once room was asked; 0 before

	around bool     // a long list is left out of the reply
	at     int      // where it belongs
	list   [][]byte // nil if none was left out
}

func (p *Portmapper) appendReply(dst, call []byte, r *request) []byte {
	c, err := oncrpc.ParseCall(call)
	if err != nil {
		return dst
	}
	// The order of the checks is rpcbind's: PROTOCOL section 3.
	if c.RPCVersion != oncrpc.RPCVersion {
		return oncrpc.AppendRPCMismatch(dst, c.XID)
	}
	if stat, ok := oncrpc.CheckCred(c.Cred); !ok {
		return oncrpc.AppendAuthError(dst, c.XID, stat)
	}
	if c.Program != rpcbind.Program {
		return oncrpc.AppendAccepted(dst, c.XID, oncrpc.ProgUnavail)
	}
	if c.Version < rpcbind.PMAPVers || c.Version > rpcbind.RPCBVers4 {
		return oncrpc.AppendProgMismatch(dst, c.XID, rpcbind.PMAPVers, rpcbind.RPCBVers4)
	}
	if c.Procedure > lastProc[c.Version-rpcbind.PMAPVers] {
		return oncrpc.AppendAccepted(dst, c.XID, oncrpc.ProcUnavail)
	}
	p.stats.called(c.Version, c.Procedure)
	r.Call = c
	return p.serve(dst, r)
}

// serve hands the call to its procedure. Procedures 1 to 5 have the same numbers in every version.
func (p *Portmapper) serve(dst []byte, r *request) []byte {
	if !namesProgram(r.Procedure) && !p.permits(r, 0) {
		return appendRefused(dst, r)
	}
	v2 := r.Version == rpcbind.PMAPVers
	switch r.Procedure {
	case rpcbind.ProcNull:
		return appendSuccess(dst, r)
	case rpcbind.ProcSet:
		if v2 {
			return p.pmapSet(dst, r)
		}
		return p.set(dst, r)
	case rpcbind.ProcUnset:
		if v2 {
			return p.pmapUnset(dst, r)
		}
		return p.unset(dst, r)
	case rpcbind.ProcGetAddr:
		if v2 {
			return p.getPort(dst, r)
		}
		return p.getAddr(dst, r, anyVersion)
	case rpcbind.ProcDump:
		if v2 {
			return p.dumpMappings(dst, r)
		}
		return p.dump(dst, r)
	case rpcbind.ProcGetTime:
		return p.getTime(dst, r)
	case rpcbind.ProcUAddr2TAddr:
		return uaddr2taddr(dst, r)
	case rpcbind.ProcTAddr2UAddr:
		return taddr2uaddr(dst, r)
	case rpcbind.ProcGetVersAddr:
		return p.getAddr(dst, r, exactVersion)
	case rpcbind.ProcGetAddrList:
		return p.getAddrList(dst, r)
	case rpcbind.ProcGetStat:
		return p.getStat(dst, r)
	default: // CALLIT, BCAST and INDIRECT
		return p.callIt(dst, r)
	}
}

func appendSuccess(dst []byte, r *request) []byte {
	return oncrpc.AppendAccepted(dst, r.XID, oncrpc.Success)
}

func appendGarbageArgs(dst []byte, r *request) []byte {
	return oncrpc.AppendAccepted(dst, r.XID, oncrpc.GarbageArgs)
}
