package portmapper

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

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
