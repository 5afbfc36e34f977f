package rpcbind_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// whoami serves a program that answers the caller's user and the network of its connection.
func whoami(t *testing.T) (l net.Listener, packets net.PacketConn) {
	t.Helper()
	s := new(oncrpc.Server)
	err := s.Register(calculator, 1, oncrpc.Procedures{1: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		cred, _ := r.SysCred()
		return xdr.AppendString(xdr.AppendUint32(results, cred.UID), r.Remote.String()), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	go s.ServePacket(packets)
	t.Cleanup(func() { s.Close() })
	return l, packets
}

// A Dialer calls with a credential and by a connection of the caller's making.
func TestDialer(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	l, packets := whoami(t)
	if err := pm.Register(calculator, 1, l, packets); err != nil {
		t.Fatal(err)
	}
	cred, err := oncrpc.SysCred{MachineName: "client.example", UID: 1000}.Auth()
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		var from string
		d := rpcbind.Dialer{
			Client: oncrpc.ClientConfig{Cred: cred},
			Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if err == nil {
					from = conn.LocalAddr().String()
				}
				return conn, err
			},
		}
		c, err := d.Dial(limited(t), network, pm.Addr(), calculator, 1)
		if err != nil {
			t.Fatal(err)
		}
		results, err := c.Call(limited(t), 1, nil)
		answer := xdr.NewDecoder(results)
		if uid, at := answer.Uint32(), answer.String(100); err != nil || uid != 1000 || at != from || at == "" {
			t.Errorf("%s: uid %d at %q, %v; want 1000 at %q", network, uid, at, err, from)
		}
		c.Close()

		d.Connect = func(context.Context, string, string) (net.Conn, error) { return nil, errOutOfPorts }
		var e *rpcbind.Error
		if _, err := d.Dial(limited(t), network, pm.Addr(), calculator, 1); !errors.Is(err, errOutOfPorts) || !errors.As(err, &e) || e.About.Program != calculator {
			t.Errorf("%s: %v, want an *Error that is %v", network, err, errOutOfPorts)
		}
	}
}

var errOutOfPorts = errors.New("no privileged port is free")

// A Client of a connection that the caller made: over TCP and UDP it asks as one that DialPortmapper made, and keeps a
// registration as well.
func TestNewClient(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	dial := func(network string) *rpcbind.Client {
		conn, err := net.Dial(network, pm.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c := rpcbind.NewClient(conn, oncrpc.ClientConfig{})
		t.Cleanup(func() { c.Close() })
		return c
	}
	registrar := rpcbind.Registrar{Dial: func(context.Context) (*rpcbind.Client, error) { return dial("tcp"), nil }}
	registration, err := registrar.Register(limited(t), calculator, 1, &net.TCPAddr{IP: net.IPv4zero, Port: 2049})
	if err != nil {
		t.Fatal(err)
	}
	defer registration.Close()
	for network, netid := range map[string]rpcbind.Netid{"tcp": rpcbind.TCP, "udp": rpcbind.UDP} {
		c := dial(network)
		if c.Netid() != netid {
			t.Errorf("%s: netid %s", network, c.Netid())
		}
		port, err := c.GetPort(limited(t), rpcbind.Mapping{Program: calculator, Version: 1, Prot: rpcbind.ProtTCP})
		if err != nil || port != 2049 {
			t.Errorf("%s: %d, %v", network, port, err)
		}
	}
}

// Over a pipe there are no addresses: it counts as a local socket, and errors name what there is.
func TestNewClientOfPipe(t *testing.T) {
	s := new(oncrpc.Server)
	if err := s.Register(rpcbind.Program, 4, oncrpc.Procedures{rpcbind.ProcGetAddr: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		return xdr.AppendString(results, "/run/x"), nil
	}}); err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	go s.ServeConn(theirs)
	defer s.Close()
	c := rpcbind.NewClient(ours, oncrpc.ClientConfig{MaxReply: 100})
	defer c.Close()
	if addr, err := c.GetAddr(limited(t), rpcbind.RPCB{Program: 1, Version: 1}); err != nil || addr != "/run/x" || c.Netid() != rpcbind.Local {
		t.Errorf("%q, %v over %s", addr, err, c.Netid())
	}
	_, err := c.Stat(limited(t))
	var e *rpcbind.Error
	if !errors.Is(err, oncrpc.ErrProcUnavail) || !errors.As(err, &e) || e.Network != "pipe" {
		t.Errorf("%v, want an *Error of network pipe that is %v", err, oncrpc.ErrProcUnavail)
	}
	if _, err := c.CallIt(limited(t), rpcbind.RemoteCall{Program: 1}); !errors.Is(err, rpcbind.ErrNeedsUDP) {
		t.Errorf("CALLIT: %v, want %v", err, rpcbind.ErrNeedsUDP)
	}
}
