package rpcbind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// maxString is the size in octets of the longest string that a Client takes from a portmapper: what rpcbind's own
// clients allow.
const maxString = 9000

var errNoAddress = errors.New("no address given: a host, host:port, a socket's path or @name is needed")

// Client asks one portmapper over one socket. Several goroutines may use it; their calls are sent one after
// another. Every error that a method returns is an [*Error].
//
// Each call waits until its context ends; over UDP it is sent again as long as no reply comes, over TCP and local
// sockets it isn't. Replies of more than 65,535 octets over UDP or 4 MiB over TCP and local sockets are refused.
type Client struct {
	rpc           *oncrpc.Client
	network, addr string
}

// Dial opens a socket to a portmapper. The network is "udp", "tcp", each with 4 or 6 behind it to ask for that
// version of IP, or "unix".
//
// For IP the address is a host name or IP address, with or without a port; without it is [Port], 111: "nfs.example",
// "10.0.0.5:1111", "fe80::1%eth0", "[::1]:111". For "unix" it is the path of a stream socket, or @ and the name of an
// abstract one: [SocketAbstract], [SocketPath]. Over UDP, opening sends nothing.
func Dial(ctx context.Context, network, address string) (*Client, error) {
	addr, err := withPort(network, address)
	if err != nil {
		return nil, &Error{Op: "dial", Network: network, Addr: address, Err: err}
	}
	rpc, err := oncrpc.Dial(ctx, network, addr)
	if err != nil {
		return nil, &Error{Op: "dial", Network: network, Addr: addr, Err: err}
	}
	return &Client{rpc: rpc, network: network, addr: addr}, nil
}

// withPort completes an address with the portmapper's port.
func withPort(network, address string) (string, error) {
	if address == "" {
		return "", errNoAddress
	}
	if network == "unix" {
		return address, nil
	}
	host := address
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ":") {
		return net.JoinHostPort(host, strconv.Itoa(Port)), nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil && port == "" {
		address += strconv.Itoa(Port)
	}
	return address, err
}

// Close closes the socket. Calls on their way fail.
func (c *Client) Close() error { return c.rpc.Close() }

// Null calls the procedure that does nothing, in version 2, 3 or 4: it tells whether the portmapper is there.
func (c *Client) Null(ctx context.Context, vers uint32) error {
	_, err := c.call(ctx, "NULL", vers, ProcNull, nil)
	return err
}

// Set registers b, in version 4. It is false if another address is registered for b's program, version and netid, or
// if the portmapper doesn't take the address. The owner is set by the portmapper, whatever b says.
func (c *Client) Set(ctx context.Context, b RPCB) (bool, error) {
	return c.boolean(ctx, "SET", RPCBVers4, ProcSet, AppendRPCB(nil, b))
}

// Unset removes what is registered for b's program, version and netid, in version 4; with an empty netid, for all
// netids. The address and owner don't count. It is true also if nothing was registered, and false if one of the
// registrations belongs to somebody else.
func (c *Client) Unset(ctx context.Context, b RPCB) (bool, error) {
	return c.boolean(ctx, "UNSET", RPCBVers4, ProcUnset, AppendRPCB(nil, b))
}

// GetAddr asks for the universal address of b's program and version on the transport over which the question is sent,
// in version 4 or, if the portmapper doesn't have it, 3. An address in b is a hint: the address by which the asker
// knows the portmapper's host. A portmapper answers the address of another version if that one isn't registered, and
// the empty string if none is.
func (c *Client) GetAddr(ctx context.Context, b RPCB) (string, error) {
	r, err := c.callEither(ctx, "GETADDR", ProcGetAddr, AppendRPCB(nil, b))
	if err != nil {
		return "", err
	}
	return r.string()
}

// GetVersAddr asks as [Client.GetAddr] does, in version 4, but only for the exact version.
func (c *Client) GetVersAddr(ctx context.Context, b RPCB) (string, error) {
	r, err := c.call(ctx, "GETVERSADDR", RPCBVers4, ProcGetVersAddr, AppendRPCB(nil, b))
	if err != nil {
		return "", err
	}
	return r.string()
}

