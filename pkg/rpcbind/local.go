package rpcbind

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// errSquatter says that the abstract socket is somebody's who is not to be trusted with it.
var errSquatter = errors.New("the listener is neither root's nor this user's; anybody can take an abstract name")

// DialLocal opens a connection to the portmapper of this host, where servers register: to the abstract socket
// [SocketAbstract], else to [SocketPath], else by TCP to the loopback addresses 127.0.0.1 and ::1.
//
// The order is libtirpc's. Unlike libtirpc, DialLocal uses the abstract socket only if the kernel says that root or the
// user of this process made it (SO_PEERCRED): while no portmapper has that name, any user can take it and be told of
// registrations, or answer lookups with addresses of his own. The path is in a directory of root's, and port 111 is one
// that root alone may bind. Abstract sockets are tried on Linux alone.
//
// The error tells of every attempt.
func DialLocal(ctx context.Context) (*Client, error) {
	return dialLocal(ctx, []endpoint{
		{"unix", SocketAbstract},
		{"unix", SocketPath},
		{"tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(Port))},
		{"tcp", net.JoinHostPort("::1", strconv.Itoa(Port))},
	})
}

// an endpoint is where a portmapper may be reached.
type endpoint struct{ network, address string }

func dialLocal(ctx context.Context, endpoints []endpoint) (*Client, error) {
	var all error
	for _, e := range endpoints {
		c, err := e.dial(ctx)
		if err == nil {
			return c, nil
		}
		err = fmt.Errorf("%s %s: %w", e.network, e.address, err)
		all = also(all, err)
	}
	return nil, &Error{Op: "dial", Network: "local", Addr: "portmapper", Err: all}
}

func (e endpoint) dial(ctx context.Context) (*Client, error) {
	abstract := e.network == "unix" && e.address[0] == '@'
	if abstract && !abstractSockets {
		return nil, errors.ErrUnsupported
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, e.network, e.address)
	if err != nil {
		return nil, shorten(err)
	}
	if abstract {
		if err := trusted(conn); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return newClient(conn, e.network, e.address, oncrpc.ClientConfig{}), nil
}

// shorten leaves out of a net.OpError what the caller says itself.
func shorten(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// trusted tells why a local peer isn't to be trusted; nil if it is.
func trusted(conn net.Conn) error {
	peer, own, err := uids(conn)
	switch {
	case err != nil:
		return fmt.Errorf("whose the listener is can't be told: %w", err)
	case peer != 0 && peer != own:
		return fmt.Errorf("uid %d: %w", peer, errSquatter)
	}
	return nil
}
