package portmapper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Start starts a Portmapper with the zero [Options]: see [Portmapper.Start].
func Start(ctx context.Context, addresses ...string) (*Portmapper, error) {
	p := New(Options{})
	if err := p.Start(ctx, addresses...); err != nil {
		return nil, err
	}
	return p, nil
}

// sharedPort is how often a port that the system chose for TCP is given up because another socket has it for UDP.
const sharedPort = 100

// Start opens sockets and serves them in the background until ctx ends or [Portmapper.Close] is called. An address is
// "host:port", where it listens on TCP and UDP and port 0 stands for one that is free for both; or the path of a local
// stream socket, absolute, which must not exist; or @ and the name of an abstract one (Linux). When Start returns, calls
// are being taken.
func (p *Portmapper) Start(ctx context.Context, addresses ...string) error {
	var listeners []any
	for _, a := range addresses {
		opened, err := open(ctx, a)
		if err != nil {
			closeAll(listeners)
			return fmt.Errorf("portmapper: listen at %s: %w", a, err)
		}
		listeners = append(listeners, opened...)
	}
	ctx, cancel := context.WithCancel(ctx)
	run, err := p.prepare(listeners)
	if err != nil {
		cancel()
		closeAll(listeners)
		return err
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.stop, p.ended = cancel, ended
	p.mu.Unlock()
	go func() {
		defer close(ended)
		defer cancel()
		p.err = run(ctx)
	}()
	return nil
}

func open(ctx context.Context, address string) ([]any, error) {
	var c net.ListenConfig
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		l, err := c.Listen(ctx, "unix", address)
		if err != nil {
			return nil, err
		}
		return []any{l}, nil
	}
	for try := 1; ; try++ {
		l, err := c.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		chosen := port == "0" || port == ""
		_, port, _ = net.SplitHostPort(l.Addr().String())
		pc, err := c.ListenPacket(ctx, "udp", net.JoinHostPort(host, port))
		if err == nil {
			return []any{l, pc}, nil
		}
		_ = l.Close()
		if !chosen || try == sharedPort {
			return nil, err
		}
	}
}

func closeAll(listeners []any) {
	for _, l := range listeners {
		switch l := l.(type) {
		case net.Listener:
			_ = l.Close()
		case net.PacketConn:
			_ = l.Close()
		}
	}
}

// Addrs returns the addresses of the sockets served, in the order given.
func (p *Portmapper) Addrs() []net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]net.Addr(nil), p.addrs...)
}

// Addr returns the first address served, as "127.0.0.1:45678" or "/run/rpcbind.sock"; "" if none is.
func (p *Portmapper) Addr() string {
	if addrs := p.Addrs(); len(addrs) > 0 {
		return addrs[0].String()
	}
	return ""
}

// Dial opens a connection to the first address served, by which programs of this host can register. It is what
// [rpcbind.Registrar] wants.
func (p *Portmapper) Dial(ctx context.Context) (*rpcbind.Client, error) {
	addrs := p.Addrs()
	if len(addrs) == 0 {
		return nil, &rpcbind.Error{Op: "dial", Network: "local", Addr: "portmapper", Err: net.ErrClosed}
	}
	at := addrs[0].String()
	if ap := plain(addrs[0]); ap.IsValid() && ap.Addr().IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if ap.Addr().Is4() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		at = netip.AddrPortFrom(loopback, ap.Port()).String()
	}
	return rpcbind.DialPortmapper(ctx, addrs[0].Network(), at)
}

// Close ends what [Portmapper.Start] started, and returns when that has ended, with the error of a socket if one ended it
// before. It does nothing for one that was not started.
func (p *Portmapper) Close() error {
	p.mu.Lock()
	stop, ended := p.stop, p.ended
	p.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	<-ended
	return p.err
}

// Serve serves TCP, UDP and local stream sockets, each a [net.Listener] or a [net.PacketConn], until ctx ends, and returns
// nil then; an error of a socket ends it for all and is returned. It closes the sockets and every connection, and no
// goroutine of it is left when it returns. The portmapper registers itself at their addresses. It serves once: then the
// error is [ErrServed].
//
// A UDP socket should be bound to one address where the host has several and is not Linux: elsewhere its replies may
// leave from another one than was asked.
func (p *Portmapper) Serve(ctx context.Context, listeners ...any) error {
	run, err := p.prepare(listeners)
	if err != nil {
		closeAll(listeners)
		return err
	}
	return run(ctx)
}

// prepare makes ready to serve, and returns what does it.
func (p *Portmapper) prepare(listeners []any) (run func(context.Context) error, err error) {
	var loops []loop
	var addrs []net.Addr
	for _, l := range listeners {
		made, addr, err := p.loopFor(l)
		if err != nil {
			return nil, err
		}
		loops, addrs = append(loops, made), append(addrs, addr)
	}
	if len(loops) == 0 {
		return nil, errors.New("portmapper: no listener given")
	}
	if p.served.Swap(true) {
		return nil, ErrServed
	}
	p.look()
	if err := p.registerOwn(listeners); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.addrs = addrs
	p.mu.Unlock()
	return func(ctx context.Context) error { return p.run(ctx, loops) }, nil
}

// registerOwn registers the portmapper's own addresses: versions 4 and 3 on every transport, version 2 where its clients
// can ask for it. Of several sockets of one transport the first is registered.
func (p *Portmapper) registerOwn(listeners []any) error {
	for _, l := range listeners {
		list, err := rpcbind.Addresses(rpcbind.Program, 0, l)
		if err != nil {
			return err
		}
		for _, b := range list {
			b.Owner = rpcbind.OwnerSuperuser
			versions := []uint32{rpcbind.RPCBVers4, rpcbind.RPCBVers3}
			if _, ok := b.Netid.Prot(); ok {
				versions = append(versions, rpcbind.PMAPVers)
			}
			for _, b.Version = range versions {
				_ = p.table.SetOwn(b) // an earlier socket's address stays
			}
		}
	}
	return nil
}

// a loop serves one socket until that is closed.
type loop interface {
	run() error
	close()
}

func (p *Portmapper) loopFor(listener any) (loop, net.Addr, error) {
	switch l := listener.(type) {
	case net.Listener:
		switch a := l.Addr().(type) {
		case *net.TCPAddr:
			return &acceptLoop{p: p, listener: l}, a, nil
		case *net.UnixAddr:
			if a.Net == "unix" {
				return &acceptLoop{p: p, listener: l, local: true}, a, nil
			}
		}
		return nil, nil, fmt.Errorf("portmapper: a listener at %v is neither TCP nor a local stream socket", l.Addr())
	case net.PacketConn:
		if _, ok := l.LocalAddr().(*net.UDPAddr); ok {
			return newPacketLoop(p, l), l.LocalAddr(), nil
		}
		return nil, nil, fmt.Errorf("portmapper: a packet connection at %v is not UDP", l.LocalAddr())
	}
	return nil, nil, fmt.Errorf("portmapper: a %T is neither a net.Listener nor a net.PacketConn", listener)
}

// run serves until ctx ends or a loop does.
func (p *Portmapper) run(ctx context.Context, loops []loop) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	ended := make(chan error, len(loops))
	for _, l := range loops {
		all.Go(func() { ended <- l.run() })
	}
	all.Go(func() { p.watch(ctx) })
	var first error
	select {
	case <-ctx.Done():
	case first = <-ended:
	}
	cancel()
	for _, l := range loops {
		l.close()
	}
	all.Wait()
	p.closeConns()
	return first
}
