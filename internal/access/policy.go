// Package access judges callers: who may register, as whom, and who may be sent a large datagram.
//
// A caller is judged only by what the kernel tells about it: the transport, the interface that the call arrived on,
// the peer credentials of a local socket and the owner of a socket on this host. Credentials in the call itself
// prove nothing and are not looked at.
package access

import (
	"errors"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// ErrRootOnly says that a program is one that only root may register.
var ErrRootOnly = errors.New("only root may register this program")

// ErrPinned says that a program may be registered at other ports only.
var ErrPinned = errors.New("pin: this program may not be registered at that port")

// The callers that are local by rpcbind's rule, exactly these addresses of the loopback networks.
var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// Policy is the [portmap.Policy] of a daemon. The zero value is the rule of PROTOCOL section 4, where nobody is root by UDP.
// Its methods may be called from any number of goroutines; the fields may not change then, but for [Policy.SetRules].
type Policy struct {
	// Insecure lets callers of every host SET and UNSET, as rpcbind does with -i.
	Insecure bool
	// RootPort tells whether a datagram over loopback, from remote to local, may be taken for root's because only root can
	// send from that port. Nil says that this is never known.
	RootPort func(remote, local netip.AddrPort) bool
	// OwnAddress tells whether an address is one of this host's. Nil knows only loopback addresses and the address that
	// the call was sent to.
	OwnAddress func(netip.Addr) bool
	// Limit bounds how many datagrams are answered; nil answers all.
	Limit *Limiter

	// InterfaceName names an interface for rules that do, "" for one that isn't known.
	InterfaceName func(ifindex uint32) string
	// Connected tells whether an address is in a network of that interface, of any if the index is 0.
	Connected func(a netip.Addr, ifindex uint32) bool
	// Bound returns nil if a socket of the owner is bound to the port of a registration, for [Rules.StrictSet].
	Bound func(owner string, b rpcbind.RPCB) error

	limited atomic.Uint64
	rules   atomic.Pointer[Rules] // nil: none
}

// SetRules replaces the rules, for the calls that come from now on.
func (p *Policy) SetRules(r Rules) {
	if r.Hosts != nil && r.Hosts.Empty() {
		r.Hosts = nil
	}
	r.open = r.Hosts == nil && len(r.Allow) == 0 && len(r.Deny) == 0 && r.Exposure == World
	p.rules.Store(&r)
}

var _ portmap.Policy = (*Policy)(nil)

// MayRegister tells whether the caller may SET and UNSET: a caller on the local socket, or one from 127.0.0.1 or ::1
// that arrived on the loopback interface. The address alone is not enough, because a neighbour can send it where
// net.ipv4.conf.*.route_localnet is set (CVE-2020-8558).
func (p *Policy) MayRegister(from portmap.Caller) bool {
	if p.Insecure || from.Transport == portmap.Local {
		return true
	}
	source := from.Remote.Addr().Unmap()
	return from.Loopback && (source == loopback4 || source == loopback6)
}

// Owner returns the owner of the caller's registrations: "superuser" for uid 0, another uid in decimal, or "unknown". The uid
// is known for the local socket and for TCP connections over loopback. A datagram over loopback is root's from a port that
// only root can send from, else nobody's.
func (p *Policy) Owner(from portmap.Caller) string {
	switch {
	case from.HasUID:
		return ownerOf(from.UID)
	case from.Transport.Datagram() && from.Loopback && p.RootPort != nil && p.RootPort(from.Remote, from.Local):
		return rpcbind.OwnerSuperuser
	}
	return rpcbind.OwnerUnknown
}

func ownerOf(uid uint32) string {
	if uid == 0 {
		return rpcbind.OwnerSuperuser
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// MayAnswer tells whether a datagram is answered. Those of this host always are, and don't count for its network.
func (p *Policy) MayAnswer(from portmap.Caller) bool {
	if p.Limit == nil || from.Loopback || p.ours(from) || p.Limit.take(from.Remote.Addr()) {
		return true
	}
	p.limited.Add(1)
	return false
}

// Limited returns how many datagrams MayAnswer refused.
func (p *Policy) Limited() uint64 { return p.limited.Load() }

// MayAmplify tells whether a datagram's answer may be larger than the call: only if it goes to this host itself, to a
// network that a rule allows such calls, or to whom [UDPLists] names.
func (p *Policy) MayAmplify(from portmap.Caller, class portmap.Class) bool {
	if p.ours(from) || p.listed(from, class) {
		return true
	}
	lists := p.UDPLists()
	return lists == AllLists || lists == ConnectedLists && p.neighbour(from) && (p.Limit == nil || p.Limit.takeList())
}

// UDPLists returns who gets lists over UDP.
func (p *Policy) UDPLists() UDPLists {
	if r := p.rules.Load(); r != nil {
		return r.UDPLists
	}
	return ConnectedLists
}

// The hop limits that hosts begin with: Linux, macOS and the BSDs; Windows; Solaris.
const (
	hops64  = 64
	hops128 = 128
	hops255 = 255
)

// neighbour tells whether a datagram came from a host of the own network: its source is a private, unique-local or link-local
// address of a network of the interface that it arrived on, and no router has passed it on. Who forges that from beyond a
// router needs one that lets the network's own addresses in from outside, and has to know how many routers there are;
// [Limiter.takeList] bounds what that is worth.
func (p *Policy) neighbour(from portmap.Caller) bool {
	switch from.Hops {
	case hops64, hops128, hops255:
	default:
		return false
	}
	source := from.Remote.Addr().Unmap()
	return !from.Multicast && from.Ifindex != 0 && (source.IsPrivate() || source.IsLinkLocalUnicast()) &&
		p.Connected != nil && p.Connected(source, from.Ifindex)
}

// ours tells whether what is sent to the caller goes to this host itself. A neighbour can forge our own address as well, but
// then nobody beside us gets the answer. The interface is not asked, because the kernel names that of the address, not
// loopback, for what we send to our own address.
func (p *Policy) ours(from portmap.Caller) bool {
	if from.Transport == portmap.Local {
		return true
	}
	source := from.Remote.Addr().Unmap()
	if !source.IsValid() {
		return false
	}
	if source.IsLoopback() || source == from.Local.Addr().Unmap() {
		return true
	}
	// A link-local address of ours may be a neighbour's on another link.
	return !source.IsLinkLocalUnicast() && p.OwnAddress != nil && p.OwnAddress(source)
}
