package sys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// An Interface is a network interface of our network namespace.
type Interface struct {
	Index uint32
	Name  string
	// Up is administrative (IFF_UP); the line may still be down.
	Up, Loopback, PointToPoint, Multicast bool
	// Addrs are the interface's own addresses, IPv4 before IPv6, in the kernel's order, without zone. On a point-to-point
	// link the prefix length is that of the peer. IPv6 addresses that are not in use, because their duplicate address
	// detection is under way or failed, are left out: nobody could reach us there.
	Addrs []netip.Prefix
}

// dumpTries bounds the repeats of a dump into which a change fell. The last one is taken as it is.
const dumpTries = 5

// Interfaces returns all interfaces with their addresses, in the kernel's order, as getifaddrs(3) does.
func Interfaces() ([]Interface, error) {
	c, err := dialNetlink(unix.NETLINK_ROUTE, routeOctets)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: rtnetlink: %w", err)
	}
	defer c.close()
	for try := 1; ; try++ {
		list, err := dumpInterfaces(c)
		if errors.Is(err, errDumpInterrupted) {
			if try < dumpTries {
				continue
			}
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("list interfaces: rtnetlink: %w", err)
		}
		return list, nil
	}
}

// dumpInterfaces may return a list together with errDumpInterrupted.
func dumpInterfaces(c *netlinkConn) ([]Interface, error) {
	var list []Interface
	// The payload of a dump request is the message's own header, all zero for "everything", of any family.
	links := c.request(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg), func(typ uint16, b []byte) {
		if i, ok := parseLink(b); ok && typ == unix.RTM_NEWLINK {
			list = append(list, i)
		}
	})
	if links != nil && !errors.Is(links, errDumpInterrupted) {
		return nil, links
	}
	addrs := c.request(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg), func(typ uint16, b []byte) {
		index, prefix, ok := parseAddr(b)
		if !ok || typ != unix.RTM_NEWADDR {
			return
		}
		for i := range list {
			if list[i].Index == index {
				list[i].Addrs = append(list[i].Addrs, prefix)
			}
		}
	})
	if addrs != nil && !errors.Is(addrs, errDumpInterrupted) {
		return nil, addrs
	}
	return list, errors.Join(links, addrs)
}

// parseLink reads an ifinfomsg and its attributes:
//
//	uint8 family, uint8 padding, uint16 device type, int32 index, uint32 flags, uint32 change   16 octets
func parseLink(b []byte) (Interface, bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return Interface{}, false
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	i := Interface{
		Index:        binary.NativeEndian.Uint32(b[4:]),
		Up:           flags&unix.IFF_UP != 0,
		Loopback:     flags&unix.IFF_LOOPBACK != 0,
		PointToPoint: flags&unix.IFF_POINTOPOINT != 0,
		Multicast:    flags&unix.IFF_MULTICAST != 0,
	}
	attributes(b[unix.SizeofIfInfomsg:], func(typ uint16, data []byte) {
		if typ == unix.IFLA_IFNAME {
			i.Name = string(bytes.TrimRight(data, "\x00"))
		}
	})
	return i, true
}

// parseAddr reads an ifaddrmsg and its attributes; not ok also for an address that is not in use.
//
//	uint8 family, uint8 prefix length, uint8 flags, uint8 scope, uint32 interface index   8 octets
func parseAddr(b []byte) (ifindex uint32, p netip.Prefix, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return 0, p, false
	}
	bits, flags := int(b[1]), uint32(b[2])
	ifindex = binary.NativeEndian.Uint32(b[4:])
	var local, address netip.Addr
	attributes(b[unix.SizeofIfAddrmsg:], func(typ uint16, data []byte) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(data)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(data)
		case unix.IFA_FLAGS: // has the bits above 8 too
			if len(data) >= 4 {
				flags = binary.NativeEndian.Uint32(data)
			}
		}
	})
	if !local.IsValid() {
		// IPv6 has IFA_LOCAL only beside a peer's IFA_ADDRESS.
		local = address
	}
	unused := flags&unix.IFA_F_DADFAILED != 0 || flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	p = netip.PrefixFrom(local, bits)
	return ifindex, p, p.IsValid() && !unused
}
