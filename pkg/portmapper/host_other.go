//go:build !linux

package portmapper

import (
	"net"
	"net/netip"
)

// rootPort can't tell here who may send from a port.
func rootPort(remote, local netip.AddrPort) bool { return false }

// connectionUID can't tell here who is at the other end.
func connectionUID(c net.Conn, remote, local netip.AddrPort) (uid uint32, ok bool) { return 0, false }

// peerUID can't tell here who is at the other end.
func peerUID(net.Conn) (uid uint32, ok bool) { return 0, false }

// arrivedOn can't tell here.
func arrivedOn(net.Conn) uint32 { return 0 }
