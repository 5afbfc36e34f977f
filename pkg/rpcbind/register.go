package rpcbind

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultInterval is how often a [Registration] looks whether it is still there.
	DefaultInterval = 30 * time.Second
	// closeLimit bounds how long Registration.Close waits for the portmapper.
	closeLimit = 5 * time.Second
	// callLimit bounds each question of a Registration that watches.
	callLimit = 10 * time.Second
)

// A Registrar registers programs with a portmapper and keeps them registered. The zero value does so with the portmapper
// of this host; [Register] uses that. Its fields may not change while it is used.
type Registrar struct {
	// Dial opens a connection to the portmapper. Nil stands for [DialLocal]. It is called from a goroutine of each
	// Registration.
	Dial func(ctx context.Context) (*Client, error)
	// Interval is how often a Registration looks whether it is still there, besides every time when its connection to the
	// portmapper breaks. Zero stands for [DefaultInterval]; below zero, it never looks and holds no connection.
	Interval time.Duration
	// Report, if not nil, is told of a change of a Registration's state: with an error when it can't be told whether it is
	// there, or it can't be made again, once until that changes; with nil when it was made again. It is called from the
	// Registration's goroutine, which waits, and must not close the Registration.
	Report func(error)
}

// Register makes version vers of program prog known to the portmapper of this host at the addresses of its listeners:
// see [Addresses] for what they may be. What the same user, or for root anybody, has registered for that version on
// those transports is unregistered first, as servers do: it was left behind by one that was killed. It is all or
// nothing: if one address is refused, those registered before it are unregistered.
//
//	l, err := net.Listen("tcp", ":0")
//	r, err := rpcbind.Register(ctx, 100005, 3, l)
//	defer r.Close()
//
// The context bounds the call to Register alone. Until the Registration is closed it is watched, by a goroutine with a
// connection of its own: if that breaks, and else every [DefaultInterval], it asks the portmapper for all registrations
// and makes those of ours again that are missing, as after the portmapper was started again without its state. A
// [Registrar] has other intervals, other portmappers, and reports.
//
// The errors are [*Error]s; one that is [ErrRefused] says that somebody else has registered the version.
func Register(ctx context.Context, prog, vers uint32, listeners ...any) (*Registration, error) {
	return (&Registrar{}).Register(ctx, prog, vers, listeners...)
}

// Register does what the function [Register] does, with r's settings.
func (r *Registrar) Register(ctx context.Context, prog, vers uint32, listeners ...any) (*Registration, error) {
	list, err := Addresses(prog, vers, listeners...)
	if err != nil {
		return nil, err
	}
	g := &Registration{dial: r.Dial, interval: r.Interval, report: r.Report, list: list}
	if g.dial == nil {
		g.dial = DialLocal
	}
	if g.interval == 0 {
		g.interval = DefaultInterval
	}
	c, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if g.list, err = c.register(ctx, list); err != nil {
		return nil, err
	}
	if g.interval < 0 {
		return g, nil
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	g.stop, g.stopped = stop, make(chan struct{})
	go g.watch(watching)
	return g, nil
}

// A Registration is a version of a program that is registered with a portmapper until it is closed. Its methods may be
// called from any number of goroutines.
type Registration struct {
	dial     func(context.Context) (*Client, error)
	interval time.Duration
	report   func(error)
	list     []RPCB

	stop    context.CancelFunc
	stopped chan struct{}
	failing bool // the last report was an error; of the goroutine that watches
	once    sync.Once
	closed  error
}

// Addresses returns what is registered: program, version, netid and universal address of each transport. Where the
// portmapper has version 2 of the protocol alone, TCP and UDP over IPv4 are all that can be.
func (g *Registration) Addresses() []RPCB { return slices.Clone(g.list) }

// Close ends the watch and unregisters what is still registered with our addresses, and waits for that at most 5 s. The
// error says that the portmapper couldn't be asked or refused; that it had forgotten us is none. The second and later
// calls return what the first did.
func (g *Registration) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	return g.Unregister(ctx)
}

// Unregister is Close with a context in place of the 5 s.
func (g *Registration) Unregister(ctx context.Context) error {
	g.once.Do(func() {
		if g.stop != nil {
			g.stop()
			<-g.stopped
		}
		g.closed = g.unregister(ctx)
	})
	return g.closed
}

func (g *Registration) unregister(ctx context.Context) error {
	c, err := g.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// A server that was started in our place may have registered itself already, and UNSET doesn't look at addresses.
	now, err := c.Dump(ctx)
	if err != nil {
		return err
	}
	var all error
	for _, b := range g.list {
		if have, ok := find(now, b); ok && isOurs(have, b) {
			all = also(all, c.unset(ctx, b))
		}
	}
	return all
}

// find returns the registration of b's program, version and netid.
func find(list []RPCB, b RPCB) (RPCB, bool) {
	for _, have := range list {
		if have.Program == b.Program && have.Version == b.Version && have.Netid.Is(b.Netid) {
			return have, true
		}
	}
	return RPCB{}, false
}

// register registers the list in the place of what was there, and returns what of it the portmapper could take: all, if
// it has a newer version of the protocol than 2.
func (c *Client) register(ctx context.Context, list []RPCB) (done []RPCB, err error) {
	for _, b := range list {
		if err := c.unset(ctx, b); err != nil {
			return nil, err
		}
	}
	var lacking error
	for _, b := range list {
		err := c.set(ctx, b)
		if errors.Is(err, ErrNotVersion2) {
			lacking = err
			continue
		}
		if err != nil {
			c.takeBack(ctx, done)
			return nil, err
		}
		done = append(done, b)
	}
	if len(done) == 0 {
		return nil, lacking
	}
	return done, nil
}

// takeBack unregisters what was registered before something failed; the failure is what matters to the caller.
func (c *Client) takeBack(ctx context.Context, done []RPCB) {
	if ctx.Err() != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		ctx = limited
	}
	for _, b := range done {
		_ = c.unset(ctx, b)
	}
}

// set is Set with an error for FALSE.
func (c *Client) set(ctx context.Context, b RPCB) error {
	ok, err := c.Set(ctx, b)
	if err == nil && !ok {
		err = &Error{Op: "SET", About: b, Network: c.network, Addr: c.addr, Err: ErrRefused}
	}
	return err
}

// unset is Unset with an error for FALSE. A portmapper of version 2 alone removes TCP and UDP together, which servers put
// up with since ever.
func (c *Client) unset(ctx context.Context, b RPCB) error {
	ok, err := c.Unset(ctx, RPCB{Program: b.Program, Version: b.Version, Netid: b.Netid})
	if errors.Is(err, ErrNotVersion2) {
		if _, v2 := b.Netid.Prot(); !v2 {
			return nil // nothing of that kind can be registered there
		}
		ok, err = c.UnsetMapping(ctx, Mapping{Program: b.Program, Version: b.Version})
	}
	if err == nil && !ok {
		err = &Error{Op: "UNSET", About: b, Network: c.network, Addr: c.addr, Err: ErrRefused}
	}
	return err
}
