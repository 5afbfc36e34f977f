package rpcbind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// maxString is the size in octets of the longest string that a Client takes from a portmapper: what rpcbind's own
// clients allow.
const maxString = 9000

// The limits of a gportmap that isn't configured otherwise, and what they mean for its clients.
const (
	// DefaultRegistrations is the number of registrations.
	DefaultRegistrations = 65536
	// DefaultStringOctets is the length of a netid and that of an address.
	DefaultStringOctets = 256
	// DefaultMaxReply is the size in octets of the largest reply that a [Client] takes over TCP and local sockets: a DUMP of
	// so many registrations as long as they can be, 36 MB, with room for the portmapper's own entries.
	DefaultMaxReply = DefaultRegistrations*(6*xdr.Unit+2*DefaultStringOctets+ownerOctets) + 64<<10
	ownerOctets     = 12 // of an owner's name, a uid in decimals
)

var errNoAddress = errors.New("no address given: a host, host:port, a socket's path or @name is needed")

// Client asks one portmapper over one socket. Several goroutines may use it at once. Every error that a method
// returns is an [*Error].
//
// Each call waits until its context ends. Over UDP it is sent again as long as no reply comes, after half a second and
// then after twice as long each time, up to 8 s; over TCP and local sockets it is sent once. Replies of more than 65,535
// octets over UDP or [DefaultMaxReply] over TCP and local sockets are refused, and so are strings of more than 9,000 octets.
// Lists take memory in proportion to the reply, at most some eight times its size.
//
// A method that asks in version 4 of the protocol steps down to version 3, and to version 2 where that can say the same,
// if the portmapper answers PROG_MISMATCH, PROG_UNAVAIL, PROC_UNAVAIL or GARBAGE_ARGS, much as libtirpc does. A refusal
// of any other kind, or silence, ends the call.
type Client struct {
	rpc           *oncrpc.Client
	network, addr string
	config        *oncrpc.ClientConfig // of rpc
	conn          net.Conn             // of rpc, which uses it from the first call on; nil over UDP
}

// NewClient makes a Client of a connection to a portmapper, as one from a privileged port, which some systems want for a
// SET, through a tunnel, or one end of [net.Pipe]. From then on the Client alone uses it. The configuration's credential
// goes with every call; those of its limits and times that aren't zero take the place of those above: MaxReply is the limit
// for replies over streams. A connection without IP addresses counts as
// one to a local socket.
func NewClient(conn net.Conn, config oncrpc.ClientConfig) *Client {
	network, addr := "", ""
	if a := conn.RemoteAddr(); a != nil {
		network, addr = a.Network(), a.String()
	}
	return newClient(conn, network, addr, config)
}

// newClient is NewClient for a connection to what somebody named.
func newClient(conn net.Conn, network, addr string, config oncrpc.ClientConfig) *Client {
	if config.MaxReply == 0 {
		config.MaxReply = DefaultMaxReply
	}
	c := &Client{rpc: oncrpc.NewClient(conn, config), network: network, addr: addr, config: &config}
	if !strings.HasPrefix(network, "udp") {
		c.conn = conn
	}
	return c
}

// DialPortmapper opens a socket to a portmapper. The network is "udp", "tcp", each with 4 or 6 behind it to ask for that
// version of IP, or "unix".
//
// For IP the address is a host name or IP address, with or without a port; without it is [Port], 111: "nfs.example",
// "10.0.0.5:1111", "fe80::1%eth0", "[::1]:111". For "unix" it is the path of a stream socket, or @ and the name of an
// abstract one: [SocketAbstract], [SocketPath]. Over UDP, opening sends nothing.
//
// To ask the portmapper of this host use [DialLocal].
func DialPortmapper(ctx context.Context, network, address string) (*Client, error) {
	addr, err := withPort(network, address)
	if err != nil {
		return nil, &Error{Op: "dial", Network: network, Addr: address, Err: err}
	}
	switch network {
	case "udp", "udp4", "udp6", "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, &Error{Op: "dial", Network: network, Addr: addr, Err: net.UnknownNetworkError(network)}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &Error{Op: "dial", Network: network, Addr: addr, Err: err}
	}
	return newClient(conn, network, addr, oncrpc.ClientConfig{}), nil
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

// RemoteAddr returns the address of the portmapper: a [*net.TCPAddr], [*net.UDPAddr] or [*net.UnixAddr], or what the
// connection given to [NewClient] has.
func (c *Client) RemoteAddr() net.Addr { return c.rpc.RemoteAddr() }

// RPC returns the client below, for calls that no method makes. Closing it closes c.
func (c *Client) RPC() *oncrpc.Client { return c.rpc }

// Netid returns the transport over which c asks, which decides what a portmapper of version 3 or 4 answers.
func (c *Client) Netid() Netid {
	at := addrPort(c.rpc.RemoteAddr())
	switch {
	case !at.IsValid():
		return Local
	case strings.HasPrefix(c.network, "udp") && at.Addr().Is4():
		return UDP
	case strings.HasPrefix(c.network, "udp"):
		return UDP6
	case at.Addr().Is4():
		return TCP
	}
	return TCP6
}

// addrPort returns the IP address and port of an address of package net, without IPv4-mapped addresses; the zero value
// if it isn't one.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// results are those of one call, and the Error to report if they can't be decoded.
type results struct {
	d     xdr.Decoder
	asked Error
}

func (r *results) check() error { return r.fail(r.d.Err()) }

// fail returns err as the call's Error; nil stays nil.
func (r *results) fail(err error) error {
	if err == nil {
		return nil
	}
	r.asked.Err = err
	return &r.asked
}

func (r *results) string() (string, error) {
	s := string(r.d.Opaque(maxString))
	return s, r.check()
}

// a question is one call to a portmapper.
type question struct {
	op         string
	vers, proc uint32
	args       []byte
}

func (c *Client) call(ctx context.Context, about RPCB, q question) (*results, error) {
	r := &results{asked: Error{Op: q.op, Version: q.vers, About: about, Network: c.network, Addr: c.addr}}
	b, err := c.rpc.Call(ctx, oncrpc.Call{Program: Program, Version: q.vers, Procedure: q.proc, Args: q.args})
	if err != nil {
		var asked *oncrpc.CallError
		if errors.As(err, &asked) {
			err = asked.Err // an Error says what was asked and of whom
		}
		return nil, r.fail(err)
	}
	r.d = xdr.NewDecoder(b)
	return r, nil
}

// firstOf asks the same in different versions, the newest first, until the portmapper knows what is meant. The error is
// that of the last question.
func (c *Client) firstOf(ctx context.Context, about RPCB, questions ...question) (r *results, err error) {
	for _, q := range questions {
		r, err = c.call(ctx, about, q)
		if !unknown(err) {
			break
		}
	}
	return r, err
}

// unknown tells whether a portmapper said that it doesn't know the version or what was asked in it. Some that lack
// versions 3 and 4 answer not PROG_MISMATCH, as they should, but one of the others.
func unknown(err error) bool {
	var refused *oncrpc.AcceptError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Stat {
	case oncrpc.ProgMismatch, oncrpc.ProgUnavail, oncrpc.ProcUnavail, oncrpc.GarbageArgs:
		return true
	}
	return false
}

// versions4and3 are a question that these versions have alike.
func versions4and3(op string, proc uint32, args []byte) []question {
	return []question{{op, RPCBVers4, proc, args}, {op, RPCBVers3, proc, args}}
}
