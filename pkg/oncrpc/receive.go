package oncrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// errAgain says that it is time to send a call again.
var errAgain = errors.New("no reply yet")

// await waits for the answer to a call until ctx ends or, unless it is zero, until the given time: then the error is
// errAgain. If nobody else is reading from the connection, it reads.
func (c *Client) await(ctx context.Context, p *pending, until time.Time) ([]byte, error) {
	select {
	case c.reading <- struct{}{}:
		return c.readFor(ctx, p, until)
	default:
	}
	var again <-chan time.Time
	if !until.IsZero() {
		again = p.timeout(time.Until(until))
		defer p.timer.Stop()
	}
	select {
	case a := <-p.answer:
		return p.receive(a)
	case c.reading <- struct{}{}: // who was reading has its answer
		return c.readFor(ctx, p, until)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-again:
		return nil, errAgain
	}
}

func (p *pending) timeout(d time.Duration) <-chan time.Time {
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	return p.timer.C
}

// receive takes the answer for its caller.
func (p *pending) receive(a answer) ([]byte, error) {
	p.answered = true
	return a.results, a.err
}

// readFor is await for the one that reads: it hands out whatever comes until its own answer is there. Then, or when it
// gives up, another call may read.
func (c *Client) readFor(ctx context.Context, p *pending, until time.Time) ([]byte, error) {
	defer func() { <-c.reading }()
	defer c.interruptible(ctx, reading)()
	for {
		select {
		case a := <-p.answer:
			return p.receive(a)
		default:
		}
		if !until.IsZero() {
			_ = c.conn.SetReadDeadline(until)
		}
		if ctx.Err() != nil { // the deadline just set may have replaced that of the interruption
			return nil, ctx.Err()
		}
		_, err := c.read()
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			c.unreadable(err)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !until.IsZero() && !time.Now().Before(until):
			return nil, errAgain
		default: // nobody here set this deadline
			_ = c.conn.SetReadDeadline(time.Time{})
		}
	}
}

// read reads once and gives the calls what there is for them, and tells whether there was something. It is called with
// reading held.
func (c *Client) read() (answered bool, err error) {
	if c.config.Datagram {
		if c.in == nil {
			c.in = make([]byte, maxDatagram)
		}
		n, err := c.conn.Read(c.in)
		return err == nil && c.deliver(c.in[:n]), err
	}
	if c.in == nil {
		c.in = make([]byte, streamReadSize)
	}
	n, readErr := c.conn.Read(c.in)
	c.records.Feed(c.in[:n])
	for {
		record, ok, err := c.records.Next()
		if err != nil {
			return answered, err
		}
		if !ok {
			return answered, readErr
		}
		answered = c.deliver(record) || answered
	}
}

// unreadable fails the calls on their way. A stream is over then. An error of a datagram socket that came by ICMP, as that
// nobody listens on the port, concerns what was sent before and not the socket.
func (c *Client) unreadable(err error) {
	if err == io.EOF {
		err = errHungUp
	}
	if !c.config.Datagram || err == errHungUp || errors.Is(err, net.ErrClosed) {
		_ = c.fail(err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failWaiting(err)
}

// idleTime is how long a stream is unused before it is watched: long for a client that calls again and again, short for one
// that wants to know that its server has hung up.
const idleTime = 10 * time.Millisecond

// watchSoon makes watch run, unless there is a call before. It is called with mu held.
func (c *Client) watchSoon() {
	if c.idle == nil {
		c.idle = time.AfterFunc(idleTime, c.watch)
	} else {
		c.idle.Reset(idleTime)
	}
}

// watch reads until there is an answer to a call or the connection ends.
func (c *Client) watch() {
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return
	}
	c.watcher.Add(1)
	c.mu.Unlock()
	defer c.watcher.Done()
	select {
	case c.reading <- struct{}{}:
	default:
		return // a call is reading, and sets the timer again when it ends
	}
	defer func() { <-c.reading }()
	for {
		answered, err := c.read()
		switch {
		case err == nil && answered:
			return
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.conn.SetReadDeadline(time.Time{}) // nobody here set it
		default:
			c.unreadable(err)
			return
		}
	}
}
