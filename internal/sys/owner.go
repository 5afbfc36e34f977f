package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNoSocket is Owners' error when no live socket is proved to be at the other end.
var ErrNoSocket = errors.New("no live socket is proved to be at that end")

// Ports below reservedPorts are root's, unless the network namespace lets users bind some of them: portStart is the first of
// these (Linux 4.11).
const (
	reservedPorts = 1024
	portStart     = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
)

// Owners asks the kernel for single sockets: those of callers over loopback, and those that serve. It keeps its descriptors open, so a host that runs out of them doesn't
// make it fail. Its methods may be called from any number of goroutines. The zero value is ready.
type Owners struct {
	mu    sync.Mutex
	diag  *netlinkConn // nil: to be opened
	start *os.File     // of portStart; nil: to be opened
}

// NewOwners opens what Owners needs. What can't be opened now is tried again with each question.
func NewOwners() *Owners {
	o := &Owners{}
	_ = o.ask(func(*netlinkConn) error { return nil })
	_, _ = o.reserved()
	return o
}

// Close closes the descriptors.
func (o *Owners) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.diag != nil {
		o.diag.close()
		o.diag = nil
	}
	if o.start != nil {
		_ = o.start.Close()
		o.start = nil
	}
}

// Connection returns the user id of the socket at the other end of the TCP connection fd, whose ends are remote, the
// caller's, and local, ours. It is the user who made that socket; 65534 for one without a name in our user namespace.
//
// The proof: a pair of ends has one connection. A socket there that has finished a handshake finished it with ours as long
// as ours stands; another one, made when the caller had reset the connection, finds ours gone. So our end is looked at
// after the answer. [ErrNoSocket] says that the proof fails: the caller has closed or reset, and the kernel shows uid 0 for
// what is left. Any other error means that the kernel can't say.
func (o *Owners) Connection(fd int, remote, local netip.AddrPort) (uid uint32, err error) {
	remote, local = unmap(remote), unmap(local)
	if remote == local {
		err = ErrNoSocket
	}
	found := false
	if err == nil {
		err = o.find(unix.IPPROTO_TCP, remote, local, func(s diagSocket) bool {
			found = s.isPeer(remote, local)
			uid = s.uid
			return found
		})
	}
	if err == nil && !found {
		err = ErrNoSocket
	}
	if err == nil {
		err = stands(fd)
	}
	if err != nil {
		return 0, fmt.Errorf("owner of the TCP socket %v (peer %v): %w", remote, local, err)
	}
	return uid, nil
}

// stands returns nil if the connection fd is established, the other end perhaps having sent its last octet.
func stands(fd int) error {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	if info.State != stateEstablished && info.State != stateCloseWait {
		return ErrNoSocket
	}
	return nil
}

// RootPort tells whether a datagram that came over loopback may be taken for root's, as rpcbind takes it: remote, the
// source, has a reserved port. The kernel doesn't tell who sent a datagram. Whoever closes the socket passes for whoever
// has the port then, so the sockets of today only speak against: the answer is false if one of another user is found at
// the port, or if users may bind it. It is false as well with an error, which means that the kernel can't say.
func (o *Owners) RootPort(remote, local netip.AddrPort) (bool, error) {
	remote, local = unmap(remote), unmap(local)
	if p := remote.Port(); p == 0 || p >= reservedPorts || p == local.Port() { // from our own port the kernel finds us
		return false, nil
	}
	reserved, err := o.reserved()
	if err == nil && remote.Port() >= reserved {
		return false, nil
	}
	others := false
	if err == nil {
		err = o.find(unix.IPPROTO_UDP, remote, local, func(s diagSocket) bool {
			others = others || s.inode != 0 && s.source.Port() == remote.Port() && s.uid != 0
			return others
		})
	}
	if err != nil {
		return false, fmt.Errorf("whether %v is a port of root's: %w", remote, err)
	}
	return !others, nil
}

// reserved returns the first port that users may bind.
func (o *Owners) reserved() (uint16, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.start == nil {
		f, err := os.Open(portStart)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat("/proc/sys/net/ipv4/ip_default_ttl"); err == nil {
				return reservedPorts, nil // a kernel before 4.11
			}
		}
		if err != nil {
			return 0, err
		}
		o.start = f
	}
	var b [16]byte
	n, err := o.start.ReadAt(b[:], 0)
	first, parseErr := strconv.ParseUint(strings.TrimSpace(string(b[:n])), 10, 16)
	if parseErr != nil {
		return 0, errors.Join(err, fmt.Errorf("%s: %w", portStart, parseErr))
	}
	return uint16(min(first, reservedPorts)), nil
}

// ask runs a question on the netlink socket. After an error the next question has a new one.
func (o *Owners) ask(question func(c *netlinkConn) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.diag == nil {
		c, err := dialNetlink(unix.NETLINK_SOCK_DIAG, diagOctets)
		if err != nil {
			return fmt.Errorf("sock_diag: %w", err)
		}
		o.diag = c
	}
	if err := question(o.diag); err != nil {
		o.diag.close()
		o.diag = nil
		return fmt.Errorf("sock_diag: %w", err)
	}
	return nil
}

// find calls is with each socket that the kernel finds for one at own whose peer is peer, until it says that this is the one.
func (o *Owners) find(protocol uint8, own, peer netip.AddrPort, is func(diagSocket) bool) error {
	if !own.IsValid() || !peer.IsValid() || own.Addr().Is4() != peer.Addr().Is4() {
		return fmt.Errorf("%w: two addresses of one family are needed", unix.EAFNOSUPPORT)
	}
	return o.ask(func(c *netlinkConn) error { return findSocket(c, protocol, own, peer, is) })
}

func findSocket(c *netlinkConn, protocol uint8, own, peer netip.AddrPort, is func(diagSocket) bool) error {
	answered := false
	for _, q := range diagLookups(protocol, own, peer) {
		s, err := q.ask(c)
		switch {
		case err == unix.ENOENT:
			continue
		case err != nil:
			return err
		case is(s):
			return nil
		}
		answered = true
	}
	if answered {
		return nil
	}
	// ENOENT has two meanings: no such socket, and no handler for the protocol (the modules tcp_diag, udp_diag:
	// inet_diag_lock_handler and sock_diag_lock_handler return the same). Our own end exists while we serve it; if that
	// isn't found either, the handler is missing.
	for _, q := range diagLookups(protocol, peer, own) {
		if _, err := q.ask(c); err != unix.ENOENT {
			return err
		}
	}
	return fmt.Errorf("the kernel finds not even our own end; the module tcp_diag or udp_diag may be missing: %w", unix.ENOENT)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
