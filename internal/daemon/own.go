package daemon

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// ownEntries returns the registrations of program 100000 that tell where sockets are served, in rpcbind's order.
func ownEntries(sockets []*sys.Socket) []rpcbind.RPCB {
	var entries []rpcbind.RPCB
	for _, n := range []rpcbind.Netid{rpcbind.TCP6, rpcbind.UDP6, rpcbind.TCP, rpcbind.UDP, rpcbind.Local} {
		addr := ownAddr(n, sockets)
		if addr == "" {
			continue
		}
		versions := []uint32{rpcbind.RPCBVers4, rpcbind.RPCBVers3}
		if _, ok := n.Prot(); ok {
			// Version 2 is served on every transport, but its clients ask for TCP and UDP alone.
			versions = append(versions, rpcbind.PMAPVers)
		}
		for _, v := range versions {
			entries = append(entries, rpcbind.RPCB{
				Program: rpcbind.Program, Version: v, Netid: n, Addr: addr, Owner: rpcbind.OwnerSuperuser,
			})
		}
	}
	return entries
}

// ownAddr returns the address to register for a netid, "" if nothing serves it.
func ownAddr(n rpcbind.Netid, sockets []*sys.Socket) string {
	if n == rpcbind.Local {
		return localAddr(sockets)
	}
	var bound []netip.AddrPort
	for _, s := range sockets {
		switch {
		case n.Is(rpcbind.Netid(s.Netid)):
			bound = append(bound, s.Addr)
		case s.DualStack && rpcbind.Netid(s.Netid) == n+"6":
			bound = append(bound, netip.AddrPortFrom(netip.IPv4Unspecified(), s.Addr.Port()))
		}
	}
	if len(bound) == 0 {
		return ""
	}
	addr := bound[0]
	// There is room for one address: several that differ are told by the wildcard, which each caller is answered with the
	// address it asked.
	if slices.ContainsFunc(bound, func(a netip.AddrPort) bool { return a.Addr() != addr.Addr() }) {
		wildcard := netip.IPv4Unspecified()
		if addr.Addr().Is6() {
			wildcard = netip.IPv6Unspecified()
		}
		addr = netip.AddrPortFrom(wildcard, addr.Port())
	}
	return rpcbind.UAddr(addr)
}

// localAddr returns the path of the local socket, that of the abstract one only if there is no other.
func localAddr(sockets []*sys.Socket) string {
	abstract := ""
	for _, s := range sockets {
		switch {
		case s.Netid != "local":
		case !strings.HasPrefix(s.Path, "@"):
			return s.Path
		case abstract == "":
			abstract = s.Path
		}
	}
	return abstract
}