// GetAddrList asks, in version 4, for all addresses of b's program and version on transports of the protocol family
// over which the question is sent.
func (c *Client) GetAddrList(ctx context.Context, b RPCB) ([]Entry, error) {
	r, err := c.call(ctx, "GETADDRLIST", RPCBVers4, ProcGetAddrList, AppendRPCB(nil, b))
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
	r, err := c.callEither(ctx, "GETTIME", ProcGetTime, nil)
	if err != nil {
		return time.Time{}, err
	}
	seconds := r.d.Uint32()
	if err := r.check(); err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(seconds), 0), nil
}

// Dump asks for all registrations, in version 4 or, if the portmapper doesn't have it, 3. Over UDP a portmapper may
// refuse because of the size of the reply.
func (c *Client) Dump(ctx context.Context) ([]RPCB, error) {
	r, err := c.callEither(ctx, "DUMP", ProcDump, nil)
	if err != nil {
		return nil, err
	}
	list := ReadRPCBList(&r.d, maxString)
	if err := r.check(); err != nil {
		return nil, err
	}
	return list, nil
}

// SetMapping registers m, in version 2. It is false if another port is registered for m's program, version and
// protocol, or if the portmapper doesn't take the mapping.
func (c *Client) SetMapping(ctx context.Context, m Mapping) (bool, error) {
	return c.boolean(ctx, "SET", PMAPVers, ProcSet, AppendMapping(nil, m))
}

// UnsetMapping removes, in version 2, what is registered for m's program and version on both TCP and UDP; its protocol
// and port don't count. It is true also if nothing was registered.
func (c *Client) UnsetMapping(ctx context.Context, m Mapping) (bool, error) {
	return c.boolean(ctx, "UNSET", PMAPVers, ProcUnset, AppendMapping(nil, m))
}

// GetPort asks, in version 2, for the port of m's program and version on m's protocol: 0 if it isn't registered. What
// a portmapper answers need not be a port: it can be above 65535.
func (c *Client) GetPort(ctx context.Context, m Mapping) (uint32, error) {
	r, err := c.call(ctx, "GETPORT", PMAPVers, ProcGetPort, AppendMapping(nil, m))
	if err != nil {
		return 0, err
	}
	port := r.d.Uint32()
	return port, r.check()
}

// DumpMappings asks for all registrations that version 2 can show, those of TCP and UDP over IPv4.
func (c *Client) DumpMappings(ctx context.Context) ([]Mapping, error) {
	r, err := c.call(ctx, "DUMP", PMAPVers, ProcDump, nil)
	if err != nil {
		return nil, err
	}
	list := ReadMappingList(&r.d)
	if err := r.check(); err != nil {
		return nil, err
	}
	return list, nil
}

// results are those of one call, and the Error to report if they can't be decoded.
type results struct {
	d     xdr.Decoder
	asked Error
}

func (r *results) check() error {
	if err := r.d.Err(); err != nil {
		r.asked.Err = err
		return &r.asked
	}
	return nil
}

func (r *results) string() (string, error) {
	s := string(r.d.Opaque(maxString))
	return s, r.check()
}

func (c *Client) call(ctx context.Context, op string, vers, proc uint32, args []byte) (*results, error) {
	r := &results{asked: Error{Op: op, Version: vers, Network: c.network, Addr: c.addr}}
	b, err := c.rpc.Call(ctx, oncrpc.Call{Program: Program, Version: vers, Procedure: proc, Args: args})
	if err != nil {
		r.asked.Err = err
		return nil, &r.asked
	}
	r.d = xdr.NewDecoder(b)
	return r, nil
}

// callEither calls a procedure that versions 4 and 3 have alike, in version 4 and, if the portmapper doesn't have that
// version, in 3.
func (c *Client) callEither(ctx context.Context, op string, proc uint32, args []byte) (*results, error) {
	r, err := c.call(ctx, op, RPCBVers4, proc, args)
	var refused *oncrpc.AcceptError
	if errors.As(err, &refused) && refused.Stat == oncrpc.ProgMismatch {
		return c.call(ctx, op, RPCBVers3, proc, args)
	}
	return r, err
}

func (c *Client) boolean(ctx context.Context, op string, vers, proc uint32, args []byte) (bool, error) {
	r, err := c.call(ctx, op, vers, proc, args)
	if err != nil {
		return false, err
	}
	v := r.d.Bool()
	return v, r.check()
}
