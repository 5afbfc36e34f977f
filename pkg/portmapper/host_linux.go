package portmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/sys"
)

// socketOwner asks the kernel whose the caller's socket is.
func socketOwner(netid string, remote, local netip.AddrPort) (uint32, error) {
	uid, err := sys.SocketOwner(netid, remote, local)
	if errors.Is(err, sys.ErrNoSocket) {
		err = fmt.Errorf("%w: %w", access.ErrNoSocket, err)
	}
	return uid, err
}

// peerUID returns the user at the other end of a local connection.
func peerUID(c net.Conn) (uid uint32, ok bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	cred, err := sys.PeerCred(u)
	return cred.UID, err == nil
}

// arrivedOn returns the interface by which a connection came, 0 if that can't be told.
func arrivedOn(c net.Conn) uint32 {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	index, err := sys.ArrivalInterface(t)
	if err != nil {
		return 0
	}
	return index
}

const (
	sizePktinfo  = 12 // octets: interface, our address, the address sent to (struct in_pktinfo)
	sizePktinfo6 = 20 // octets: the address sent to, interface (struct in6_pktinfo)
)

// arrivalSize is the room for what the kernel tells of a datagram, in octets: both kinds, each with a header.
const arrivalSize = 2 * (syscall.SizeofCmsghdr + 24)

// tellArrival makes the kernel tell of each datagram where it arrived.
func tellArrival(c *net.UDPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	v4, v6 := errors.ErrUnsupported, errors.ErrUnsupported
	err = raw.Control(func(fd uintptr) {
		v4 = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		v6 = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
	})
	return err == nil && (v4 == nil || v6 == nil) // an IPv4 socket refuses the second
}

// parseArrival reads that: the address of ours that a datagram was sent to, and the interface.
func parseArrival(oob []byte) (local netip.Addr, ifindex uint32) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, 0
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_PKTINFO && len(m.Data) >= sizePktinfo:
			return netip.AddrFrom4([4]byte(m.Data[4:8])), binary.NativeEndian.Uint32(m.Data)
		case m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == syscall.IPV6_PKTINFO && len(m.Data) >= sizePktinfo6:
			local, ifindex = netip.AddrFrom16([16]byte(m.Data[:16])).Unmap(), binary.NativeEndian.Uint32(m.Data[16:])
		}
	}
	return local, ifindex
}

// leaveFrom tells the kernel by which of our addresses a datagram is to leave; nil where it has to choose.
func leaveFrom(local netip.Addr) []byte {
	switch {
	case !local.IsValid() || local.IsMulticast() || local.IsUnspecified():
		return nil
	case local.Is4():
		data := make([]byte, sizePktinfo)
		copy(data[4:], local.AsSlice())
		return controlMessage(syscall.IPPROTO_IP, syscall.IP_PKTINFO, data)
	}
	data := make([]byte, sizePktinfo6)
	copy(data, local.AsSlice())
	return controlMessage(syscall.IPPROTO_IPV6, syscall.IPV6_PKTINFO, data)
}

// controlMessage is a struct cmsghdr and its data: a length of the size of a pointer, level and type.
func controlMessage(level, kind uint32, data []byte) []byte {
	b := make([]byte, syscall.CmsgSpace(len(data)))
	length := syscall.CmsgLen(len(data))
	if syscall.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(b, uint64(length))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(length))
	}
	binary.NativeEndian.PutUint32(b[syscall.SizeofCmsghdr-8:], level)
	binary.NativeEndian.PutUint32(b[syscall.SizeofCmsghdr-4:], kind)
	copy(b[syscall.SizeofCmsghdr:], data)
	return b
}
