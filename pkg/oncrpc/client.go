package oncrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

const (
	// maxDatagram is the size in octets of the largest UDP payload that a reply can have.
	maxDatagram = 65535
	// streamReadSize is the size in octets of one read from a stream.
	streamReadSize = 16 << 10
	// maxReplyRecord is the size in octets of the largest reply that a client takes from a stream: a portmapper's
	// DUMP of some 50,000 registrations.
	maxReplyRecord = 4 << 20
)

// Over UDP a call is sent again when no reply came within firstWait, and then after twice as long each time, up to
// longestWait.
const (
	firstWait   = 500 * time.Millisecond
	longestWait = 8 * time.Second
)

// Client calls the procedures of one server over one socket. Several goroutines may use it; their calls are sent
// one after another.
type Client struct {
	conn   net.Conn
	stream bool
	wait   time.Duration // before the first retransmission
	turn   chan struct{} // holds a value while a call is on its way

	// Of the call on its way.
	out     []byte
	in      []byte
	records RecordReader
	broken  error // a stream that lost its framing or its other end: every later call gets this
}

// Dial connects to the server at address. The network is "udp", "tcp", each with 4 or 6 behind it to ask for that
// version of IP, or "unix" for a local stream socket, a path or @ and an abstract name; address is as in
// [net.Dial]. Errors are those of the net package.
func Dial(ctx context.Context, network, address string) (*Client, error) {
	var stream bool
	switch network {
	case "udp", "udp4", "udp6":
	case "tcp", "tcp4", "tcp6", "unix":
		stream = true
	default:
		return nil, net.UnknownNetworkError(network)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newClient(conn, stream), nil
}

func newClient(conn net.Conn, stream bool) *Client {
	return &Client{
		conn:    conn,
		stream:  stream,
		wait:    firstWait,
		turn:    make(chan struct{}, 1),
		records: RecordReader{Limit: maxReplyRecord},
	}
}

// Close closes the socket. A call on its way fails.
func (c *Client) Close() error { return c.conn.Close() }

// LocalAddr returns the address of the client's end.
func (c *Client) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the address of the server.
func (c *Client) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Call sends a call and waits for its reply until ctx ends; without a deadline it may wait for ever. It returns
// the results of a reply of SUCCESS, in memory that is the caller's. The xid is chosen at random, whatever
// call.XID says.
//
// Over UDP the call is sent again, with the same xid, as long as no reply comes: the server may carry it out more
// than once. Replies to other calls are skipped.
//
// The error is an [*AcceptError] or [*DeniedError] if the server said so, [ErrNotAReply] if what came isn't a
// reply, the error of ctx if that ended, [ErrRecordTooLong] if the reply is larger than 4 MiB,
// [io.ErrUnexpectedEOF] if the server closed the connection, or one of the net package. A stream can't be used
// any more after one of the last three.
func (c *Client) Call(ctx context.Context, call Call) ([]byte, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c.broken != nil {
		return nil, c.broken
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	call.XID = rand.Uint32()
	defer c.interruptible(ctx)()

	exchange := c.datagrams
	if c.stream {
		exchange = c.octets
	}
	reply, err := exchange(ctx, call)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	if err := reply.Err(); err != nil {
		return nil, err
	}
	return bytes.Clone(reply.Results), nil
}

// interruptible makes the end of ctx end every read and write on the socket, until the function that it returns is
// called. That one waits for an interruption that has begun, which otherwise could hit the next call.
func (c *Client) interruptible(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		c.conn.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}

// datagrams sends the call, again and again, and waits for the reply.
func (c *Client) datagrams(ctx context.Context, call Call) (Reply, error) {
	if c.in == nil {
		c.in = make([]byte, maxDatagram)
	}
	c.out = AppendCall(c.out[:0], call)
	for wait := c.wait; ; wait = min(2*wait, longestWait) {
		if _, err := c.conn.Write(c.out); err != nil {
			return Reply{}, err
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return Reply{}, err
		}
		if ctx.Err() != nil { // the deadline just set may have replaced that of the interruption
			return Reply{}, ctx.Err()
		}
		reply, err := c.receive(call.XID)
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return reply, err
		}
	}
}

func (c *Client) receive(xid uint32) (Reply, error) {
	for {
		n, err := c.conn.Read(c.in)
		if err != nil {
			return Reply{}, err
		}
		if message := c.in[:n]; answers(message, xid) {
			return ParseReply(message)
		}
	}
}

// octets sends the call as a record and waits for the record of the reply.
func (c *Client) octets(ctx context.Context, call Call) (Reply, error) {
	if c.in == nil {
		c.in = make([]byte, streamReadSize)
	}
	c.out = AppendCall(BeginRecord(c.out[:0]), call)
	EndRecord(c.out, 0)
	if n, err := c.conn.Write(c.out); err != nil {
		if n > 0 || ctx.Err() == nil { // half a record was sent, or there is nobody any more to send to
			c.broken = err
		}
		return Reply{}, err
	}
	for {
		record, ok, err := c.records.Next()
		switch {
		case err != nil:
			c.broken = err
			return Reply{}, err
		case ok && answers(record, call.XID):
			return ParseReply(record)
		case ok:
			continue
		}
		n, err := c.conn.Read(c.in)
		c.records.Feed(c.in[:n])
		if n == 0 && err != nil {
			return Reply{}, c.lost(ctx, err)
		}
	}
}

// lost judges the error of a read. What has arrived of a record stays in c.records: the connection survives a call
// that was given up.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.broken = err
	return err
}

// answers tells whether a message has the xid of the call. A message with the right xid that isn't a reply is the
// server's fault and not passed over.
func answers(message []byte, xid uint32) bool {
	return len(message) >= 4 && binary.BigEndian.Uint32(message) == xid
}
