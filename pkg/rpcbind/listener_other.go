//go:build !unix

package rpcbind

// ipv6Only can't tell here.
func ipv6Only(uintptr) bool { return false }
