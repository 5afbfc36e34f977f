package portmap

import (
	"net/netip"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Transport is the kind of socket that a call came by. It decides which registrations a version 3 or 4 lookup
// sees, and which form addresses have.
type Transport uint8

// The transports that a portmapper serves.
const (
	UDP Transport = iota
	TCP
	UDP6
	TCP6
	Local
)

// Netid returns the transport's netid.
func (t Transport) Netid() rpcbind.Netid {
	return [...]rpcbind.Netid{rpcbind.UDP, rpcbind.TCP, rpcbind.UDP6, rpcbind.TCP6, rpcbind.Local}[t]
}

// TransportOf returns the transport of a netid, and false if a portmapper serves none of that name.
func TransportOf(n rpcbind.Netid) (Transport, bool) {
	for t := UDP; t <= Local; t++ {
		if t.Netid().Is(n) {
			return t, true
		}
	}
	return 0, false
}

// Datagram tells whether each call is a datagram of its own, whose source may be forged.
func (t Transport) Datagram() bool { return t == UDP || t == UDP6 }

// IPv6 tells whether the transport's addresses are IPv6 addresses.
func (t Transport) IPv6() bool { return t == UDP6 || t == TCP6 }

// Caller is who sent a call and how it arrived: only what the kernel says, nothing that the call claims.
type Caller struct {
	Transport Transport
	// Remote is the source address, without a zone; the zero value on the local socket.
	Remote netip.AddrPort
	// Local is the address of this host that the call was sent to, without a zone, and the port of the serving
	// socket. The address is the zero value on the local socket, and where a call was sent to an IPv6 multicast group.
	Local netip.AddrPort
	// Ifindex is the interface that the call arrived on, 0 if unknown. It is the scope of a link-local Remote.
	Ifindex uint32
	// Loopback tells that this interface is the loopback interface: no other host sent the call, whatever its
	// source address says.
	Loopback bool
	// Multicast tells that the call was sent to a broadcast or multicast address.
	Multicast bool
	// Hops is the time to live or hop limit that a datagram had left when it arrived, 0 if unknown.
	Hops uint8
	// UID is the uid at the other end, if HasUID is true: of the process on the local socket, of the socket of a TCP
	// connection over loopback. Nobody can tell who sent a datagram.
	UID    uint32
	HasUID bool
	// Self tells that the daemon asks itself whether it still answers.
	Self bool
}
