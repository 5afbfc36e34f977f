package registry

import (
	"errors"
	"net/netip"
	"unicode"
	"unicode/utf8"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// What [Validate] finds wrong with a registration.
var (
	ErrProgramZero = errors.New("program 0")
	ErrBadNetid    = errors.New("netid is empty or not printable ASCII")
	ErrBadAddr     = errors.New("address is not a universal address of its netid")
)

// Validate checks the form of a registration, so that the table holds nothing that a client could not use or a
// terminal should not see: a program other than 0, a netid of printable ASCII, and for udp, tcp, udp6 and tcp6 a
// universal address of that family (RFC 5665 section 5.2.3), which it returns taken apart. Other netids (local,
// rdma, sctp, ticots …) may have any printable address.
func Validate(b rpcbind.RPCB) (netip.AddrPort, error) {
	if b.Program == 0 {
		return netip.AddrPort{}, ErrProgramZero
	}
	if !graphic(string(b.Netid)) {
		return netip.AddrPort{}, ErrBadNetid
	}
	transport, known := b.Netid.Transport()
	if !known || !transport.IP() {
		if !printable(b.Addr) {
			return netip.AddrPort{}, ErrBadAddr
		}
		return netip.AddrPort{}, nil
	}
	ip, ok := rpcbind.ParseUAddr(b.Addr)
	if !ok || ip.Addr().Is4() != (transport.Family == "inet") {
		return netip.AddrPort{}, ErrBadAddr
	}
	return ip, nil
}

func graphic(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}
