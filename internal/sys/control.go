package sys

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlOctets is the room for one message's ancillary data. Ours takes 120 octets at most (IP_PKTINFO, IPV6_PKTINFO
// and both hop limits, on a dual-stack socket); the rest is for what an activated socket may carry besides (timestamps,
// PassSecurity=), because the kernel drops what does not fit. It is a multiple of 8 so that every slot is aligned.
const controlOctets = 256

// arrival is what the kernel tells of a received datagram beside its source.
type arrival struct {
	local     netip.Addr
	ifindex   uint32
	multicast bool
	hops      uint8 // the time to live or hop limit that is left; 0 if the kernel didn't tell
}

// parseArrival reads IP_PKTINFO, IPV6_PKTINFO and hop limits out of a control buffer. On a dual-stack socket an IPv4 datagram carries
// both; IP_PKTINFO wins, because only it has a source address for the answer to a broadcast (ipi_spec_dst).
func parseArrival(control []byte) arrival {
	var a arrival
	var hops uint8
	v4 := false
	for len(control) >= unix.SizeofCmsghdr {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		control = rest
		switch {
		case hdr.Level == unix.SOL_IP && hdr.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			a, v4 = arrival4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))), true
		case hdr.Level == unix.SOL_IPV6 && hdr.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo && !v4:
			a = arrival6((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])))
		case len(data) >= 4 && (hdr.Level == unix.SOL_IP && hdr.Type == unix.IP_TTL ||
			hdr.Level == unix.SOL_IPV6 && hdr.Type == unix.IPV6_HOPLIMIT):
			hops = uint8(*(*int32)(unsafe.Pointer(&data[0])))
		}
	}
	a.hops = hops
	return a
}

func arrival4(p *unix.Inet4Pktinfo) arrival {
	a := arrival{ifindex: uint32(p.Ifindex), multicast: p.Addr != p.Spec_dst}
	if p.Spec_dst != [4]byte{} {
		a.local = netip.AddrFrom4(p.Spec_dst)
	}
	return a
}

func arrival6(p *unix.Inet6Pktinfo) arrival {
	dst := netip.AddrFrom16(p.Addr).Unmap()
	a := arrival{ifindex: p.Ifindex, multicast: dst.IsMulticast()}
	if !a.multicast && !dst.IsUnspecified() {
		a.local = dst
	}
	return a
}

// putSource writes the control message that makes a datagram leave from local and returns its size, 0 when the kernel is
// to choose. The interface is named only for a link-local source, which means nothing without it; for every other source
// the routing table decides, since the way back may leave by another interface than the one the call came in by.
func putSource(control []byte, local netip.Addr, ifindex uint32) int {
	switch {
	case !local.IsValid() || local.IsUnspecified():
		return 0
	case local.Is4():
		p := (*unix.Inet4Pktinfo)(putHeader(control, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo))
		*p = unix.Inet4Pktinfo{Spec_dst: local.As4()}
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	p := (*unix.Inet6Pktinfo)(putHeader(control, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo))
	*p = unix.Inet6Pktinfo{Addr: local.As16()}
	if local.IsLinkLocalUnicast() {
		p.Ifindex = ifindex
	}
	return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// putHeader writes a cmsghdr for octets of data and returns where the data goes.
func putHeader(control []byte, level, typ int32, octets int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(octets))
	return unsafe.Pointer(&control[unix.CmsgLen(0)])
}

// getAddr reads a socket address of the kernel's; the zero AddrPort for any other family.
func getAddr(name *unix.RawSockaddrInet6) netip.AddrPort {
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swapPort(v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), swapPort(name.Port))
	}
	return netip.AddrPort{}
}

// putAddr writes the socket address of a for a socket of family AF_INET6 (v6) or AF_INET and returns its size. An IPv4
// address is mapped for an IPv6 socket; an IPv6 address does not fit an IPv4 socket, nor does the zero AddrPort: size 0.
func putAddr(name *unix.RawSockaddrInet6, a netip.AddrPort, ifindex uint32, v6 bool) int {
	addr := a.Addr().Unmap()
	switch {
	case !addr.IsValid():
		return 0
	case v6:
		*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapPort(a.Port()), Addr: addr.As16()}
		if addr.Is6() && (addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast()) {
			name.Scope_id = ifindex
		}
		return unix.SizeofSockaddrInet6
	case addr.Is4():
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapPort(a.Port()), Addr: addr.As4()}
		return unix.SizeofSockaddrInet4
	}
	return 0
}

// swapPort turns a port in network order, as a raw socket address holds it, into the host's order and back.
func swapPort(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p))
	return uint16(b[0])<<8 | uint16(b[1])
}
