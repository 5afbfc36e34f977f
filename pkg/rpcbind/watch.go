package rpcbind

import (
	"context"
	"errors"
	"net"
	"time"
)

// After the connection broke, the portmapper is looked for again after retryFirst, and then after twice as long each
// time, up to the interval: it is most likely being started again.
const retryFirst = 50 * time.Millisecond

// watch looks, until ctx ends, whether the registration is still there, and makes it again if it isn't.
func (g *Registration) watch(ctx context.Context) {
	defer close(g.stopped)
	retry := min(retryFirst, g.interval)
	for ctx.Err() == nil {
		if g.stand(ctx) {
			retry = min(retryFirst, g.interval)
			continue
		}
		pause(ctx, retry) // even if a connection only broke: it may be a portmapper that hangs up at once
		retry = min(2*retry, g.interval)
	}
}

// stand opens a connection to the portmapper that is there only to break, and looks whether the registration is there,
// again after each interval. It returns when ctx ends, the connection breaks or the portmapper can't be asked: true if
// that went well for at least one interval.
func (g *Registration) stand(ctx context.Context) (stood bool) {
	standing, err := g.open(ctx)
	if err != nil {
		g.tell(ctx, false, err)
		return false
	}
	defer standing.Close()
	for ; ; stood = true {
		asked, again, err := g.check(ctx)
		g.tell(ctx, again, err)
		if !asked || standing.broken(ctx, g.interval) {
			return stood
		}
	}
}

func (g *Registration) open(ctx context.Context) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return g.dial(ctx)
}

// check asks what is registered, and registers what isn't: again tells whether there was something. Asked is false if
// there was no answer.
func (g *Registration) check(ctx context.Context) (asked, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	c, err := g.dial(ctx)
	if err != nil {
		return false, false, err
	}
	defer c.Close()
	now, err := c.Dump(ctx)
	if err != nil {
		return false, false, err
	}
	var all error
	for _, b := range g.list {
		have, ok := find(now, b)
		switch {
		case !ok:
			err := c.set(ctx, b)
			again = again || err == nil
			all = also(all, err)
		case !isOurs(have, b):
			// Not ours to remove: most likely another server has taken over.
			all = also(all, &Error{Op: "DUMP", About: have, Network: c.network, Addr: c.addr, Err: ErrReplaced})
		}
	}
	return true, again, all
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// broken waits for d or the end of ctx, or until the connection of a Client that calls nothing breaks, which it returns.
// Over UDP nothing breaks.
func (c *Client) broken(ctx context.Context, d time.Duration) bool {
	if c.conn == nil {
		pause(ctx, d)
		return false
	}
	if c.conn.SetReadDeadline(time.Now().Add(d)) != nil {
		return true
	}
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })()
	_, err := c.conn.Read(make([]byte, 1)) // octets that nobody asked for are no good sign either
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// isOurs tells whether what a portmapper has is b. Version 2 of the protocol knows ports without addresses, and no owners.
func isOurs(have, b RPCB) bool {
	x, ok := ParseUAddr(have.Addr)
	y, ok2 := ParseUAddr(b.Addr)
	return have.Addr == b.Addr || have.Owner == "" && ok && ok2 && x.Port() == y.Port()
}

// tell reports changes of state, unless the end of ctx is the reason.
func (g *Registration) tell(ctx context.Context, again bool, err error) {
	if ctx.Err() != nil {
		return
	}
	changed := again || g.failing
	if err != nil {
		changed = !g.failing
	}
	g.failing = err != nil
	if changed && g.report != nil {
		g.report(err)
	}
}
