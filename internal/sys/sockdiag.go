package sys

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Constants and sizes of <linux/inet_diag.h>, octets.
const (
	diagRequestOctets  = 56 // struct inet_diag_req_v2
	diagMessageOctets  = 72 // struct inet_diag_msg
	diagAttrBytecode   = 1  // INET_DIAG_REQ_BYTECODE
	diagSourcePortGE   = 2  // INET_DIAG_BC_S_GE
	diagSourcePortLE   = 3  // INET_DIAG_BC_S_LE
	diagComparisonSize = 8  // two struct inet_diag_bc_op: the operation and its operand
	diagAnyState       = 1<<32 - 1
	diagNoCookie       = 1<<32 - 1 // INET_DIAG_NOCOOKIE, twice
	loopbackIndex      = 1         // the first interface of every network namespace
)

// diagQuery asks for one socket by both ends.
type diagQuery struct {
	protocol, family uint8
	source, dest     netip.AddrPort
	ifindex          uint32 // of a socket bound to an interface, or 0
}

// diagSocket is what the kernel tells about a socket. Its own end is source.
type diagSocket struct {
	family       uint8
	state        uint8
	source, dest netip.AddrPort // unmapped
	uid, inode   uint32
}

// diagLookups returns the queries that may find the socket at own whose peer is peer.
//
// For TCP the kernel wants the socket's own end as source. For UDP udp_dump_one has it the other way round "for historical
// reasons"; the answer always has the own end as source.
//
// An AF_INET query finds AF_INET6 sockets that carry IPv4 too, in the kernels at hand; the one with mapped addresses is for
// those where it does not. A socket bound to an interface (SO_BINDTODEVICE) is found only by naming that, and callers of
// interest are on loopback.
func diagLookups(protocol uint8, own, peer netip.AddrPort) []diagQuery {
	families := []uint8{unix.AF_INET6}
	if own.Addr().Is4() {
		families = []uint8{unix.AF_INET, unix.AF_INET6}
	}
	source, dest := own, peer
	if protocol == unix.IPPROTO_UDP {
		source, dest = peer, own
	}
	var queries []diagQuery
	for _, ifindex := range []uint32{0, loopbackIndex} {
		for _, family := range families {
			queries = append(queries, diagQuery{protocol, family, source, dest, ifindex})
		}
	}
	return queries
}

// ask returns the socket, or the kernel's errno: ENOENT if there is none.
func (q diagQuery) ask(c *netlinkConn) (diagSocket, error) {
	var s diagSocket
	parsed := false
	err := c.request(unix.SOCK_DIAG_BY_FAMILY, 0, q.append(nil), func(typ uint16, b []byte) {
		if typ == unix.SOCK_DIAG_BY_FAMILY {
			s, parsed = parseDiag(b)
		}
	})
	if err == nil && !parsed {
		err = errors.New("the answer is not an inet_diag_msg")
	}
	return s, err
}

// append encodes struct inet_diag_req_v2. Ports and addresses are in network order, the rest in the host's.
//
//	 0        8        16       24      31
//	+--------+--------+--------+--------+
//	| family |protocol|  ext   |   pad  |
//	| states                            |
//	| source port     | dest port       |  \
//	| source address, 16 octets         |   | struct inet_diag_sockid, 48 octets
//	| dest address, 16 octets           |   |
//	| interface                         |   |
//	| cookie, 8 octets                  |  /
//	+-----------------------------------+
func (q diagQuery) append(dst []byte) []byte {
	order := binary.NativeEndian
	dst = append(dst, q.family, q.protocol, 0, 0)
	dst = order.AppendUint32(dst, diagAnyState)
	dst = binary.BigEndian.AppendUint16(dst, q.source.Port())
	dst = binary.BigEndian.AppendUint16(dst, q.dest.Port())
	dst = q.appendAddr(dst, q.source.Addr())
	dst = q.appendAddr(dst, q.dest.Addr())
	dst = order.AppendUint32(dst, q.ifindex)
	dst = order.AppendUint32(dst, diagNoCookie)
	return order.AppendUint32(dst, diagNoCookie)
}

func (q diagQuery) appendAddr(dst []byte, a netip.Addr) []byte {
	var b [16]byte
	switch {
	case !a.IsValid():
	case q.family == unix.AF_INET:
		v4 := a.As4()
		copy(b[:], v4[:])
	default:
		b = a.As16()
	}
	return append(dst, b[:]...)
}

// parseDiag reads struct inet_diag_msg:
//
//	uint8 family, state, timer, retransmissions; struct inet_diag_sockid (as in the request);
//	uint32 expires, receive queue, send queue, uid, inode
func parseDiag(b []byte) (diagSocket, bool) {
	if len(b) < diagMessageOctets {
		return diagSocket{}, false
	}
	s := diagSocket{family: b[0], state: b[1]}
	addr := func(at int) netip.Addr {
		if s.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[at:]))
		}
		return netip.AddrFrom16([16]byte(b[at:])).Unmap()
	}
	s.source = netip.AddrPortFrom(addr(8), binary.BigEndian.Uint16(b[4:]))
	s.dest = netip.AddrPortFrom(addr(24), binary.BigEndian.Uint16(b[6:]))
	s.uid = binary.NativeEndian.Uint32(b[64:])
	s.inode = binary.NativeEndian.Uint32(b[68:])
	return s, true
}

// isPeer tells whether s is a live TCP socket at own that has finished a handshake with peer, which hasn't closed. A socket in
// TIME_WAIT, a connection not yet accepted and one whose process is gone have no inode and would show uid 0.
func (s diagSocket) isPeer(own, peer netip.AddrPort) bool {
	switch s.state {
	case stateEstablished, stateFinWait1, stateFinWait2: // the latter after shutdown(2)
		return s.inode != 0 && s.source == own && s.dest == peer
	}
	return false
}

// appendPortFilter encodes the kernel's filter program "source port >= port and <= port" as an attribute; the equality has
// an operation of its own only since Linux 5.8. An operation is uint8 code, uint8 offset if true, uint16 offset if false; an
// offset of 4 past the end rejects the socket. The operand is the uint16 of the following one.
func appendPortFilter(dst []byte, port uint16) []byte {
	order := binary.NativeEndian
	const program = 2 * diagComparisonSize
	dst = order.AppendUint16(dst, unix.SizeofNlAttr+program)
	dst = order.AppendUint16(dst, diagAttrBytecode)
	for at, code := range []byte{diagSourcePortGE, diagSourcePortLE} {
		rest := program - at*diagComparisonSize
		dst = append(dst, code, diagComparisonSize)
		dst = order.AppendUint16(dst, uint16(rest+4))
		dst = append(dst, 0, 0)
		dst = order.AppendUint16(dst, port)
	}
	return dst
}
