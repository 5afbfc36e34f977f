package main

import (
	"context"
	"net/netip"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// service is where a program is: an IP address, or the path of a local socket.
type service struct {
	at   netip.AddrPort
	path string
}

// dialService makes a client of a program that a host's portmapper knows, asked over the same transport.
func (a *asker) dialService(ctx context.Context, t transport, host string, prog, vers uint32) (*client, *rpcError) {
	s, failed := a.find(ctx, t, host, prog, vers)
	if failed != nil {
		return nil, failed
	}
	return a.dialAt(ctx, t, s)
}

func (a *asker) dialAt(ctx context.Context, t transport, s service) (*client, *rpcError) {
	if s.path != "" {
		return a.dialPath(ctx, s.path)
	}
	return a.dial(ctx, t, s.at)
}

// find asks a host's portmapper for the address of a program as rpcb_getaddr(3) does it: by GETADDR in version 4, then
// 3, then over IPv4 by GETPORT.
func (a *asker) find(ctx context.Context, t transport, host string, prog, vers uint32) (service, *rpcError) {
	if !t.known() {
		return service{}, &rpcError{status: unknownProtocol}
	}
	c, failed := a.dialFinder(ctx, t, host)
	if failed != nil {
		return service{}, failed
	}
	defer c.close()
	about := rpcbind.RPCB{Program: prog, Version: vers, Netid: rpcbind.Netid(t.netid), Addr: c.uaddr(), Owner: "libtirpc"}
	for version := uint32(rpcbind.RPCBVers4); version >= rpcbind.RPCBVers3; version-- {
		var uaddr string
		failed := c.ask(ctx, version, rpcbind.ProcGetAddr, rpcbind.AppendRPCB(nil, about), func(d *xdr.Decoder) {
			uaddr = d.String(maxString)
		})
		switch {
		case failed == nil:
			return parseService(t, uaddr, c.at.Addr())
		case failed.status == progMismatch && failed.low > rpcbind.RPCBVers4:
			return service{}, failed
		case failed.status != progMismatch && failed.status != progUnavail && failed.status != cantDecodeArgs:
			return service{}, failed
		}
	}
	if t.family != "inet" {
		return service{}, &rpcError{status: notRegistered}
	}
	return a.findByGetPort(ctx, t, host, prog, vers)
}

// dialFinder makes a client of a host's portmapper, at the first of the host's addresses of the transport's version of IP
// that takes it.
func (a *asker) dialFinder(ctx context.Context, t transport, host string) (*client, *rpcError) {
	if t.local() {
		return a.dialLocalFinder(ctx)
	}
	addrs, err := a.resolve(ctx, host)
	failed := &rpcError{status: unknownHost, detail: "the host has no address of this kind"}
	if err != nil {
		failed.detail = err.Error()
	}
	for _, addr := range ofVersion(addrs, t.ipv6()) {
		var c *client
		if c, failed = a.dial(ctx, t, netip.AddrPortFrom(addr, a.world.port)); failed == nil {
			return c, nil
		}
	}
	return nil, failed
}

// dialLocalFinder is dialLocal with the error of libtirpc's last attempt, which is by TCP.
func (a *asker) dialLocalFinder(ctx context.Context) (*client, *rpcError) {
	c, failed := a.dialLocal(ctx)
	if t, ok := a.nets.find("tcp6"); ok && failed != nil {
		return a.dial(ctx, t, netip.AddrPortFrom(netip.IPv6Loopback(), a.world.port))
	}
	return c, failed
}

// findByGetPort asks in version 2, over UDP whatever the transport: some old portmappers have nothing else.
func (a *asker) findByGetPort(ctx context.Context, t transport, host string, prog, vers uint32) (service, *rpcError) {
	udp, ok := a.nets.find("udp")
	if !ok {
		return service{}, &rpcError{status: unknownProtocol}
	}
	c, failed := a.dialFinder(ctx, udp, host)
	if failed != nil {
		return service{}, failed
	}
	defer c.close()
	m := rpcbind.Mapping{Program: prog, Version: vers, Prot: rpcbind.ProtUDP}
	if t.proto == "tcp" {
		m.Prot = rpcbind.ProtTCP
	}
	var port uint32
	failed = c.ask(ctx, rpcbind.PMAPVers, rpcbind.ProcGetPort, rpcbind.AppendMapping(nil, m), func(d *xdr.Decoder) {
		port = d.Uint32()
	})
	switch {
	case failed != nil:
		return service{}, &rpcError{status: pmapFailure, below: failed}
	case port == 0:
		return service{}, &rpcError{status: notRegistered}
	case port > 0xffff:
		return service{}, &rpcError{status: pmapFailure, below: badReply(rpcbind.ErrBadPort)}
	}
	return service{at: netip.AddrPortFrom(c.at.Addr(), uint16(port))}, nil
}

// parseService reads the universal address that a portmapper at host answered. A wildcard address, which some answer, means
// the portmapper's host; a link-local one is on the link of the portmapper.
func parseService(t transport, uaddr string, host netip.Addr) (service, *rpcError) {
	if uaddr == "" {
		return service{}, &rpcError{status: notRegistered}
	}
	s, ok := parseUAddr(t, uaddr)
	if !ok {
		return service{}, &rpcError{status: unknownError, detail: "the portmapper answered " + uaddr + ", which is no address of netid " + t.netid}
	}
	addr := s.at.Addr()
	switch {
	case s.path != "":
		return s, nil
	case addr.IsUnspecified():
		addr = host
	case addr.Is6() && addr.IsLinkLocalUnicast():
		addr = addr.WithZone(host.Zone())
	}
	return service{at: netip.AddrPortFrom(addr, s.at.Port())}, nil
}

// parseUAddr reads a universal address of a transport.
func parseUAddr(t transport, uaddr string) (service, bool) {
	if t.local() {
		return service{path: uaddr}, strings.HasPrefix(uaddr, "/") || strings.HasPrefix(uaddr, "@")
	}
	at, ok := rpcbind.ParseUAddr(uaddr)
	return service{at: at}, ok && t.known() && at.Addr().Is4() != t.ipv6()
}
