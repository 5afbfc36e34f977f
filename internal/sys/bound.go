package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Socket states of <net/tcp_states.h>; UDP has the first two of these, Unix sockets all but the last two.
const (
	stateEstablished   = 1 // UDP: connected
	stateFinWait1      = 4
	stateFinWait2      = 5
	stateClose         = 7 // UDP: bound without a peer; Unix: bound, perhaps, but not listening
	stateCloseWait     = 8
	stateListen        = 10
	stateBoundInactive = 13 // TCP: bound and nothing more; dumped since Linux 6.8
	diagAttrV6Only     = 11 // INET_DIAG_SKV6ONLY, one octet
)

// dumpAttempts bounds how often a dump is repeated that was interrupted by a change.
const dumpAttempts = 3

// A BoundSocket is a socket of this network namespace that is bound to a port or a path.
type BoundSocket struct {
	// Netid is "udp", "tcp", "udp6", "tcp6" or "local". One of the IPv6 family at an IPv4-mapped address is "udp" or
	// "tcp".
	Netid string
	// Addr is what the socket is bound to, unmapped, without a zone; zero for local.
	Addr netip.AddrPort
	// Path is the name of a local socket as it was bound, "@name" in the abstract namespace; empty for the others.
	Path string
	// DualStack says that an IPv6 socket at the wildcard serves IPv4 too, or that the kernel doesn't tell.
	DualStack bool
	// Serving says that requests get there: TCP and local: it listens; UDP: it has no peer.
	Serving bool
	// Inode is its number in the links of /proc/PID/fd, "socket:[Inode]"; 0 for one that no process has any more
	// (TIME_WAIT and the like) and, perhaps, for one of the kernel's own.
	Inode uint32
	// UID is the user whose process made it; HasUID says whether that is known.
	UID    uint32
	HasUID bool
}

// String is the netid with the address or path, as in "udp 0.0.0.0:111".
func (s BoundSocket) String() string {
	if s.Netid == "local" {
		return s.Netid + " " + s.Path
	}
	return s.Netid + " " + s.Addr.String()
}

// A BoundTable is what was bound at one moment; see BoundSockets.
type BoundTable []BoundSocket

// BoundSockets returns every UDP and TCP socket of this network namespace to which requests get, for those who have many
// questions for Covers. The error means that the kernel can't say.
func BoundSockets() (BoundTable, error) {
	var t BoundTable
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		s, err := socketsAt(protocol, servingStates(protocol), 0, unix.AF_INET, unix.AF_INET6)
		if err != nil {
			return nil, fmt.Errorf("bound sockets: %w", err)
		}
		t = append(t, s...)
	}
	return t, nil
}

// Bound tells whether a socket of this network namespace gets what is sent to addr, which is one of this host's: for
// "tcp" and "tcp6" one that listens, for "udp" and "udp6" one without a peer; bound to addr or to the wildcard, that of
// IPv6 counting for IPv4 unless the socket is IPv6-only. For addr the wildcard, any address will do. Sockets of the kernel
// itself, as NFS has them, count although no process owns them. The error means that the kernel can't say, or that netid is
// none of these four.
func Bound(netid string, addr netip.AddrPort) (bool, error) {
	list, err := BoundBy(netid, addr)
	return len(list) > 0, err
}

// BoundBy returns the sockets of which [Bound] tells that there are some.
func BoundBy(netid string, addr netip.AddrPort) ([]BoundSocket, error) {
	protocol, err := protocolOf(netid)
	if err != nil {
		return nil, fmt.Errorf("who is bound to %s %v: %w", netid, addr, err)
	}
	t, err := socketsAt(protocol, servingStates(protocol), addr.Port(), familiesFor(addr.Addr().Unmap())...)
	if err != nil {
		return nil, fmt.Errorf("who is bound to %s %v: %w", netid, addr, err)
	}
	return slices.DeleteFunc(t, func(s BoundSocket) bool { return !BoundTable{s}.Covers(netid, addr) }), nil
}

// Covers is Bound for the moment that t was taken at; false for a netid that it knows nothing of.
func (t BoundTable) Covers(netid string, addr netip.AddrPort) bool {
	return slices.ContainsFunc(t, func(s BoundSocket) bool { return s.gets(netid, addr) })
}

// At returns the sockets for which Covers says true.
func (t BoundTable) At(netid string, addr netip.AddrPort) []BoundSocket {
	var found []BoundSocket
	for _, s := range t {
		if s.gets(netid, addr) {
			found = append(found, s)
		}
	}
	return found
}

// gets tells whether what is sent to addr over netid gets to s.
func (s BoundSocket) gets(netid string, addr netip.AddrPort) bool {
	addr = unmap(addr)
	return s.Serving && s.Addr.Port() == addr.Port() && strings.TrimSuffix(s.Netid, "6") == strings.TrimSuffix(netid, "6") &&
		s.covers(addr.Addr())
}

// covers tells whether what is sent to a, an address of this host, gets to s. A wildcard for a asks for any address.
func (s BoundSocket) covers(a netip.Addr) bool {
	bound := s.Addr.Addr()
	switch {
	case bound.Is4() == a.Is4():
		return bound == a || bound.IsUnspecified() || a.IsUnspecified()
	case a.Is4():
		return s.DualStack
	}
	return false
}

