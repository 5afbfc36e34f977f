package main

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// resolve returns the addresses of a host, the one to be preferred first. Besides names it takes what inet_aton(3)
// takes: scripts ask "rpcinfo -p 0" or 127.1.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if a, ok := parseShortIPv4(host); ok {
		return []netip.Addr{a}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// parseShortIPv4 reads an IPv4 address of one to four numbers, of which the last one stands for all octets that are
// left, in decimal, octal behind 0 or hexadecimal behind 0x.
func parseShortIPv4(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var all uint64
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 0, 32)
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		if err != nil || strings.Contains(part, "_") || v >= 1<<bits {
			return netip.Addr{}, false
		}
		all = all<<bits | v
	}
	return netip.AddrFrom4([4]byte{byte(all >> 24), byte(all >> 16), byte(all >> 8), byte(all)}), true
}

// ofVersion returns those of one version of IP.
func ofVersion(addrs []netip.Addr, ipv6 bool) []netip.Addr {
	var list []netip.Addr
	for _, a := range addrs {
		if a.Is4() != ipv6 {
			list = append(list, a)
		}
	}
	return list
}
