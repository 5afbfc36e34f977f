package rpcbind

import (
	"context"

	"github.com/gportmap/gportmap/pkg/xdr"
)

func appendString(dst []byte, s string) []byte { return xdr.AppendString(dst, s) }

func appendTAddr(dst []byte, t TAddr) []byte {
	return xdr.AppendOpaque(xdr.AppendUint32(dst, t.MaxSize), t.Octets)
}

// Set registers b, in version 4, 3 or 2 (RFC 1833 sections 2.2.1 and 3.2). It is false if another address is registered
// for b's program, version and netid, or if the portmapper doesn't take the address. The owner is set by the portmapper,
// whatever b says. Portmappers let only callers on their own host register: see [DialLocal].
//
// In version 2 the port alone is registered, for all addresses of the host; the error is [ErrNotVersion2] if b's netid
// isn't "tcp" or "udp" with an IPv4 address.
func (c *Client) Set(ctx context.Context, b RPCB) (bool, error) {
	v2, ok := setMapping(b)
	questions := versions4and3("SET", ProcSet, AppendRPCB(nil, b))
	if ok {
		questions = append(questions, question{"SET", PMAPVers, ProcSet, AppendMapping(nil, v2)})
	}
	return c.change(ctx, b, ok, questions)
}

func setMapping(b RPCB) (Mapping, bool) {
	prot, ok := b.Netid.Prot()
	at, ok2 := ParseUAddr(b.Addr)
	if !ok || !ok2 || !at.Addr().Is4() {
		return Mapping{}, false
	}
	return Mapping{Program: b.Program, Version: b.Version, Prot: prot, Port: uint32(at.Port())}, true
}

// Unset removes what is registered for b's program, version and netid, in version 4 or 3; with an empty netid, for all
// netids, and then also in version 2. The address and owner don't count. It is true also if nothing was registered, and
// false if one of the registrations belongs to somebody else.
//
// Version 2 can't remove TCP without UDP or UDP without TCP. If the portmapper has no other version and b has a netid,
// the error is [ErrNotVersion2].
func (c *Client) Unset(ctx context.Context, b RPCB) (bool, error) {
	questions := versions4and3("UNSET", ProcUnset, AppendRPCB(nil, b))
	if b.Netid == "" {
		m := Mapping{Program: b.Program, Version: b.Version}
		questions = append(questions, question{"UNSET", PMAPVers, ProcUnset, AppendMapping(nil, m)})
	}
	return c.change(ctx, b, b.Netid == "", questions)
}

// change asks for a SET or UNSET. Where version 2 can't say the same, and is all that the portmapper has, the error
// tells.
func (c *Client) change(ctx context.Context, about RPCB, v2 bool, questions []question) (bool, error) {
	r, err := c.firstOf(ctx, about, questions...)
	if err != nil {
		if !v2 && unknown(err) {
			last := questions[len(questions)-1]
			err = &Error{Op: last.op, Version: last.vers, About: about, Network: c.network, Addr: c.addr, Err: ErrNotVersion2}
		}
		return false, err
	}
	v := r.d.Bool()
	return v, r.check()
}

// SetMapping registers m, in version 2. It is false if another port is registered for m's program, version and
// protocol, or if the portmapper doesn't take the mapping.
func (c *Client) SetMapping(ctx context.Context, m Mapping) (bool, error) {
	q := question{"SET", PMAPVers, ProcSet, AppendMapping(nil, m)}
	return c.change(ctx, aboutMapping(m), true, []question{q})
}

// UnsetMapping removes, in version 2, what is registered for m's program and version on both TCP and UDP; its protocol
// and port don't count. It is true also if nothing was registered.
func (c *Client) UnsetMapping(ctx context.Context, m Mapping) (bool, error) {
	q := question{"UNSET", PMAPVers, ProcUnset, AppendMapping(nil, m)}
	return c.change(ctx, aboutMapping(m), true, []question{q})
}
