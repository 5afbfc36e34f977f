package rpcbind

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"
)

// firstFamily is how long [Lookup] waits for an answer over UDP before it tries the other version of IP, if ctx has no
// deadline; if it has one, half of the time that is left.
const firstFamily = 5 * time.Second

// Lookup asks the portmapper of a host where version vers of program prog is served, and returns an address to dial: a
// [*net.TCPAddr], [*net.UDPAddr] or [*net.UnixAddr], whose Network and String methods give what [net.Dial] takes.
//
// The network is "tcp" or "udp", each with 4 or 6 behind it to ask for that version of IP alone; without, both are asked
// if need be, because a program may be registered for one of them only. The host is a name or an IP address, with the
// portmapper's port if that isn't [Port]: "nfs.example", "127.0.0.1:1111", "[fe80::1%eth0]:111". For the network "unix"
// it is the portmapper's socket, or "" for the portmapper of this host.
//
// Versions 4, 3 and 2 of the protocol are tried in this order, with GETVERSADDR, GETADDR and GETPORT; the last two may
// answer with another version of the program, whose server will say so. The question goes over the transport that is
// asked about, as in libtirpc. Of the answer only the port is used, as the Linux kernel does it, together with the
// address at which the portmapper itself answered: behind address translation a portmapper's idea of its own address
// is of no use, and no portmapper should be able to send its callers to other hosts.
//
// The error is an [*Error]: [ErrNotRegistered] if the portmapper has no address, [ErrBadAddress] if it answered none that
// can be dialled. Over UDP, give ctx a deadline.
func Lookup(ctx context.Context, network, host string, prog, vers uint32) (net.Addr, error) {
	about := RPCB{Program: prog, Version: vers}
	switch {
	case network == "unix" && host == "":
		return lookUp(ctx, DialLocal, about)
	case network == "tcp" || network == "udp":
		return lookUpBoth(ctx, network, host, about)
	}
	return lookUp(ctx, dialer(network, host), about)
}

func dialer(network, host string) func(context.Context) (*Client, error) {
	return func(ctx context.Context) (*Client, error) { return DialPortmapper(ctx, network, host) }
}

// lookUp opens a connection to a portmapper and asks it.
func lookUp(ctx context.Context, dial func(context.Context) (*Client, error), about RPCB) (net.Addr, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.lookUp(ctx, about)
}

// lookUpBoth asks over one version of IP, and over the other if there is no good answer. The error is the first.
func lookUpBoth(ctx context.Context, network, host string, about RPCB) (net.Addr, error) {
	first, cancel := ctx, context.CancelFunc(func() {})
	if network == "udp" {
		first, cancel = context.WithTimeout(ctx, half(ctx))
	}
	defer cancel()
	c, err := DialPortmapper(first, network, host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	addr, err := c.lookUp(first, about)
	if err == nil {
		return addr, nil
	}
	other := network + "4"
	if addrPort(c.RemoteAddr()).Addr().Is4() {
		other = network + "6"
	}
	if addr, err2 := lookUp(ctx, dialer(other, host), about); err2 == nil {
		return addr, nil
	}
	return nil, err
}

func half(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return time.Until(end) / 2
	}
	return firstFamily
}

// lookUp asks for an address to dial.
func (c *Client) lookUp(ctx context.Context, about RPCB) (net.Addr, error) {
	about.Netid = c.Netid()
	portmapper := addrPort(c.RemoteAddr())
	if portmapper.IsValid() {
		about.Addr = UAddr(portmapper) // a hint: the address by which we know the host
	}
	args := AppendRPCB(nil, about)
	uaddr, err := c.address(ctx, about, []question{
		{"GETVERSADDR", RPCBVers4, ProcGetVersAddr, args},
		{"GETADDR", RPCBVers3, ProcGetAddr, args},
	})
	if err != nil {
		return nil, err
	}
	addr, err := dialable(about.Netid, uaddr, portmapper.Addr())
	if err != nil {
		return nil, &Error{Op: "lookup", About: about, Network: c.network, Addr: c.addr, Err: err}
	}
	return addr, nil
}

// dialable returns the address of a service whose universal address a portmapper at host answered.
func dialable(n Netid, uaddr string, host netip.Addr) (net.Addr, error) {
	if uaddr == "" {
		return nil, ErrNotRegistered
	}
	if n.Is(Local) {
		if !strings.HasPrefix(uaddr, "/") && !strings.HasPrefix(uaddr, "@") {
			return nil, ErrBadAddress
		}
		return &net.UnixAddr{Name: uaddr, Net: "unix"}, nil
	}
	at, ok := ParseUAddr(uaddr)
	if !ok || at.Port() == 0 {
		return nil, ErrBadAddress
	}
	at = netip.AddrPortFrom(host, at.Port())
	if n.Is(UDP) || n.Is(UDP6) {
		return net.UDPAddrFromAddrPort(at), nil
	}
	return net.TCPAddrFromAddrPort(at), nil
}
