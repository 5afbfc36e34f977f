// Package pktinfo tells to which address of this host a datagram was sent, and makes the answer leave from there: a socket
// bound to the wildcard address of a host with several leaves the choice to the routing table else, and a client that asked
// another address takes no notice of what comes. It works on Linux (ip(7) IP_PKTINFO, RFC 3542 section 6).
//
// It is for pkg/oncrpc and pkg/portmapper, which many systems build, with package net's sockets. The daemon's own loops,
// in batches and without package net, have theirs in internal/sys.
package pktinfo

import "net/netip"

// Arrival is what the kernel tells of a datagram beside its sender. The zero value is that it tells nothing.
type Arrival struct {
	Local   netip.Addr // to which of our addresses it was sent, or by which to answer a group; zero where that isn't told
	Ifindex uint32     // by which interface it came
	Group   bool       // it was sent to a broadcast or multicast address
}
