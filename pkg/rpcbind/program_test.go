package rpcbind_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// echo answers every call with its arguments.
func echo(call oncrpc.Call) []byte {
	if call.Program != calculator || call.Version != 1 {
		return oncrpc.AppendProgMismatch(nil, call.XID, 1, 1)
	}
	return append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), call.Args...)
}

func TestDialProgram(t *testing.T) {
	dir := t.TempDir()
	pm := startPortmapper(t, "127.0.0.1:0", filepath.Join(dir, "portmapper"))
	tcp, err := net.ResolveTCPAddr("tcp", serveStream(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ResolveUDPAddr("udp", servePacket(t, func(call oncrpc.Call) [][]byte { return [][]byte{echo(call)} }))
	if err != nil {
		t.Fatal(err)
	}
	// Registered as wildcards, as most servers are.
	tcp.IP, udp.IP = net.IPv4zero, net.IPv4zero
	if err := pm.Register(calculator, 1, tcp, udp); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "tcp4", "udp", "udp4"} {
		c, err := rpcbind.Dial(limited(t), network, pm.Addr(), calculator, 1)
		if err != nil {
			t.Errorf("%s: %v", network, err)
			continue
		}
		if got, err := c.Call(limited(t), 7, []byte("1234")); err != nil || string(got) != "1234" {
			t.Errorf("%s: %q, %v", network, got, err)
		}
		if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != "127.0.0.1" {
			t.Errorf("%s: connected to %v", network, c.RemoteAddr())
		}
		var refused *oncrpc.AcceptError
		if _, err := c.Client().Call(limited(t), oncrpc.Call{Program: calculator, Version: 2}); !errors.As(err, &refused) {
			t.Errorf("%s: version 2: %v", network, err)
		}
		c.Close()
	}
	for _, network := range []string{"tcp", "udp", "tcp4"} {
		// Another version is registered: that isn't the one asked for.
		_, err := rpcbind.Dial(limited(t), network, pm.Addr(), calculator, 2)
		var e *rpcbind.Error
		if !errors.As(err, &e) || !errors.Is(err, rpcbind.ErrNotRegistered) || e.About.Program != calculator || e.About.Version != 2 {
			t.Errorf("%s: %v, want %v", network, err, rpcbind.ErrNotRegistered)
		}
	}
	local := filepath.Join(dir, "portmapper")
	if _, err := rpcbind.Lookup(limited(t), "unix", local, calculator, 1); !errors.Is(err, rpcbind.ErrNotRegistered) {
		t.Errorf("unix: %v, want %v", err, rpcbind.ErrNotRegistered)
	}
	if err := pm.Register(calculator, 1, &net.UnixAddr{Name: "/run/calc", Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	a, err := rpcbind.Lookup(limited(t), "unix", local, calculator, 1)
	if err != nil || a.Network() != "unix" || a.String() != "/run/calc" {
		t.Errorf("unix: %v, %v", a, err)
	}
	var e *rpcbind.Error
	if _, err := rpcbind.Dial(limited(t), "unix", local, calculator, 1); !errors.As(err, &e) || e.Op != "dial" || e.Addr != "/run/calc" {
		t.Errorf("a service that isn't there: %v", err)
	}
}

// A program that is registered for one version of IP is found from a host's name or wildcard that has both.
func TestLookupOtherFamily(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("needs IPv6: %v", err)
	} else {
		l.Close()
	}
	if addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", "localhost"); err != nil || len(addrs) < 2 {
		t.Skipf("needs localhost with two addresses: %v, %v", addrs, err)
	}
	pm := startPortmapper(t, ":0")
	_, port, _ := net.SplitHostPort(pm.Addr())
	for prog, at := range map[uint32]net.IP{calculator: net.IPv4zero, calculator + 1: net.IPv6loopback} {
		if err := pm.Register(prog, 1, &net.TCPAddr{IP: at, Port: 2049}, &net.UDPAddr{IP: at, Port: 2049}); err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"tcp", "udp"} {
			a, err := rpcbind.Lookup(limited(t), network, "localhost:"+port, prog, 1)
			want := "127.0.0.1:2049"
			if at.To4() == nil {
				want = "[::1]:2049"
			}
			if err != nil || a.String() != want {
				t.Errorf("%s registered at %v: %v, %v; want %s", network, at, a, err, want)
			}
		}
	}
}

// What a hostile or old portmapper answers is an address at its own host or an error.
func TestLookupAnswers(t *testing.T) {
	newer := func(uaddr string) func(oncrpc.Call) []byte {
		return func(call oncrpc.Call) []byte {
			return append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), xdr.AppendString(nil, uaddr)...)
		}
	}
	old := func(newest, port uint32) func(oncrpc.Call) []byte {
		return func(call oncrpc.Call) []byte {
			switch {
			case call.Version > newest:
				return oncrpc.AppendProgMismatch(nil, call.XID, 2, newest)
			case call.Version == rpcbind.PMAPVers:
				return append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), xdr.AppendUint32(nil, port)...)
			}
			return append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), xdr.AppendString(nil, "0.0.0.0.8.2")...)
		}
	}
	for _, tt := range []struct {
		name   string
		handle func(oncrpc.Call) []byte
		want   string
		err    error
	}{
		{"wildcard", newer("0.0.0.0.8.1"), "127.0.0.1:2049", nil},
		{"another host", newer("192.0.2.1.8.1"), "127.0.0.1:2049", nil},
		{"version 3", old(3, 0), "127.0.0.1:2050", nil},
		{"version 2", old(2, 2049), "127.0.0.1:2049", nil},
		{"version 2, nothing", old(2, 0), "", rpcbind.ErrNotRegistered},
		{"version 2, no port", old(2, 65536+2049), "", rpcbind.ErrBadPort},
		{"nothing", newer(""), "", rpcbind.ErrNotRegistered},
		{"port 0", newer("127.0.0.1.0.0"), "", rpcbind.ErrBadAddress},
		{"text", newer("\x1b[31mred"), "", rpcbind.ErrBadAddress},
		{"too long", newer(strings.Repeat("1", 9001)), "", xdr.ErrTooLong},
		{"a path", newer("/run/x"), "", rpcbind.ErrBadAddress},
	} {
		addresses := map[string]string{
			"tcp": serveStream(t, tt.handle),
			"udp": servePacket(t, func(call oncrpc.Call) [][]byte { return [][]byte{tt.handle(call)} }),
		}
		for network, address := range addresses {
			a, err := rpcbind.Lookup(limited(t), network, address, calculator, 1)
			if tt.err == nil && (err != nil || a.Network() != network || a.String() != tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%s over %s: %v, %v; want %s, %v", tt.name, network, a, err, tt.want, tt.err)
			}
			checkError(t, tt.name, err)
		}
	}
}

func TestLookupErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	silent := servePacket(t, func(oncrpc.Call) [][]byte { return nil })
	if _, err := rpcbind.Lookup(ctx, "udp", silent, 1, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	for _, network := range []string{"sctp", "", "tcp6"} {
		if _, err := rpcbind.Lookup(limited(t), network, "127.0.0.1", 1, 1); err == nil {
			t.Errorf("network %q: no error", network)
		} else {
			checkError(t, network, err)
		}
	}
	if _, err := portmapper.New(portmapper.Options{}).Dial(t.Context()); err == nil {
		t.Error("a portmapper that doesn't serve: no error")
	}
}
