//go:build unix

package rpcbind

import "syscall"

// ipv6Only tells whether an IPv6 socket serves IPv6 alone.
func ipv6Only(fd uintptr) bool {
	v, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY)
	return err == nil && v != 0
}
