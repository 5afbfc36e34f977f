package oncrpc

import (
	"context"
	"errors"
	"os"
	"time"
)

// send sends the call as a record, when those before it are sent.
func (c *Client) send(ctx context.Context, call Call) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	begin := len(c.out)
	c.out = AppendCall(BeginRecord(c.out), call)
	EndRecord(c.out, begin)

	stop := c.interruptible(ctx, writing)
	n, err := c.conn.Write(c.out)
	stop()
	switch {
	case err == nil:
		c.keep(0, 0)
		return nil
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) && n <= begin:
		c.keep(n, begin) // nothing of this call was sent, and nothing shall be
		return ctx.Err()
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		c.keep(n, len(c.out)) // the next call has to finish the record, or the stream loses its framing
		return ctx.Err()
	}
	c.fail(err)
	return c.reason() // it may have been broken before
}

// keep makes c.out[from:to] all that is still to be sent.
func (c *Client) keep(from, to int) {
	c.out = c.out[:copy(c.out, c.out[from:to])]
	if len(c.out) == 0 && cap(c.out) > bufferKept {
		c.out = nil
	}
}

// What a call does with the connection that can last.
const (
	reading = false
	writing = true
)

// interruptible makes the end of ctx end a Read or a Write, until the function that it returns is called. That one waits
// for an interruption that has begun, which otherwise could hit the next call.
func (c *Client) interruptible(ctx context.Context, what bool) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	return c.interruptAtEnd(ctx, what)
}

func (c *Client) interruptAtEnd(ctx context.Context, what bool) (stop func()) {
	set := c.conn.SetReadDeadline
	if what == writing {
		set = c.conn.SetWriteDeadline
	}
	ended := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		_ = set(time.Unix(1, 0))
		close(ended)
	})
	return func() {
		if !cancel() {
			<-ended
			_ = set(time.Time{})
		}
	}
}

// askAgain sends the call as a datagram, again and again, and waits for its reply.
func (c *Client) askAgain(ctx context.Context, p *pending, call Call) ([]byte, error) {
	p.out = AppendCall(p.out[:0], call)
	for wait := c.config.FirstWait; ; wait *= 2 {
		wait = min(wait, c.config.LongestWait)
		if _, err := c.conn.Write(p.out); err != nil {
			// It may be the ICMP error of an earlier datagram, which the socket reports once to whoever comes first.
			if _, err = c.conn.Write(p.out); err != nil {
				return nil, c.unsent(err)
			}
		}
		results, err := c.await(ctx, p, time.Now().Add(wait))
		if err != errAgain {
			return results, err
		}
	}
}

// unsent is the error of a Write, or why the Client was closed before.
func (c *Client) unsent(err error) error {
	if reason := c.reason(); reason != nil {
		return reason
	}
	return err
}
