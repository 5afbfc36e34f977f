package portmap

import (
	"math"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// MaxDatagram is the largest reply in octets that is sent over UDP, rpcbind's limit. A result that doesn't fit is
// answered SYSTEM_ERR.
const MaxDatagram = 9000

// addrAllowance is how much larger than its call the answer to GETADDR and GETVERSADDR may be for a caller that
// may be forged: an IPv6 address of 47 octets against a call without any strings.
const addrAllowance = 16

// fit is what every reply passes, those to remote calls and those that tell an error as well; it is what dst has after
// start. A reply that there is no room for is refused, and what was sent to a broadcast or multicast address gets no
// error: the sender wants to hear of those that can serve it, and a forged sender of nobody (RFC 1833 section 2.2.1,
// BCAST; RFC 5531 section 8.4.1).
func (p *Portmapper) fit(dst []byte, start int, r *request) []byte {
	if n := len(dst) - start; n > r.size && n > p.room(r) {
		dst = p.appendTooLarge(dst[:start], r)
	}
	if r.from.Multicast && !succeeded(dst[start:]) {
		return dst[:start]
	}
	return dst
}

// room returns how many octets the reply may have. What a procedure makes beyond it is thrown away. The policy is asked
// once for each call, because it counts.
func (p *Portmapper) room(r *request) int {
	if r.most == 0 {
		r.most = p.decideRoom(r)
	}
	return r.most
}

// decideRoom is the one place where room is decided.
func (p *Portmapper) decideRoom(r *request) int {
	if !r.from.Transport.Datagram() {
		return math.MaxInt
	}
	if p.policy.MayAmplify(r.from, ClassOf(r.Procedure)) {
		return MaxDatagram
	}
	room := r.size
	if r.Version != rpcbind.PMAPVers && (r.Procedure == rpcbind.ProcGetAddr || r.Procedure == rpcbind.ProcGetVersAddr) {
		room += addrAllowance
	}
	return min(room, MaxDatagram)
}

// appendTooLarge answers a call whose result doesn't fit. Who may not have a large datagram can ask over TCP. CALLIT and
// BCAST are answered only with a result.
//
// GETADDRLIST is how the clients of Solaris and of the BSDs begin a lookup, over UDP also for a service on TCP. They go on
// with GETADDR of version 3 after PROG_MISMATCH and PROG_UNAVAIL alone, and give up after any other error.
func (p *Portmapper) appendTooLarge(dst []byte, r *request) []byte {
	switch {
	case r.Procedure == rpcbind.ProcCallIt:
		return dst
	case p.room(r) == MaxDatagram:
		return oncrpc.AppendAccepted(dst, r.XID, oncrpc.SystemErr)
	}
	p.tellDenied(r, List, 0, TooLarge)
	if r.Procedure == rpcbind.ProcGetAddrList {
		return oncrpc.AppendProgMismatch(dst, r.XID, rpcbind.PMAPVers, rpcbind.RPCBVers3)
	}
	return oncrpc.AppendAuthError(dst, r.XID, oncrpc.AuthTooWeak)
}

// succeeded tells whether a reply, which may be none, is one with results.
func succeeded(reply []byte) bool {
	r, err := oncrpc.ParseReply(reply)
	return err == nil && !r.Denied && r.Accept == oncrpc.Success
}
