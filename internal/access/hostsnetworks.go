package access

import (
	"net/netip"
	"strconv"
	"strings"
)

// bracketed reads [address] or [network]/bits. The library takes IPv6 addresses alone there, so nothing else opens. A line
// that closes may be meant for more: an IPv4 address counts, and one with a zone on every link.
func (p *hostsParser) bracketed(tok string, closes bool) hostPattern {
	net, mask, hasMask := strings.Cut(tok, "/")
	a, err := netip.ParseAddr(strings.Trim(net, "[]"))
	bits := a.BitLen()
	if hasMask {
		bits = atoi(mask)
	}
	plain := err == nil && a.Is6() && a.Zone() == "" && net == "["+strings.Trim(net, "[]")+"]"
	switch {
	case closes && hasMask && oddNumber(mask):
		p.warn("network %s isn't plain: the line %s", tok, counts(closes))
		return hostPattern{kind: unjudged}
	case err != nil, bits > a.BitLen(), !plain && !closes, oddNumber(mask):
		p.warn("%s isn't an IPv6 address or network: it matches nobody", tok)
		return hostPattern{}
	}
	return hostPattern{kind: network, prefix: netip.PrefixFrom(a, bits).Masked()}
}

// oddNumber tells whether C may read another number in s than stands there: with a sign, beyond an int, or octal or hexadecimal in
// an address.
func oddNumber(s string) bool {
	address := strings.Contains(s, ".")
	for _, part := range strings.Split(s, ".") {
		switch {
		case part == "" || strings.IndexByte("+-0123456789", part[0]) < 0: // no number
		case len(part) > 3, part[0] == '+', part[0] == '-', address && len(part) > 1 && part[0] == '0':
			return true
		}
	}
	return false
}

// masked reads net/mask, with a mask as an address or in bits. Where the net has bits beyond the mask the library finds
// nobody in it.
func (p *hostsParser) masked(net, mask string) hostPattern {
	tok := net + "/" + mask
	a, err := netip.ParseAddr(net)
	if err != nil || !a.Is4() {
		p.warn("bad network %s: it matches nobody", tok)
		return hostPattern{}
	}
	m := uint32(0)
	quad, err := netip.ParseAddr(mask)
	bits := atoi(mask)
	switch {
	case err == nil && quad.Is4() && number4(quad) != 0xffffffff:
		m = number4(quad)
	case strings.Count(mask, ".") < 3 && bits >= 1 && bits <= 32:
		m = uint32(uint64(0xffffffff00000000) >> bits)
	default:
		p.warn("bad mask in %s: it matches nobody, as with the tcpd library; ALL means everybody, and an address stands without a mask", tok)
		return hostPattern{}
	}
	if number4(a)&m != number4(a) {
		p.warn("network %s has bits beyond its mask: it matches nobody, as with the tcpd library", tok)
	}
	return hostPattern{kind: masked, net4: number4(a), mask4: m}
}

// atoi is that of C: the number that s begins with.
func atoi(s string) int {
	end := 0
	for end < len(s) && end < 4 && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.Atoi(s[:end]) // nothing is 0
	return n
}
