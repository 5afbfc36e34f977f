package oncrpc

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"sync"
	"time"
)

// What a [ClientConfig] stands for where it says nothing.
const (
	// DefaultMaxReply is the size in octets of the largest reply taken from a stream: a portmapper's DUMP of some 50,000
	// registrations, or an NFS READ of 1 MiB with room to spare.
	DefaultMaxReply = 4 << 20
	// DefaultMaxCalls is the number of calls that a Client has on their way at a time.
	DefaultMaxCalls = 256
	// DefaultFirstWait is the time after which a call over UDP is sent for the second time.
	DefaultFirstWait = 500 * time.Millisecond
	// DefaultLongestWait is the longest time between two transmissions of a call over UDP.
	DefaultLongestWait = 8 * time.Second
)

var errAuthTooLong = errors.New("credential or verifier is longer than 400 octets")

// ClientConfig says how a [Client] calls. The zero value is ready for use: AUTH_NONE, and the defaults above.
type ClientConfig struct {
	// Cred is the credential of every call that has none of its own, which is the zero [OpaqueAuth]. [SysCred.Auth] makes
	// one of AUTH_SYS. It isn't changed and must stay as it is.
	Cred OpaqueAuth
	// MaxReply is the size in octets of the largest reply, its header included, that is taken from a stream; a larger one
	// breaks the connection. 0 stands for [DefaultMaxReply]. A datagram has at most 65,535 octets.
	MaxReply int
	// MaxCalls is the number of calls that may be on their way at a time; more wait for their turn. 0 stands for
	// [DefaultMaxCalls].
	MaxCalls int
	// FirstWait is the time after which a call over UDP is sent again, with the same xid; each further wait is twice as
	// long, up to LongestWait. 0 stands for [DefaultFirstWait] and [DefaultLongestWait]. Over streams nothing is sent
	// again.
	FirstWait, LongestWait time.Duration
	// Datagram says that each Write and each Read of the connection is a message, without record marks. It is set by
	// itself for connections whose local address is of network "udp" or "unixgram".
	Datagram bool
}

func (c ClientConfig) complete() ClientConfig {
	if c.MaxReply <= 0 {
		c.MaxReply = DefaultMaxReply
	}
	if c.MaxCalls <= 0 {
		c.MaxCalls = DefaultMaxCalls
	}
	if c.FirstWait <= 0 {
		c.FirstWait = DefaultFirstWait
	}
	if c.LongestWait <= 0 {
		c.LongestWait = DefaultLongestWait
	}
	return c
}

// Client calls the procedures of one server over one connection. Any number of goroutines may use it: their calls are
// on their way at the same time and are told apart by their xids.
//
// Of the calls that wait for replies one reads, for all of them: a call that is alone costs no switch between goroutines. A
// stream on which nobody calls for 10 ms is read by a goroutine of the Client's own, until the next call, [Client.Close]
// or the end of the connection, so that a server that hangs up is noticed when it does. A Client doesn't connect again when
// its connection has broken.
type Client struct {
	conn          net.Conn
	config        ClientConfig
	network, addr string        // of the server
	slots         chan struct{} // holds a value for each call on its way

	turn chan struct{} // streams: holds a value while a call is being sent
	out  []byte        // with turn: what is still to be sent, of a call that was given up while it was

	reading chan struct{} // holds a value while a call reads
	in      []byte        // with reading
	records RecordReader  // with reading; streams: what has arrived of an unfinished record

	mu      sync.Mutex
	waiting map[uint32]*pending // by xid
	free    []*pending
	broken  error          // every later call gets this
	idle    *time.Timer    // streams: runs watch
	watcher sync.WaitGroup // counts the goroutine of watch
}

// Dial connects to the server at address. The network is "udp", "tcp", each with 4 or 6 behind it to ask for that
// version of IP, or "unix" for a local stream socket, a path or @ and an abstract name; address is as in
// [net.Dial]. Errors are those of the net package, which name network and address.
func Dial(ctx context.Context, network, address string) (*Client, error) {
	return ClientConfig{}.Dial(ctx, network, address)
}

// Dial is [Dial] for a Client of this configuration. ctx is for connecting only.
func (c ClientConfig) Dial(ctx context.Context, network, address string) (*Client, error) {
	switch network {
	case "udp", "udp4", "udp6", "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return NewClient(conn, c), nil
}

// NewClient makes a Client of a connection, as TLS over TCP, one end of [net.Pipe], or a UDP socket bound to a privileged
// port. From then on the Client alone uses it, deadlines included, without which calls don't end with their contexts. A
// datagram socket has to be connected, so that it takes replies from the server's address only.
func NewClient(conn net.Conn, config ClientConfig) *Client {
	config = config.complete()
	c := &Client{
		conn:    conn,
		slots:   make(chan struct{}, config.MaxCalls),
		turn:    make(chan struct{}, 1),
		reading: make(chan struct{}, 1),
		records: RecordReader{Limit: config.MaxReply},
		waiting: make(map[uint32]*pending),
	}
	if a := conn.RemoteAddr(); a != nil {
		c.network, c.addr = a.Network(), a.String()
	}
	if a := conn.LocalAddr(); a != nil {
		config.Datagram = config.Datagram || strings.HasPrefix(a.Network(), "udp") || a.Network() == "unixgram"
	}
	c.config = config
	return c
}

// Close closes the connection. Calls on their way fail with [net.ErrClosed]. When it returns, no goroutine of the Client's
// own is left. The second and later calls do nothing.
func (c *Client) Close() error {
	err := c.fail(net.ErrClosed)
	c.watcher.Wait()
	return err
}

// LocalAddr returns the address of the client's end.
func (c *Client) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the address of the server.
func (c *Client) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Call sends a call and waits for its reply until ctx ends; without a deadline it may wait for ever. It returns
// the results of a reply of SUCCESS, in memory that is the caller's. The xid is chosen at random, whatever
// call.XID says. Call reads call's slices until it returns.
//
// Over UDP the call is sent again, with the same xid, as long as no reply comes: the server may carry it out more
// than once. Over streams it is sent once. A call that is given up because ctx ended, or whose connection broke, may
// have been carried out or not. Replies to other calls, late and repeated ones are passed over; the connection
// survives calls that are given up, in the middle of their sending too.
//
// The error is a [*CallError].
func (c *Client) Call(ctx context.Context, call Call) ([]byte, error) {
	results, err := c.call(ctx, call)
	if err != nil {
		return nil, &CallError{Program: call.Program, Version: call.Version, Procedure: call.Procedure,
			Network: c.network, Addr: c.addr, Err: err}
	}
	return results, nil
}

func (c *Client) call(ctx context.Context, call Call) ([]byte, error) {
	if call.Cred.Flavor == AuthNone && call.Cred.Body == nil {
		call.Cred = c.config.Cred
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case len(call.Cred.Body) > MaxAuthBody || len(call.Verf.Body) > MaxAuthBody:
		return nil, errAuthTooLong
	case int64(len(call.Args)) > math.MaxInt32-CallHeaderSize-2*MaxAuthBody:
		return nil, ErrRecordTooLong
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p, err := c.register()
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	call.XID = p.xid
	if c.config.Datagram {
		return c.askAgain(ctx, p, call)
	}
	if err := c.send(ctx, call); err != nil {
		return nil, err
	}
	return c.await(ctx, p, time.Time{})
}
