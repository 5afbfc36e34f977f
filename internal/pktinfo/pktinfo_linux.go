package pktinfo

import (
	"encoding/binary"
	"net/netip"
	"syscall"
)

const (
	// size4 is that of struct in_pktinfo in octets: interface, our address, the address sent to; 4 each.
	size4 = 12
	// size6 is that of struct in6_pktinfo in octets: the address sent to, 16, and the interface, 4.
	size6 = 20
)

// Size is the room for the control messages of a datagram in octets. On a socket of both versions of IP an IPv4 datagram
// has both kinds, each behind a header and padded; the rest is for what a socket that was passed on may ask for besides,
// because the kernel drops what doesn't fit.
const Size = 256

// Enable makes the kernel tell of each datagram how it arrived, and false says that it won't.
func Enable(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var v4, v6 error
	err = raw.Control(func(fd uintptr) {
		v4 = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		v6 = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
	})
	return err == nil && (v4 == nil || v6 == nil) // an IPv4 socket refuses the second
}

// Parse reads the control messages that came with a datagram. Of both kinds that for IPv4 counts: it alone has an address
// by which a broadcast can be answered.
func Parse(control []byte) Arrival {
	var a Arrival
	for len(control) >= syscall.SizeofCmsghdr {
		n := length(control)
		if n < syscall.SizeofCmsghdr || n > len(control) {
			break
		}
		level := binary.NativeEndian.Uint32(control[syscall.SizeofCmsghdr-8:])
		kind := binary.NativeEndian.Uint32(control[syscall.SizeofCmsghdr-4:])
		data := control[syscall.SizeofCmsghdr:n]
		switch {
		case level == syscall.IPPROTO_IP && kind == syscall.IP_PKTINFO && len(data) >= size4:
			return arrival4(data)
		case level == syscall.IPPROTO_IPV6 && kind == syscall.IPV6_PKTINFO && len(data) >= size6:
			a = arrival6(data)
		}
		control = control[min(syscall.CmsgSpace(len(data)), len(control)):]
	}
	return a
}

func arrival4(data []byte) Arrival {
	ours, to := netip.AddrFrom4([4]byte(data[4:8])), netip.AddrFrom4([4]byte(data[8:12]))
	a := Arrival{Ifindex: binary.NativeEndian.Uint32(data), Group: to.IsMulticast()}
	if !ours.IsUnspecified() { // as it is for what arrived before Enable
		a.Local, a.Group = ours, ours != to
	}
	return a
}

func arrival6(data []byte) Arrival {
	to := netip.AddrFrom16([16]byte(data[:16])).Unmap()
	a := Arrival{Ifindex: binary.NativeEndian.Uint32(data[16:]), Group: to.IsMulticast()}
	if !a.Group && !to.IsUnspecified() {
		a.Local = to
	}
	return a
}

// AppendControl appends the control message that makes an answer leave by a.Local; nothing where the kernel has to choose.
// The interface is named only for a link-local address, which means nothing without it: else the way back may be another.
func (a Arrival) AppendControl(dst []byte) []byte {
	switch {
	case !a.Local.IsValid():
		return dst
	case a.Local.Is4():
		dst, data := appendMessage(dst, syscall.IPPROTO_IP, syscall.IP_PKTINFO, size4)
		*(*[4]byte)(data[4:]) = a.Local.As4()
		return dst
	}
	dst, data := appendMessage(dst, syscall.IPPROTO_IPV6, syscall.IPV6_PKTINFO, size6)
	*(*[16]byte)(data) = a.Local.As16()
	if a.Local.IsLinkLocalUnicast() {
		binary.NativeEndian.PutUint32(data[16:], a.Ifindex)
	}
	return dst
}

// appendMessage appends a struct cmsghdr, a length of the size of a pointer, level and type, and room for n octets of data,
// which it returns too.
func appendMessage(dst []byte, level, kind uint32, n int) (longer, data []byte) {
	start := len(dst)
	var zeros [Size]byte
	dst = append(dst, zeros[:syscall.CmsgSpace(n)]...)
	b := dst[start:]
	if syscall.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(b, uint64(syscall.CmsgLen(n)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(syscall.CmsgLen(n)))
	}
	binary.NativeEndian.PutUint32(b[syscall.SizeofCmsghdr-8:], level)
	binary.NativeEndian.PutUint32(b[syscall.SizeofCmsghdr-4:], kind)
	return dst, b[syscall.SizeofCmsghdr:]
}

// length is that of a control message as its header tells it; -1 for one that no buffer can have.
func length(control []byte) int {
	if syscall.SizeofCmsghdr == 16 {
		if n := binary.NativeEndian.Uint64(control); n <= 1<<30 {
			return int(n)
		}
		return -1
	}
	if n := binary.NativeEndian.Uint32(control); n <= 1<<30 {
		return int(n)
	}
	return -1
}
