package oncrpc

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"time"
)

const (
	// maxDatagram is the size in octets of the largest UDP payload that a reply can have.
	maxDatagram = 65535
	// streamReadSize is the size in octets of one read from a stream.
	streamReadSize = 16 << 10
	// bufferKept is the size in octets of the largest buffer that is kept between calls.
	bufferKept = 64 << 10
)

// errHungUp begins with what it is, for those who only print it.
var errHungUp = hungUp{}

type hungUp struct{}

func (hungUp) Error() string {
	return io.ErrUnexpectedEOF.Error() + ": the server closed the connection"
}
func (hungUp) Unwrap() error { return io.ErrUnexpectedEOF }

// pending is a call on its way.
type pending struct {
	xid      uint32
	answer   chan answer // holds one: whoever takes the call out of Client.waiting sends, and never waits
	answered bool        // the caller has received from answer
	out      []byte      // datagrams: the message, for sending it again
	timer    *time.Timer // datagrams: for the wait while another call reads
}

type answer struct {
	results []byte
	err     error
}

// register gives a call an xid that no other call on its way has.
func (c *Client) register() (*pending, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	var p *pending
	if last := len(c.free) - 1; last >= 0 {
		p, c.free = c.free[last], c.free[:last]
	} else {
		p = &pending{answer: make(chan answer, 1)}
	}
	// Random, because over UDP the xid is all that a forger of replies has to guess beside the port.
	p.xid, p.answered = rand.Uint32(), false
	for c.waiting[p.xid] != nil {
		p.xid = rand.Uint32()
	}
	c.waiting[p.xid] = p
	return p, nil
}

// release ends a call, answered or given up.
func (c *Client) release(p *pending) {
	c.mu.Lock()
	taken := c.waiting[p.xid] != p
	if !taken {
		delete(c.waiting, p.xid)
	}
	if !c.config.Datagram && len(c.waiting) == 0 && c.broken == nil {
		c.watchSoon()
	}
	c.mu.Unlock()
	if taken && !p.answered {
		<-p.answer // it is there or on its way, and must not reach the next call
	}
	if cap(p.out) > bufferKept {
		p.out = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, p)
}

// deliver gives a message to the call that it answers, and tells whether there was one. A message with the right xid that
// isn't a reply is the server's fault and not passed over.
func (c *Client) deliver(message []byte) (answered bool) {
	if len(message) < 4 {
		return false
	}
	xid := binary.BigEndian.Uint32(message)
	c.mu.Lock()
	p := c.waiting[xid]
	delete(c.waiting, xid)
	c.mu.Unlock()
	if p == nil {
		return false // late, repeated or foreign
	}
	reply, err := ParseReply(message)
	if err == nil {
		err = reply.Err()
	}
	if err != nil {
		p.answer <- answer{err: err}
		return true
	}
	p.answer <- answer{results: bytes.Clone(reply.Results)}
	return true
}

// fail closes the connection, if that wasn't done before, and gives every call, those on their way and those to come, the
// reason.
func (c *Client) fail(reason error) error {
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return nil
	}
	c.broken = reason
	c.failWaiting(reason)
	if c.idle != nil {
		c.idle.Stop()
	}
	c.mu.Unlock()
	return c.conn.Close()
}

// reason tells why the connection is broken.
func (c *Client) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// failWaiting gives the calls on their way a reason. It is called with mu held.
func (c *Client) failWaiting(reason error) {
	for xid, p := range c.waiting {
		delete(c.waiting, xid)
		p.answer <- answer{err: reason}
	}
}
