package main

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const (
	socketPath     = rpcbind.SocketPath
	portmapperPort = rpcbind.Port
)

// maxString is the size in octets of the longest string that is taken from a portmapper: libtirpc's limit.
const maxString = 9000

// client calls programs at one address over one transport.
type client struct {
	rpc   *oncrpc.Client
	dead  *rpcError // if rpc is nil, what every call fails with
	netid string
	at    netip.AddrPort // zero for local sockets
	path  string         // of a local socket
	limit time.Duration  // for a call
}

func (c *client) close() {
	if c.rpc != nil {
		_ = c.rpc.Close()
	}
}

// uaddr returns the universal address of the other end.
func (c *client) uaddr() string {
	if c.path != "" {
		return c.path
	}
	return rpcbind.UAddr(c.at)
}

// where is the address of the other end for people.
func (c *client) where() string {
	if c.path != "" {
		return c.path
	}
	return c.at.String()
}

// call calls a procedure and returns its results.
func (c *client) call(ctx context.Context, prog, vers, proc uint32, args []byte) (xdr.Decoder, *rpcError) {
	if c.rpc == nil {
		return xdr.Decoder{}, c.dead
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	results, err := c.rpc.Call(ctx, oncrpc.Call{Program: prog, Version: vers, Procedure: proc, Args: args})
	if err != nil {
		return xdr.Decoder{}, callError(err)
	}
	return xdr.NewDecoder(results), nil
}

// ask calls a procedure of the portmapper and has its results read.
func (c *client) ask(ctx context.Context, vers, proc uint32, args []byte, read func(*xdr.Decoder)) *rpcError {
	d, failed := c.call(ctx, rpcbind.Program, vers, proc, args)
	if failed != nil {
		return failed
	}
	read(&d)
	if d.Err() != nil {
		return badReply(d.Err())
	}
	return nil
}

// null calls the procedure that does nothing.
func (c *client) null(ctx context.Context, prog, vers uint32) *rpcError {
	_, failed := c.call(ctx, prog, vers, 0, nil)
	return failed
}

// dial makes a client of an IP address, as clnt_tli_create(3) does it.
func (a *asker) dial(ctx context.Context, t transport, to netip.AddrPort) (*client, *rpcError) {
	switch {
	case !t.known():
		return nil, &rpcError{status: systemError, errno: syscall.ENOTSOCK} // what libtirpc makes of its lack of a socket
	case t.local() || to.Addr().Is4() == t.ipv6():
		return nil, &rpcError{status: unknownHost}
	}
	c := &client{netid: t.netid, at: to, limit: a.opt.timeout}
	ctx, cancel := context.WithTimeout(ctx, a.opt.timeout)
	defer cancel()
	d := net.Dialer{KeepAlive: -1}
	if strings.HasPrefix(t.netid, "udp") {
		d.Control = reportUnreachable
	}
	conn, err := d.DialContext(ctx, network(t), to.String())
	switch {
	case err == nil:
		c.rpc = oncrpc.NewClient(conn, a.rpcConfig())
		return c, nil
	case strings.HasPrefix(t.netid, "udp"):
		// Libtirpc doesn't connect these sockets: there the first call fails.
		failed := dialError(err)
		if errno(failed.errno) == int(syscall.EAFNOSUPPORT) {
			return nil, failed
		}
		c.dead = &rpcError{status: cantSend, errno: failed.errno}
		return c, nil
	}
	return nil, dialError(err)
}

// network returns the network of package net.
func network(t transport) string {
	if t.ipv6() {
		return t.netid
	}
	return t.netid + "4"
}

// reportUnreachable makes the kernel tell of every ICMP error, not only of refused ports.
func reportUnreachable(network, _ string, c syscall.RawConn) error {
	level, option := syscall.SOL_IP, syscall.IP_RECVERR
	if network == "udp6" {
		level, option = syscall.SOL_IPV6, syscall.IPV6_RECVERR
	}
	var failed error
	err := c.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(err, failed)
}

// dialPath makes a client of a local socket.
func (a *asker) dialPath(ctx context.Context, path string) (*client, *rpcError) {
	ctx, cancel := context.WithTimeout(ctx, a.opt.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, dialError(err)
	}
	return &client{rpc: oncrpc.NewClient(conn, a.rpcConfig()), netid: "local", path: path, limit: a.opt.timeout}, nil
}

// dialLocal makes a client of this host's portmapper: by its socket, by the same name in the abstract namespace if that is
// root's or ours, or by TCP. The error is that of the first.
func (a *asker) dialLocal(ctx context.Context) (*client, *rpcError) {
	c, failed := a.dialPath(ctx, a.world.socket)
	if failed == nil || a.world.socket != socketPath {
		return c, failed
	}
	ctx, cancel := context.WithTimeout(ctx, a.opt.timeout)
	defer cancel()
	other, err := rpcbind.DialLocal(ctx)
	if err != nil {
		return nil, failed
	}
	return &client{rpc: other.RPC(), netid: "local", path: socketPath, limit: a.opt.timeout}, nil
}

// dialPortmapper makes a client of a host's portmapper, over the transport given or, if it is nil, over the first one
// that goes.
func (a *asker) dialPortmapper(ctx context.Context, t *transport, host string) (*client, *rpcError) {
	addrs, err := a.resolve(ctx, host)
	if err != nil || len(addrs) == 0 {
		failed := &rpcError{status: unknownError, detail: "the host isn't known"}
		if err != nil {
			failed.detail = err.Error()
		}
		return nil, failed
	}
	list := a.nets.toPortmapper()
	if t != nil {
		list = []transport{*t}
	}
	failed := &rpcError{status: unknownProtocol, detail: "no transport of netconfig(5) can be used"}
	for _, t := range list {
		var c *client
		// Only the best address, as in rpcinfo: the others show what the first one hides only to who knows them.
		if c, failed = a.dial(ctx, t, netip.AddrPortFrom(addrs[0], a.world.port)); failed == nil {
			return c, nil
		}
	}
	return nil, failed
}

// rpcConfig is how calls are made. A ping is lost if its datagram is: it isn't sent again.
func (a *asker) rpcConfig() oncrpc.ClientConfig {
	config := oncrpc.ClientConfig{MaxReply: cmp.Or(a.maxReply, rpcbind.DefaultMaxReply)}
	if a.pinging {
		config.FirstWait, config.LongestWait, config.MaxCalls = 2*a.opt.timeout, 2*a.opt.timeout, maxPings
	}
	return config
}

// maxPings is the number of pings that may be on their way: at the shortest interval, those of 40 s.
const maxPings = 4096
