package portmap

import (
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Class is what a call wants, as rules for callers tell calls apart.
type Class uint8

// The classes.
const (
	Lookup   Class = iota // NULL, GETPORT, GETADDR, GETVERSADDR, GETADDRLIST, GETTIME, UADDR2TADDR, TADDR2UADDR
	List                  // DUMP, GETSTAT
	Register              // SET, UNSET
	Remote                // CALLIT, BCAST, INDIRECT
)

// ClassOf returns the class of a procedure, which has the same number in every version that has it.
func ClassOf(proc uint32) Class {
	switch proc {
	case rpcbind.ProcSet, rpcbind.ProcUnset:
		return Register
	case rpcbind.ProcDump, rpcbind.ProcGetStat:
		return List
	case rpcbind.ProcCallIt, rpcbind.ProcIndirect:
		return Remote
	}
	return Lookup
}

// Policy judges callers. It is asked only where its answer matters, from several goroutines at once.
type Policy interface {
	// MayAnswer tells whether a datagram is answered at all. It is asked once for each, before it is looked at.
	MayAnswer(from Caller) bool
	// Permits tells whether the caller may make calls of a class about a program, 0 for calls that name none.
	Permits(from Caller, class Class, prog uint32) bool
	// MayRegister tells whether the caller may SET and UNSET: by rule, whether it is a process of this host.
	MayRegister(from Caller) bool
	// Owner returns the owner that registrations of the caller get and that its UNSETs have to match:
	// "superuser", a decimal uid, or "unknown".
	Owner(from Caller) string
	// Grants returns nil if an owner may have a registration, as far as that isn't the table's business, else the reason.
	Grants(owner string, b rpcbind.RPCB) error
	// MayAmplify tells whether a datagram's answer may be larger than the call. It should be true only for callers
	// whose source address can't be forged from afar. It is asked at most once for each call.
	MayAmplify(from Caller, class Class) bool
	// MayForward tells whether a procedure may be called for others, beside those that never are.
	MayForward(prog, proc uint32) bool
}

// namesProgram tells whether the arguments of a procedure begin with a program. Those procedures ask the policy themselves,
// once they have read it: PROTOCOL section 3, order of checks.
func namesProgram(proc uint32) bool {
	switch proc {
	case rpcbind.ProcNull, rpcbind.ProcDump, rpcbind.ProcGetTime, rpcbind.ProcUAddr2TAddr, rpcbind.ProcTAddr2UAddr, rpcbind.ProcGetStat:
		return false
	}
	return true
}

// permits tells whether the caller may make this call, about a program.
func (p *Portmapper) permits(r *request, prog uint32) bool {
	return p.permitsClass(r, ClassOf(r.Procedure), prog)
}

func (p *Portmapper) permitsClass(r *request, class Class, prog uint32) bool {
	if p.policy.Permits(r.from, class, prog) {
		return true
	}
	p.tellDenied(r, class, prog, ByRule)
	return false
}

// mayRegister tells whether the caller may SET and UNSET a program.
func (p *Portmapper) mayRegister(r *request, prog uint32) bool {
	if !p.permits(r, prog) {
		return false
	}
	if p.policy.MayRegister(r.from) {
		return true
	}
	p.tellDenied(r, Register, prog, NotLocal)
	return false
}

func (p *Portmapper) tellDenied(r *request, class Class, prog uint32, reason DeniedReason) {
	if p.denied != nil {
		p.denied(Denied{From: r.from, Call: r.Call, Class: class, Prog: prog, Reason: reason})
	}
}

// appendRefused answers a call that isn't permitted.
func appendRefused(dst []byte, r *request) []byte {
	return oncrpc.AppendAuthError(dst, r.XID, oncrpc.AuthTooWeak)
}
