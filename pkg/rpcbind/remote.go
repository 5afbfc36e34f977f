package rpcbind

import (
	"context"
	"net"
	"net/netip"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// RemoteCall is a call that a portmapper is asked to make for its caller (RFC 1833 section 2.1, struct rpcb_rmtcallargs):
// 16 octets and the arguments.
type RemoteCall struct {
	Program   uint32
	Version   uint32
	Procedure uint32
	Args      []byte // encoded; portmappers take at most some 8,800 octets, a broadcast what fits a link's packet
}

// AppendRemoteCall appends c encoded, as all versions have it.
func AppendRemoteCall(dst []byte, c RemoteCall) []byte {
	dst = appendWords(dst, c.Program, c.Version, c.Procedure)
	return xdr.AppendOpaque(dst, c.Args)
}

// ReadRemoteCall reads a RemoteCall whose arguments have at most limit octets and alias d's input; d.Err tells whether it
// was there.
func ReadRemoteCall(d *xdr.Decoder, limit uint32) RemoteCall {
	return RemoteCall{Program: d.Uint32(), Version: d.Uint32(), Procedure: d.Uint32(), Args: d.Opaque(limit)}
}

func (c RemoteCall) about() RPCB { return RPCB{Program: c.Program, Version: c.Version} }

// Answer is what a portmapper answers to a [RemoteCall].
type Answer struct {
	From    netip.AddrPort // where the answer came from, with a zone if that is link-local
	Addr    string         // universal address of the service; a stranger's text, to be read with [ParseUAddr]
	Results []byte         // of the service, encoded
}

// readAnswer reads the result of CALLIT, BCAST and INDIRECT; in version 2 that has not an address but a port.
func readAnswer(d *xdr.Decoder, vers uint32, from netip.AddrPort) (Answer, error) {
	a := Answer{From: from}
	var port uint32
	if vers == PMAPVers {
		port = d.Uint32()
	} else {
		a.Addr = string(d.Opaque(maxString))
	}
	a.Results = d.Opaque(maxDatagram)
	switch {
	case d.Err() != nil:
		return Answer{}, d.Err()
	case port > 0xffff:
		return Answer{}, ErrBadPort
	case vers == PMAPVers:
		a.Addr = UAddr(netip.AddrPortFrom(from.Addr(), uint16(port)))
	}
	return a, nil
}

// maxDatagram is the size in octets of the largest UDP payload.
const maxDatagram = 65535

// CallIt asks the portmapper to call a service on its host and to answer with its results, in version 4, where the
// procedure is called BCAST, 3 or 2 (RFC 1833 sections 2.2.1, 2.2.2 and 3.2). It needs a Client over UDP: else the error
// is [ErrNeedsUDP].
//
// A portmapper that doesn't make the call, that gets no results, or that has this switched off, as most do today, says
// nothing: give ctx a deadline. [Client.Indirect] is told why. The call has a socket of its own, which takes answers from
// every port of the portmapper's host: Linux's rpcbind sends them from another one than it was asked at.
func (c *Client) CallIt(ctx context.Context, call RemoteCall) (Answer, error) {
	args := AppendRemoteCall(nil, call)
	questions := []question{{"BCAST", RPCBVers4, ProcBcast, args}, {"CALLIT", RPCBVers3, ProcCallIt, args}}
	if c.Netid().Is(UDP) {
		questions = append(questions, question{"CALLIT", PMAPVers, ProcCallIt, args})
	}
	return c.remote(ctx, call, questions)
}

// Indirect asks as [Client.CallIt] does, in version 4 alone, and is told with an [*oncrpc.AcceptError] or an
// [*oncrpc.DeniedError] why there are no results (RFC 1833 section 2.2.2).
func (c *Client) Indirect(ctx context.Context, call RemoteCall) (Answer, error) {
	return c.remote(ctx, call, []question{{"INDIRECT", RPCBVers4, ProcIndirect, AppendRemoteCall(nil, call)}})
}

func (c *Client) remote(ctx context.Context, call RemoteCall, questions []question) (Answer, error) {
	asked := Error{Op: questions[0].op, About: call.about(), Network: c.network, Addr: c.addr}
	if n := c.Netid(); !n.Is(UDP) && !n.Is(UDP6) {
		asked.Err = ErrNeedsUDP
		return Answer{}, &asked
	}
	conn, err := listenToHost(addrPort(c.rpc.RemoteAddr()))
	if err != nil {
		asked.Err = shorten(err)
		return Answer{}, &asked
	}
	host := newClient(conn, c.network, c.addr, *c.config)
	defer host.Close()
	r, err := host.firstOf(ctx, call.about(), questions...)
	if err != nil {
		return Answer{}, err
	}
	a, err := readAnswer(&r.d, r.asked.Version, conn.to)
	return a, r.fail(err)
}

// hostConn is a UDP socket that sends to one port of a host and hears every port of it: Linux's rpcbind answers remote
// calls from another port than it was asked at.
type hostConn struct {
	*net.UDPConn
	to netip.AddrPort
}

func listenToHost(to netip.AddrPort) (*hostConn, error) {
	network := "udp6"
	if to.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	return &hostConn{conn, to}, nil
}

func (c *hostConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.to) }

func (c *hostConn) Write(b []byte) (int, error) { return c.WriteToUDPAddrPort(b, c.to) }

func (c *hostConn) Read(b []byte) (int, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil || from.Addr().Unmap() == c.to.Addr() {
			return n, err
		}
	}
}
