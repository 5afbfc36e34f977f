//go:build !linux

package portmapper

import (
	"errors"
	"net"
	"net/netip"
)

// socketOwner can't tell here whose a socket is.
func socketOwner(string, netip.AddrPort, netip.AddrPort) (uint32, error) {
	return 0, errors.ErrUnsupported
}

// peerUID can't tell here who is at the other end.
func peerUID(net.Conn) (uid uint32, ok bool) { return 0, false }

// arrivedOn can't tell here.
func arrivedOn(net.Conn) uint32 { return 0 }
