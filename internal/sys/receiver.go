package sys

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Receiver returns a socket of this network namespace that gets what is sent to addr over "udp", "tcp", "udp6" or "tcp6", as
// [Bound] has it, by one lookup of the kernel, however many sockets there are. For the wildcard it looks at the loopback
// address alone. It may miss a socket that Bound finds: one at another address, one that is bound to an interface. The error
// means that the kernel can't say.
func (o *Owners) Receiver(netid string, addr netip.AddrPort) (s BoundSocket, found bool, err error) {
	addr = unmap(addr)
	protocol, err := protocolOf(netid)
	peer := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if addr.Addr().Is6() {
		peer = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	own := addr
	switch addr.Addr() {
	case netip.IPv4Unspecified():
		own = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	case netip.IPv6Unspecified():
		own = netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
	}
	if err == nil {
		err = o.ask(func(c *netlinkConn) error {
			d, err := diagLookups(protocol, own, peer)[0].ask(c)
			if err == unix.ENOENT { // no such socket, or no handler: Bound asks differently
				return nil
			}
			// A dual-stack socket gets IPv4 here: that is how the kernel found it.
			s = boundSocket(protocol, d, d.state, false)
			found = err == nil && s.Serving && d.source.Port() == addr.Port()
			return err
		})
	}
	if err != nil {
		return BoundSocket{}, false, fmt.Errorf("who gets what is sent to %s %v: %w", netid, addr, err)
	}
	if !found {
		s = BoundSocket{}
	}
	return s, found, nil
}
