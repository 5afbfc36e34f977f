package portmap

import (
	"encoding/binary"
	"net/netip"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// Transport addresses are the host's socket addresses (PROTOCOL section 5): struct sockaddr_in, sockaddr_in6 and
// sockaddr_un of Linux, whose family is in the byte order of the machine.
//
//	inet    family 2   port 2   address 4    zeros 8
//	inet6   family 2   port 2   flowinfo 4   address 16   scope 4
//	local   family 2   path, without its zero
const (
	familyLocal, familyIPv4, familyIPv6 = 1, 2, 10

	sockaddrIn    = 16  // octets
	sockaddrIn6   = 28  // octets
	sockaddrUn    = 110 // octets: the family and a path of at most 108 with its zero
	sockaddrUnMin = 2   // octets: the family
	maxPath       = sockaddrUn - sockaddrUnMin
)

// uaddr2taddr is UADDR2TADDR of versions 3 and 4: a universal address of the call's transport to a netbuf with the
// host's socket address; an empty one if it isn't one.
func uaddr2taddr(dst []byte, r *request) []byte {
	uaddr, ok := readString(r.Args)
	if !ok {
		return appendGarbageArgs(dst, r)
	}
	dst = appendSuccess(dst, r)
	uaddr = cString(uaddr)
	if r.from.Transport == Local {
		return appendLocalTAddr(dst, uaddr)
	}
	ap, ok := rpcbind.ParseUAddr(uaddr)
	if !ok || ap.Addr().Is6() != r.from.Transport.IPv6() {
		return appendNetbuf(dst, 0, nil)
	}
	var buf [sockaddrIn6]byte
	binary.BigEndian.PutUint16(buf[2:], ap.Port())
	if ap.Addr().Is4() {
		binary.NativeEndian.PutUint16(buf[:], familyIPv4)
		a := ap.Addr().As4()
		copy(buf[4:], a[:])
		return appendNetbuf(dst, sockaddrIn, buf[:sockaddrIn])
	}
	binary.NativeEndian.PutUint16(buf[:], familyIPv6)
	a := ap.Addr().As16()
	copy(buf[8:], a[:])
	return appendNetbuf(dst, sockaddrIn6, buf[:])
}

// appendLocalTAddr appends the netbuf of a path. What doesn't begin with a slash is taken for an address with a
// port, of which the host's part remains, as libtirpc does it.
func appendLocalTAddr(dst, path []byte) []byte {
	if len(path) == 0 || path[0] != '/' {
		ok := false
		for range 2 {
			if path, ok = cutLastDot(path); !ok {
				return appendNetbuf(dst, 0, nil)
			}
		}
	}
	if len(path) >= maxPath {
		return appendNetbuf(dst, 0, nil)
	}
	var buf [sockaddrUn]byte
	binary.NativeEndian.PutUint16(buf[:], familyLocal)
	n := copy(buf[sockaddrUnMin:], path)
	return appendNetbuf(dst, sockaddrUn, buf[:sockaddrUnMin+n])
}

func cutLastDot(s []byte) ([]byte, bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '.' {
			return s[:i], true
		}
	}
	return nil, false
}

// appendNetbuf appends a netbuf (RFC 1833 section 2.1): the size of the buffer and the address in it.
func appendNetbuf(dst []byte, maxlen uint32, addr []byte) []byte {
	return xdr.AppendOpaque(xdr.AppendUint32(dst, maxlen), addr)
}

// taddr2uaddr is TADDR2UADDR of versions 3 and 4: a netbuf with a socket address of the call's transport to its
// universal address; "" if it is too short to be one. The family in it isn't looked at, and a buffer that claims to
// be larger than any call isn't decoded, as in libtirpc.
func taddr2uaddr(dst []byte, r *request) []byte {
	d := xdr.NewDecoder(r.Args)
	maxlen := d.Uint32()
	addr := d.Opaque(maxlen)
	if d.Err() != nil || maxlen > maxString {
		return appendGarbageArgs(dst, r)
	}
	dst = appendSuccess(dst, r)
	var ip netip.Addr
	switch {
	case r.from.Transport == Local:
		return xdr.AppendOpaque(dst, localUAddr(addr))
	case r.from.Transport.IPv6() && len(addr) >= sockaddrIn6:
		ip = netip.AddrFrom16([16]byte(addr[8:24]))
	case !r.from.Transport.IPv6() && len(addr) >= sockaddrIn:
		ip = netip.AddrFrom4([4]byte(addr[4:8]))
	default:
		return xdr.AppendString(dst, "")
	}
	var buf [rpcbind.MaxUAddrSize]byte
	ap := netip.AddrPortFrom(ip, binary.BigEndian.Uint16(addr[2:]))
	return xdr.AppendOpaque(dst, rpcbind.AppendUAddr(buf[:0], ap))
}

func localUAddr(addr []byte) []byte {
	if len(addr) < sockaddrUnMin {
		return nil
	}
	return cString(addr[sockaddrUnMin:])
}
