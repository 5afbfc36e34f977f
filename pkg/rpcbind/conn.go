package rpcbind

import (
	"context"
	"net"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// Conn calls the procedures of one version of a program. Several goroutines may use it at once.
type Conn struct {
	rpc        *oncrpc.Client
	prog, vers uint32
}

// Dial looks up version vers of program prog with the portmapper of a host, as [Lookup] does, and connects to it:
//
//	nfs, err := rpcbind.Dial(ctx, "tcp", "nfs.example", 100003, 3)
//	results, err := nfs.Call(ctx, 1, args)
//
// It doesn't call the program: that the address is that of another version, or of a server that has gone, shows at the
// first call. Who has a protocol of its own over the connection dials what [Lookup] returns. The error is an [*Error].
func Dial(ctx context.Context, network, host string, prog, vers uint32) (*Conn, error) {
	return Dialer{}.Dial(ctx, network, host, prog, vers)
}

// Dialer says how a program is connected to and called. The zero value does it as the function [Dial].
type Dialer struct {
	// Client is for the calls to the program: the credential, as of AUTH_SYS, limits, and over UDP the times between
	// transmissions. The portmapper is asked with AUTH_NONE.
	Client oncrpc.ClientConfig
	// Connect opens the connection to the program, at an address in Go's notation; nil stands for that of a zero
	// [net.Dialer]. An NFS server, for example, may ask for a source port below 1024.
	Connect func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dial does what the function [Dial] does, with d's settings.
func (d Dialer) Dial(ctx context.Context, network, host string, prog, vers uint32) (*Conn, error) {
	addr, err := Lookup(ctx, network, host, prog, vers)
	if err != nil {
		return nil, err
	}
	connect := d.Connect
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	conn, err := connect(ctx, addr.Network(), addr.String())
	if err != nil {
		about := RPCB{Program: prog, Version: vers}
		return nil, &Error{Op: "dial", About: about, Network: addr.Network(), Addr: addr.String(), Err: shorten(err)}
	}
	return &Conn{rpc: oncrpc.NewClient(conn, d.Client), prog: prog, vers: vers}, nil
}

// Call calls a procedure with the [Dialer]'s credential, without one with AUTH_NONE, and returns its encoded results: see
// [oncrpc.Client.Call], whose errors it returns.
func (c *Conn) Call(ctx context.Context, proc uint32, args []byte) ([]byte, error) {
	return c.rpc.Call(ctx, oncrpc.Call{Program: c.prog, Version: c.vers, Procedure: proc, Args: args})
}

// Client returns the client below, for calls with another credential and for other programs and versions at the same
// address.
func (c *Conn) Client() *oncrpc.Client { return c.rpc }

// RemoteAddr returns the address of the program.
func (c *Conn) RemoteAddr() net.Addr { return c.rpc.RemoteAddr() }

// Close closes the connection. Calls on their way fail. The second and later calls do nothing.
func (c *Conn) Close() error { return c.rpc.Close() }
