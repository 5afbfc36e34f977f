package portmapper

import (
	"net"
	"net/netip"

	"github.com/gportmap/gportmap/internal/sys"
)

// rootPort tells whether a datagram over loopback may be taken for root's.
func rootPort(remote, local netip.AddrPort) bool {
	var o sys.Owners
	defer o.Close()
	ok, err := o.RootPort(remote, local)
	return ok && err == nil
}

// connectionUID returns the user at the other end of a TCP connection over loopback.
func connectionUID(c net.Conn, remote, local netip.AddrPort) (uid uint32, ok bool) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0, false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0, false
	}
	var o sys.Owners
	defer o.Close()
	var asked error
	if err := raw.Control(func(fd uintptr) { uid, asked = o.Connection(int(fd), remote, local) }); err != nil || asked != nil {
		return 0, false
	}
	return uid, true
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
