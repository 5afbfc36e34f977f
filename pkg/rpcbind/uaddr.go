package rpcbind

import (
	"net/netip"
	"strconv"
)

// MaxUAddrSize is the length in octets of the longest universal address of an IP transport.
const MaxUAddrSize = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff.255.255")

// ParseUAddr reads a universal address of an IP transport (RFC 5665 section 5.2.3): an IPv4 or IPv6 address in
// its usual form, and the port's high and low octet in decimal, each behind a dot:
//
//	192.168.0.1.8.1     ::1.0.111     fe80::1.3.233
//
// It is strict: every octet from 0 to 255 without leading zeros, no zone, nothing before or after. An IPv4-mapped
// IPv6 address stays an IPv6 address.
func ParseUAddr[T string | []byte](s T) (netip.AddrPort, bool) {
	host, low, ok1 := cutOctet(s)
	host, high, ok2 := cutOctet(host)
	if !ok1 || !ok2 {
		return netip.AddrPort{}, false
	}
	a, ok := parseIP(host)
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(high)<<8|uint16(low)), true
}

// cutOctet takes ".ddd" off the end of s.
func cutOctet[T string | []byte](s T) (rest T, octet byte, ok bool) {
	for i := len(s) - 1; i >= 0 && i >= len(s)-4; i-- {
		if s[i] == '.' {
			octet, ok = parseOctet(s[i+1:])
			return s[:i], octet, ok
		}
	}
	return s, 0, false
}

func parseOctet[T string | []byte](s T) (byte, bool) {
	if len(s) == 0 || len(s) > 3 || (len(s) > 1 && s[0] == '0') {
		return 0, false
	}
	v := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		v = v*10 + int(s[i]-'0')
	}
	return byte(v), v <= 255
}

// parseIP reads an IP address. It works as [netip.ParseAddr] does, which would have to be given a string and so
// cost an allocation on the path of every GETADDR that carries a hint.
func parseIP[T string | []byte](s T) (netip.Addr, bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == ':' {
			return parseIPv6(s)
		}
	}
	a, ok := parseIPv4(s)
	return netip.AddrFrom4(a), ok
}

func parseIPv4[T string | []byte](s T) (a [4]byte, ok bool) {
	for i := 3; i > 0; i-- {
		if s, a[i], ok = cutOctet(s); !ok {
			return a, false
		}
	}
	a[0], ok = parseOctet(s)
	return a, ok
}

func parseIPv6[T string | []byte](s T) (netip.Addr, bool) {
	var a [16]byte
	n, gap := 0, -1 // octets read; where "::" stood
	if len(s) >= 2 && s[0] == ':' && s[1] == ':' {
		gap, s = 0, s[2:]
	}
	for len(s) > 0 {
		if n == len(a) {
			return netip.Addr{}, false
		}
		group, rest, digits := cutHex(s)
		if len(rest) > 0 && rest[0] == '.' { // the last 32 bits in IPv4's form
			v4, ok := parseIPv4(s)
			if !ok || n+4 > len(a) {
				return netip.Addr{}, false
			}
			n += copy(a[n:], v4[:])
			break
		}
		if digits == 0 {
			return netip.Addr{}, false
		}
		a[n], a[n+1] = byte(group>>8), byte(group)
		n += 2
		if len(rest) == 0 {
			break
		}
		if rest[0] != ':' || len(rest) == 1 {
			return netip.Addr{}, false
		}
		s = rest[1:]
		if s[0] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap, s = n, s[1:]
		}
	}
	switch {
	case gap >= 0 && n < len(a):
		copy(a[len(a)-(n-gap):], a[gap:n])
		clear(a[gap : len(a)-(n-gap)])
	case gap >= 0 || n < len(a):
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(a), true
}

// cutHex takes up to four hexadecimal digits off the front of s.
func cutHex[T string | []byte](s T) (v uint32, rest T, digits int) {
	for digits < len(s) && digits < 4 {
		c := lower(s[digits])
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | uint32(c-'0')
		case 'a' <= c && c <= 'f':
			v = v<<4 | uint32(c-'a'+10)
		default:
			return v, s[digits:], digits
		}
		digits++
	}
	return v, s[digits:], digits
}

// AppendUAddr appends the universal address of an IP address and port (RFC 5665 section 5.2.3), at most
// [MaxUAddrSize] octets. A zone is left out: a universal address has no place for one. An AddrPort without an
// address gives a string that isn't a universal address.
func AppendUAddr(dst []byte, ap netip.AddrPort) []byte {
	dst = appendIP(dst, ap.Addr().WithZone(""))
	port := ap.Port()
	dst = strconv.AppendUint(append(dst, '.'), uint64(port>>8), 10)
	return strconv.AppendUint(append(dst, '.'), uint64(port&0xff), 10)
}

// UAddr returns the universal address of an IP address and port as a string.
func UAddr(ap netip.AddrPort) string { return string(AppendUAddr(nil, ap)) }

// appendIP writes an address as the C library's inet_ntop does: it differs from netip in the form of the
// long-deprecated IPv4-compatible addresses, "::1.2.3.4" and not "::102:304", and replies are compared with those
// of rpcbind octet by octet.
func appendIP(dst []byte, a netip.Addr) []byte {
	if a.Is6() {
		b := a.As16()
		if [12]byte(b[:12]) == [12]byte{} && (b[12] != 0 || b[13] != 0) {
			return netip.AddrFrom4([4]byte(b[12:])).AppendTo(append(dst, "::"...))
		}
	}
	return a.AppendTo(dst)
}
