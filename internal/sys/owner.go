package sys

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoSocket is SocketOwner's error when the kernel knows no socket that the caller can be using.
var ErrNoSocket = errors.New("no live socket owns that end")

// SocketOwner returns the user id of the socket at the other end of a connection or datagram between processes of this
// host: remote is the caller's end as we see it, local is ours. netid is "udp", "tcp", "udp6" or "tcp6"; the address family
// of remote decides between IPv4 and IPv6. The id is that of the process that made the socket, at that time, 65534 for one
// without a name in our user namespace.
//
// The error is ErrNoSocket when that socket is gone, or in TIME_WAIT, or orphaned (the kernel reports uid 0 for those), or
// when it cannot be told from another: several users have UDP sockets at that port, and a socket bound to 127.0.0.2 may
// send as 127.0.0.1 (IP_PKTINFO). A remote with our own UDP port is never anybody, since the kernel would find our socket.
// Any other error means that the kernel can't say: no netlink, no permission, no diagnosis module for the protocol.
//
// A UDP answer is about who has the port now. A process that sends, closes, and has another user's process bind the same
// port before we ask, is taken for that user; TCP has no such gap, as its connection is alive while we ask.
func SocketOwner(netid string, remote, local netip.AddrPort) (uid uint32, err error) {
	remote, local = unmap(remote), unmap(local)
	uid, err = socketOwner(netid, remote, local)
	if err != nil {
		return 0, fmt.Errorf("owner of the %s socket %v (peer %v): %w", netid, remote, local, err)
	}
	return uid, nil
}

func socketOwner(netid string, remote, local netip.AddrPort) (uint32, error) {
	var protocol uint8
	switch strings.TrimSuffix(netid, "6") {
	case "udp":
		protocol = unix.IPPROTO_UDP
	case "tcp":
		protocol = unix.IPPROTO_TCP
	default:
		return 0, fmt.Errorf("%w: the netid must be udp, tcp, udp6 or tcp6", unix.EPROTONOSUPPORT)
	}
	if !remote.IsValid() || !local.IsValid() || remote.Addr().Is4() != local.Addr().Is4() {
		return 0, fmt.Errorf("%w: two addresses of one family are needed", unix.EAFNOSUPPORT)
	}
	if remote == local || protocol == unix.IPPROTO_UDP && remote.Port() == local.Port() {
		return 0, ErrNoSocket
	}
	c, err := dialNetlink(unix.NETLINK_SOCK_DIAG, diagOctets)
	if err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	defer c.close()
	s, err := findSocket(c, protocol, remote, local)
	if err != nil {
		return 0, err
	}
	if protocol == unix.IPPROTO_UDP {
		if err := onlyOwner(c, s.uid, remote); err != nil {
			return 0, err
		}
	}
	return s.uid, nil
}

// findSocket asks for the socket at remote until an answer is one: see diagLookups.
func findSocket(c *netlinkConn, protocol uint8, remote, local netip.AddrPort) (diagSocket, error) {
	answered := false
	for _, q := range diagLookups(protocol, remote, local) {
		s, err := q.ask(c)
		switch {
		case err == unix.ENOENT:
			continue
		case err != nil:
			return diagSocket{}, fmt.Errorf("sock_diag: %w", err)
		}
		answered = true
		if s.isEnd(protocol, remote, local) {
			return s, nil
		}
	}
	if answered {
		return diagSocket{}, ErrNoSocket
	}
	// ENOENT has two meanings: no such socket, and no handler for the protocol (the modules tcp_diag, udp_diag:
	// inet_diag_lock_handler and sock_diag_lock_handler return the same). Our own end exists while we serve it; if that
	// isn't found either, the handler is missing.
	for _, q := range diagLookups(protocol, local, remote) {
		_, err := q.ask(c)
		switch {
		case err == nil:
			return diagSocket{}, ErrNoSocket
		case err != unix.ENOENT:
			return diagSocket{}, fmt.Errorf("sock_diag: %w", err)
		}
	}
	return diagSocket{}, fmt.Errorf("sock_diag: the kernel finds not even our own end; the module tcp_diag or udp_diag "+
		"may be missing: %w", unix.ENOENT)
}

// onlyOwner makes sure that every UDP socket that could have sent from remote belongs to uid.
func onlyOwner(c *netlinkConn, uid uint32, remote netip.AddrPort) error {
	families := []uint8{unix.AF_INET6}
	if remote.Addr().Is4() {
		families = []uint8{unix.AF_INET, unix.AF_INET6}
	}
	for _, family := range families {
		rival := false
		err := dumpPort(c, unix.IPPROTO_UDP, family, remote.Port(), func(s diagSocket) {
			rival = rival || s.uid != uid && s.canSendAs(remote.Addr())
		})
		switch {
		case rival:
			return fmt.Errorf("users beside uid %d have the port: %w", uid, ErrNoSocket)
		case err != nil && !(err == unix.ENOENT && family == unix.AF_INET6): // no IPv6 in this kernel
			return fmt.Errorf("sock_diag: dump: %w", err)
		}
	}
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
