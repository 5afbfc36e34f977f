package rpcbind

import (
	"context"
	"net/netip"
	"time"
)

// Null calls the procedure that does nothing, in version 2, 3 or 4: it tells whether the portmapper is there.
func (c *Client) Null(ctx context.Context, vers uint32) error {
	_, err := c.call(ctx, RPCB{}, question{"NULL", vers, ProcNull, nil})
	return err
}

// GetAddr asks for the universal address of b's program and version on the transport over which the question is sent,
// whatever b's netid, in version 4 or 3, or over IPv4 as GETPORT in 2 (RFC 1833 sections 2.2.1 and 3.2). An address in b
// is a hint: the address by which the asker knows the portmapper's host.
//
// A portmapper answers the address of another version if that one isn't registered, and the empty string if none is. The
// address of version 2 is that of the portmapper's host. The errors of version 2 include [ErrBadPort].
func (c *Client) GetAddr(ctx context.Context, b RPCB) (string, error) {
	return c.address(ctx, b, versions4and3("GETADDR", ProcGetAddr, AppendRPCB(nil, b)))
}

// GetVersAddr asks as [Client.GetAddr] does, in version 4, but only for the exact version (RFC 1833 section 2.2.2).
func (c *Client) GetVersAddr(ctx context.Context, b RPCB) (string, error) {
	r, err := c.call(ctx, b, question{"GETVERSADDR", RPCBVers4, ProcGetVersAddr, AppendRPCB(nil, b)})
	if err != nil {
		return "", err
	}
	return r.string()
}

// address asks for an address by the questions given and, over IPv4, by GETPORT of version 2.
func (c *Client) address(ctx context.Context, b RPCB, questions []question) (string, error) {
	prot, v2 := c.Netid().Prot()
	if v2 {
		m := Mapping{Program: b.Program, Version: b.Version, Prot: prot}
		questions = append(questions, question{"GETPORT", PMAPVers, ProcGetPort, AppendMapping(nil, m)})
	}
	r, err := c.firstOf(ctx, b, questions...)
	switch {
	case err != nil:
		return "", err
	case r.asked.Version != PMAPVers:
		return r.string()
	}
	port := r.d.Uint32()
	switch {
	case r.d.Err() != nil || port == 0:
		return "", r.check()
	case port > 0xffff:
		return "", r.fail(ErrBadPort)
	}
	return UAddr(netip.AddrPortFrom(addrPort(c.rpc.RemoteAddr()).Addr(), uint16(port))), nil
}

// GetAddrList asks, in version 4, for all addresses of b's program and version on transports of the protocol family
// over which the question is sent (RFC 1833 section 2.2.2).
func (c *Client) GetAddrList(ctx context.Context, b RPCB) ([]Entry, error) {
	r, err := c.call(ctx, b, question{"GETADDRLIST", RPCBVers4, ProcGetAddrList, AppendRPCB(nil, b)})
	if err != nil {
		return nil, err
	}
	list := ReadEntryList(&r.d, maxString)
	if err := r.check(); err != nil {
		return nil, err
	}
	return list, nil
}

// GetTime asks for the time of the portmapper's host, in whole seconds, in version 4 or else 3. It has to lie between
// 1970 and 2106.
func (c *Client) GetTime(ctx context.Context) (time.Time, error) {
	r, err := c.firstOf(ctx, RPCB{}, versions4and3("GETTIME", ProcGetTime, nil)...)
	if err != nil {
		return time.Time{}, err
	}
	seconds := r.d.Uint32()
	if err := r.check(); err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(seconds), 0), nil
}

// Dump asks for all registrations, in version 4, 3 or 2. Over UDP a portmapper may refuse because of the size of the
// reply.
//
// What version 2 answers is given with the wildcard address 0.0.0.0 and without owners; mappings of protocols other than
// TCP and UDP, or with a port above 65535, can't be given so and are left out.
func (c *Client) Dump(ctx context.Context) ([]RPCB, error) {
	questions := append(versions4and3("DUMP", ProcDump, nil), question{"DUMP", PMAPVers, ProcDump, nil})
	r, err := c.firstOf(ctx, RPCB{}, questions...)
	if err != nil {
		return nil, err
	}
	var list []RPCB
	if r.asked.Version == PMAPVers {
		list = rpcbsOf(ReadMappingList(&r.d))
	} else {
		list = ReadRPCBList(&r.d, maxString)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return list, nil
}

func rpcbsOf(mappings []Mapping) []RPCB {
	var list []RPCB
	for _, m := range mappings {
		if n, ok := NetidOfProt(m.Prot); ok && m.Port <= 0xffff {
			addr := UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
			list = append(list, RPCB{Program: m.Program, Version: m.Version, Netid: n, Addr: addr})
		}
	}
	return list
}

// GetPort asks, in version 2, for the port of m's program and version on m's protocol: 0 if it isn't registered. What
// a portmapper answers need not be a port: it can be above 65535.
func (c *Client) GetPort(ctx context.Context, m Mapping) (uint32, error) {
	r, err := c.call(ctx, aboutMapping(m), question{"GETPORT", PMAPVers, ProcGetPort, AppendMapping(nil, m)})
	if err != nil {
		return 0, err
	}
	port := r.d.Uint32()
	return port, r.check()
}

// DumpMappings asks for all registrations that version 2 can show, those of TCP and UDP over IPv4.
func (c *Client) DumpMappings(ctx context.Context) ([]Mapping, error) {
	r, err := c.call(ctx, RPCB{}, question{"DUMP", PMAPVers, ProcDump, nil})
	if err != nil {
		return nil, err
	}
	list := ReadMappingList(&r.d)
	if err := r.check(); err != nil {
		return nil, err
	}
	return list, nil
}

func aboutMapping(m Mapping) RPCB {
	netid, _ := NetidOfProt(m.Prot)
	return RPCB{Program: m.Program, Version: m.Version, Netid: netid}
}

// TAddr is a transport address: the socket address of the portmapper's host, in its own layout and byte order
// (RFC 1833 section 2.1, struct netbuf).
type TAddr struct {
	MaxSize uint32 // of the buffer on that host, in octets
	Octets  []byte // at most 9,000
}

// UAddr2TAddr asks the portmapper to turn a universal address of the transport over which the question is sent into a
// socket address, in version 4 or else 3. For what isn't one, the answer has no octets. The answer means something to
// the portmapper's host alone: [ParseUAddr] serves better wherever a portmapper isn't being tested.
func (c *Client) UAddr2TAddr(ctx context.Context, uaddr string) (TAddr, error) {
	args := appendString(nil, uaddr)
	r, err := c.firstOf(ctx, RPCB{}, versions4and3("UADDR2TADDR", ProcUAddr2TAddr, args)...)
	if err != nil {
		return TAddr{}, err
	}
	t := TAddr{MaxSize: r.d.Uint32(), Octets: r.d.Opaque(maxString)}
	if err := r.check(); err != nil {
		return TAddr{}, err
	}
	return t, nil
}

// TAddr2UAddr asks the portmapper to turn a socket address of its host into a universal address of the transport over
// which the question is sent, in version 4 or else 3; "" if it isn't one.
func (c *Client) TAddr2UAddr(ctx context.Context, t TAddr) (string, error) {
	r, err := c.firstOf(ctx, RPCB{}, versions4and3("TADDR2UADDR", ProcTAddr2UAddr, appendTAddr(nil, t))...)
	if err != nil {
		return "", err
	}
	return r.string()
}
