package sys

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InterfacesWithoutNetlink is [Interfaces] for a process that may not make netlink sockets (seccomp, RestrictAddressFamilies=,
// some sandboxes): by ioctl(2) as netdevice(7) has it, and /proc/net/if_inet6. Interfaces without an address are left out.
func InterfacesWithoutNetlink() ([]Interface, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	var list []Interface
	add := func(name string, p netip.Prefix) {
		i := slices.IndexFunc(list, func(f Interface) bool { return f.Name == name })
		if i < 0 {
			f, err := interfaceOf(fd, name)
			if err != nil {
				return // it has just gone
			}
			i, list = len(list), append(list, f)
		}
		list[i].Addrs = append(list[i].Addrs, p)
	}
	if err := ioctlAddrs(fd, add); err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	f, err := os.Open(procNet + "if_inet6")
	if err != nil {
		return list, nil // no IPv6, or no /proc
	}
	defer f.Close()
	return list, readIfInet6(f, add)
}

// interfaceOf asks for the index and the flags of an interface; a label as "eth0:1" is one of its addresses.
func interfaceOf(fd int, name string) (Interface, error) {
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r)
	}
	if err != nil {
		return Interface{}, err
	}
	flags := uint32(r.Uint16())
	i := Interface{
		Name: name, Up: flags&unix.IFF_UP != 0, Loopback: flags&unix.IFF_LOOPBACK != 0,
		PointToPoint: flags&unix.IFF_POINTOPOINT != 0, Multicast: flags&unix.IFF_MULTICAST != 0,
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return Interface{}, err
	}
	i.Index = r.Uint32()
	return i, nil
}

// ioctlAddrs calls add for each IPv4 address. The kernel fills an array of struct ifreq (SIOCGIFCONF): a name of 16 octets and
// a struct sockaddr_in, 40 octets on 64-bit hosts, 32 on others.
func ioctlAddrs(fd int, add func(string, netip.Prefix)) error {
	const size = unix.IFNAMSIZ + int(unsafe.Sizeof(uintptr(0)))*3
	for room := 64; ; room *= 2 {
		buf := make([]byte, room*size)
		conf := struct {
			octets int32
			buf    unsafe.Pointer
		}{int32(len(buf)), unsafe.Pointer(unsafe.SliceData(buf))}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFCONF, uintptr(unsafe.Pointer(&conf))); errno != 0 {
			return os.NewSyscallError("ioctl SIOCGIFCONF", errno)
		}
		if int(conf.octets) == len(buf) {
			continue // there may be more
		}
		for b := buf[:conf.octets]; len(b) >= size; b = b[size:] {
			name := unix.ByteSliceToString(b[:unix.IFNAMSIZ])
			a := netip.AddrFrom4([4]byte(b[unix.IFNAMSIZ+4:]))
			ones := 32
			if r, err := unix.NewIfreq(name); err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFNETMASK, r) == nil {
				if mask, err := r.Inet4Addr(); err == nil {
					ones = bits.OnesCount32(binary.BigEndian.Uint32(mask))
				}
			}
			base, _, _ := strings.Cut(name, ":")
			add(base, netip.PrefixFrom(a, ones))
		}
		return nil
	}
}

// readIfInet6 reads lines such as this (net/ipv6/addrconf.c): address, index, prefix length, scope and flags in hexadecimal, name.
//
//	00000000000000000000000000000001 01 80 10 80       lo
func readIfInet6(r io.Reader, add func(string, netip.Prefix)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 6 {
			continue
		}
		b, err := hex.DecodeString(f[0])
		ones, onesErr := strconv.ParseUint(f[2], 16, 8)
		flags, flagsErr := strconv.ParseUint(f[4], 16, 32)
		if err != nil || len(b) != 16 || onesErr != nil || flagsErr != nil || ones > 128 ||
			flags&(unix.IFA_F_DADFAILED) != 0 || flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0 {
			continue
		}
		add(f[5], netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), int(ones)))
	}
	return lines.Err()
}