// Conflicts returns the sockets of this network namespace that may keep an IPv6-only or IPv4 socket from being bound to
// addr: those at the same address, at the wildcard, or, if addr is the wildcard, at any. For TCP those that serve come
// alone if there are any, for others seldom stand in the way then. The error means that the kernel can't say, or that
// netid is none of "udp", "tcp", "udp6" and "tcp6".
func Conflicts(netid string, addr netip.AddrPort) ([]BoundSocket, error) {
	addr = unmap(addr)
	protocol, err := protocolOf(netid)
	if err != nil {
		return nil, fmt.Errorf("who holds %s %v: %w", netid, addr, err)
	}
	all, err := socketsAt(protocol, diagAnyState, addr.Port(), familiesFor(addr.Addr())...)
	if err != nil {
		return nil, fmt.Errorf("who holds %s %v: %w", netid, addr, err)
	}
	var serving, others []BoundSocket
	for _, s := range all {
		switch {
		case !s.covers(addr.Addr()):
		case s.Serving || protocol == unix.IPPROTO_UDP:
			serving = append(serving, s)
		default:
			others = append(others, s)
		}
	}
	if len(serving) > 0 {
		return serving, nil
	}
	return others, nil
}

func protocolOf(netid string) (uint8, error) {
	switch netid {
	case "udp", "udp6":
		return unix.IPPROTO_UDP, nil
	case "tcp", "tcp6":
		return unix.IPPROTO_TCP, nil
	}
	return 0, fmt.Errorf("%w: the netid must be udp, tcp, udp6 or tcp6", unix.EPROTONOSUPPORT)
}

// familiesFor returns the families whose sockets may get what is sent to a.
func familiesFor(a netip.Addr) []uint8 {
	if a.Is4() {
		return []uint8{unix.AF_INET, unix.AF_INET6}
	}
	return []uint8{unix.AF_INET6}
}

// servingStates is the set of states, as bits, in which a socket serves.
func servingStates(protocol uint8) uint32 {
	if protocol == unix.IPPROTO_TCP {
		return 1 << stateListen
	}
	return 1 << stateClose
}

// socketsAt asks sock_diag and, where that is missing or forbidden, reads /proc/net.
func socketsAt(protocol uint8, states uint32, port uint16, families ...uint8) ([]BoundSocket, error) {
	sockets, err := diagSocketsAt(protocol, states, port, families)
	if err == nil {
		return sockets, nil
	}
	sockets, procErr := procSocketsAt(protocol, states, port, families)
	if procErr != nil {
		return nil, errors.Join(fmt.Errorf("sock_diag: %w", err), procErr)
	}
	return sockets, nil
}

func diagSocketsAt(protocol uint8, states uint32, port uint16, families []uint8) ([]BoundSocket, error) {
	c, err := dialNetlink(unix.NETLINK_SOCK_DIAG, 4*diagOctets) // 32 KiB: fewer calls for a large table
	if err != nil {
		return nil, err
	}
	defer c.close()
	var sockets []BoundSocket
	for _, family := range families {
		found, err := dumpSocketsAt(c, protocol, family, states, port)
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, found...)
	}
	return sockets, nil
}

// dumpSocketsAt returns the sockets of one family at a port, 0 for any.
func dumpSocketsAt(c *netlinkConn, protocol, family uint8, states uint32, port uint16) ([]BoundSocket, error) {
	const statesAt = 4
	// The kernel compares the port in the request before it runs the filter, in UDP's dump and in that of listeners.
	request := diagQuery{protocol: protocol, family: family, source: netip.AddrPortFrom(netip.Addr{}, port)}.append(nil)
	binary.NativeEndian.PutUint32(request[statesAt:], states)
	if port != 0 {
		request = appendPortFilter(request, port)
	}
	for attempt := 1; ; attempt++ {
		var found []BoundSocket
		err := c.request(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, request, func(typ uint16, b []byte) {
			if s, ok := parseBound(protocol, b); ok && typ == unix.SOCK_DIAG_BY_FAMILY && (port == 0 || s.Addr.Port() == port) {
				found = append(found, s)
			}
		})
		if err != errDumpInterrupted || attempt == dumpAttempts {
			return found, err
		}
	}
}

// parseBound reads struct inet_diag_msg, see parseDiag, and the attributes behind it.
func parseBound(protocol uint8, b []byte) (BoundSocket, bool) {
	d, ok := parseDiag(b)
	if !ok {
		return BoundSocket{}, false
	}
	v6only := false
	attributes(b[diagMessageOctets:], func(typ uint16, data []byte) {
		v6only = v6only || typ == diagAttrV6Only && len(data) > 0 && data[0] != 0
	})
	return boundSocket(protocol, d, b[1], v6only), true
}

func boundSocket(protocol uint8, d diagSocket, state uint8, v6only bool) BoundSocket {
	name := "udp"
	if protocol == unix.IPPROTO_TCP {
		name = "tcp"
	}
	return BoundSocket{
		Netid:     netid(name, d.source.Addr().Is6()),
		Addr:      d.source,
		DualStack: d.family == unix.AF_INET6 && d.source.Addr() == netip.IPv6Unspecified() && !v6only,
		Serving:   servingStates(protocol)>>state&1 != 0,
		Inode:     d.inode,
		UID:       d.uid,
		// The kernel says 0 for a socket without an inode, which is nobody's.
		HasUID: d.inode != 0,
	}
}
