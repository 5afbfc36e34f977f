package portmapper_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// start serves until the test ends.
func start(t *testing.T, o portmapper.Options, addresses ...string) *portmapper.Portmapper {
	t.Helper()
	pm := portmapper.New(o)
	if err := pm.Start(t.Context(), addresses...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pm.Close(); err != nil {
			t.Error(err)
		}
	})
	return pm
}

func dial(t *testing.T, network, address string) *rpcbind.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// everywhere starts a portmapper on every transport that this host has and returns network and address of each.
func everywhere(t *testing.T, o portmapper.Options) (*portmapper.Portmapper, [][2]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rpcbind.sock")
	addresses := []string{"127.0.0.1:0", path}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		l.Close()
		addresses = append(addresses, "[::1]:0")
	} else {
		t.Logf("without IPv6: %v", err)
	}
	pm := start(t, o, addresses...)
	var all [][2]string
	for _, a := range pm.Addrs() {
		all = append(all, [2]string{a.Network(), a.String()})
	}
	return pm, all
}

// Every procedure over every transport.
func TestProcedures(t *testing.T) {
	_, at := everywhere(t, portmapper.Options{})
	for i, a := range at {
		t.Run(a[0]+" "+a[1], func(t *testing.T) {
			ctx := limited(t)
			c := dial(t, a[0], a[1])
			for vers := uint32(2); vers <= 4; vers++ {
				if err := c.Null(ctx, vers); err != nil {
					t.Error(err)
				}
			}
			n := c.Netid()
			addr := map[rpcbind.Netid]string{rpcbind.UDP: "127.0.0.1.8.1", rpcbind.TCP: "127.0.0.1.8.1",
				rpcbind.UDP6: "::1.8.1", rpcbind.TCP6: "::1.8.1", rpcbind.Local: "/run/x"}[n]
			b := rpcbind.RPCB{Program: 0x20000000 + uint32(i), Version: 3, Netid: n, Addr: addr}
			other := b
			other.Addr = strings.Replace(addr, ".8.1", ".8.2", 1) + strings.Repeat("y", strings.Count(addr, "x"))
			for _, step := range []struct {
				what string
				do   func() (any, error)
				want any
			}{
				{"SET", func() (any, error) { return c.Set(ctx, b) }, true},
				{"SET again", func() (any, error) { return c.Set(ctx, b) }, true},
				{"SET of another address", func() (any, error) { return c.Set(ctx, other) }, false},
				{"GETADDR", func() (any, error) { return c.GetAddr(ctx, b) }, addr},
				{"GETVERSADDR", func() (any, error) { return c.GetVersAddr(ctx, b) }, addr},
				{"UNSET", func() (any, error) { return c.Unset(ctx, b) }, true},
				{"GETADDR after", func() (any, error) { return c.GetAddr(ctx, b) }, ""},
			} {
				if got, err := step.do(); err != nil || got != step.want {
					t.Errorf("%s: %v, %v; want %v", step.what, got, err, step.want)
				}
			}
			versions2(t, ctx, c, b.Program)
			if all, err := c.Dump(ctx); err != nil || len(all) < 10 || all[0].Program != rpcbind.Program {
				t.Errorf("DUMP: %v, %v", all, err)
			}
			if now, err := c.GetTime(ctx); err != nil || time.Since(now).Abs() > time.Minute {
				t.Errorf("GETTIME: %v, %v", now, err)
			}
			if stats, err := c.Stat(ctx); err != nil || stats.Of(4).Sets == 0 || stats.Of(4).Calls[rpcbind.ProcSet] < 3 {
				t.Errorf("GETSTAT: %+v, %v", stats, err)
			}
			list, err := c.GetAddrList(ctx, rpcbind.RPCB{Program: rpcbind.Program, Version: 4})
			if err != nil || (len(list) == 2) != (n != rpcbind.Local) {
				t.Errorf("GETADDRLIST: %v, %v", list, err)
			}
			taddr, err := c.UAddr2TAddr(ctx, addr)
			if err != nil {
				t.Errorf("UADDR2TADDR: %v", err)
			}
			if back, err := c.TAddr2UAddr(ctx, taddr); err != nil || back != addr {
				t.Errorf("TADDR2UADDR: %q, %v; want %q", back, err, addr)
			}
			if n == rpcbind.UDP || n == rpcbind.UDP6 {
				var refused *oncrpc.AcceptError
				if _, err := c.Indirect(ctx, rpcbind.RemoteCall{Program: 99, Version: 1}); !errors.As(err, &refused) {
					t.Errorf("INDIRECT: %v, want PROG_UNAVAIL", err)
				}
			}
		})
	}
}

// versions2 is what version 2 of the protocol can do.
func versions2(t *testing.T, ctx context.Context, c *rpcbind.Client, prog uint32) {
	t.Helper()
	m := rpcbind.Mapping{Program: prog, Version: 7, Prot: rpcbind.ProtUDP, Port: 2049}
	if ok, err := c.SetMapping(ctx, m); err != nil || !ok {
		t.Errorf("SET version 2: %v, %v", ok, err)
	}
	if port, err := c.GetPort(ctx, m); err != nil || port != m.Port {
		t.Errorf("GETPORT: %d, %v", port, err)
	}
	if all, err := c.DumpMappings(ctx); err != nil || all[len(all)-1] != m {
		t.Errorf("DUMP version 2: %v, %v", all, err)
	}
	if ok, err := c.UnsetMapping(ctx, m); err != nil || !ok {
		t.Errorf("UNSET version 2: %v, %v", ok, err)
	}
}

// Who may not register is told, and asked about as what the kernel says of it.
func TestMayRegister(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[rpcbind.Netid]portmapper.Caller)
	pm, at := everywhere(t, portmapper.Options{MayRegister: func(c portmapper.Caller) bool {
		mu.Lock()
		defer mu.Unlock()
		seen[c.Netid] = c
		return false
	}})
	before := pm.Registrations()
	for _, a := range at {
		c := dial(t, a[0], a[1])
		_, err := c.Set(limited(t), rpcbind.RPCB{Program: 1, Version: 1, Netid: rpcbind.TCP, Addr: "127.0.0.1.8.1"})
		var denied *oncrpc.DeniedError
		if !errors.As(err, &denied) || denied.Auth != oncrpc.AuthTooWeak {
			t.Errorf("%v: %v, want AUTH_TOOWEAK", a, err)
		}
		mu.Lock()
		from := seen[c.Netid()]
		mu.Unlock()
		switch {
		case !from.OnThisHost:
			t.Errorf("%v: %+v isn't taken for a caller on this host", a, from)
		case c.Netid() == rpcbind.Local && from.HasUID && from.UID != uint32(os.Getuid()):
			t.Errorf("%v: uid %d, want %d", a, from.UID, os.Getuid())
		case c.Netid() != rpcbind.Local && from.Remote.Addr().String() != hostOf(a[1]):
			t.Errorf("%v: from %v", a, from.Remote)
		}
	}
	if after := pm.Registrations(); !reflect.DeepEqual(after, before) {
		t.Errorf("registered: %v", after)
	}
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

// A caller from another address of this host isn't taken for one on loopback.
func TestNotOnLoopback(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.IsLoopback() || n.IP.To4() == nil {
			continue
		}
		pm := start(t, portmapper.Options{}, net.JoinHostPort(n.IP.String(), "0"))
		for _, network := range []string{"tcp", "udp"} {
			_, err := dial(t, network, pm.Addr()).Set(limited(t), rpcbind.RPCB{Program: 1, Version: 1, Netid: rpcbind.TCP, Addr: "127.0.0.1.8.1"})
			var denied *oncrpc.DeniedError
			if !errors.As(err, &denied) {
				t.Errorf("%s from %v: %v, want AUTH_TOOWEAK", network, n.IP, err)
			}
		}
		return
	}
	t.Skip("this host has no IPv4 address beside loopback")
}

// A wildcard UDP socket answers from the address that was asked: the client's socket is connected, and takes no other.
func TestWildcardAnswersFromTheAddressAsked(t *testing.T) {
	pm := start(t, portmapper.Options{}, "0.0.0.0:0")
	_, port, _ := net.SplitHostPort(pm.Addr())
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		if err := dial(t, "udp", net.JoinHostPort(host, port)).Null(limited(t), 4); err != nil {
			t.Error(err)
		}
	}
	both := start(t, portmapper.Options{}, ":0")
	_, port, _ = net.SplitHostPort(both.Addr())
	for _, network := range []string{"udp", "tcp"} {
		c := dial(t, network, "127.0.0.1:"+port)
		uaddr, err := c.GetAddr(limited(t), rpcbind.RPCB{Program: rpcbind.Program, Version: 4})
		if at, ok := rpcbind.ParseUAddr(uaddr); err != nil || !ok || at.String() != "127.0.0.1:"+port {
			t.Errorf("%s: %q, %v; want %s on 127.0.0.1", network, uaddr, err, port)
		}
	}
}

func TestRegisterWithoutASocket(t *testing.T) {
	pm := portmapper.New(portmapper.Options{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := pm.Register(100003, 3, l); err != nil {
		t.Fatal(err)
	}
	want := []rpcbind.RPCB{{Program: 100003, Version: 3, Netid: rpcbind.TCP, Owner: rpcbind.OwnerSuperuser}}
	got := pm.Registrations()
	if len(got) == 1 {
		want[0].Addr = got[0].Addr
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var e *rpcbind.Error
	if err := pm.Register(0, 3, l); !errors.As(err, &e) {
		t.Errorf("program 0: %v, want an *rpcbind.Error", err)
	}
	if n := pm.Unregister(100003, 3, ""); n != 1 || len(pm.Registrations()) != 0 {
		t.Errorf("%d removed, left are %v", n, pm.Registrations())
	}
}

func TestServesOnce(t *testing.T) {
	pm := start(t, portmapper.Options{}, "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := pm.Serve(t.Context(), l); !errors.Is(err, portmapper.ErrServed) {
		t.Errorf("%v, want %v", err, portmapper.ErrServed)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is left open: %v", err)
	}
	for _, bad := range [][]any{nil, {"127.0.0.1:0"}, {&net.TCPAddr{}}} {
		if err := portmapper.New(portmapper.Options{}).Serve(t.Context(), bad...); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// A broken socket ends the rest, and the reason is told.
func TestServeReportsABrokenSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- portmapper.New(portmapper.Options{}).Serve(t.Context(), l, pc) }()
	if err := dial(t, "udp", pc.LocalAddr().String()).Null(limited(t), 2); err != nil {
		t.Fatal(err)
	}
	pc.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want one that is %v", err, net.ErrClosed)
	}
}

// More connections than allowed: the idlest makes room, so that the newest is served.
func TestMaxConnections(t *testing.T) {
	pm := start(t, portmapper.Options{MaxConnections: 2}, "127.0.0.1:0")
	var clients []*rpcbind.Client
	for range 4 {
		c := dial(t, "tcp", pm.Addr())
		if err := c.Null(limited(t), 2); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	if err := clients[0].Null(limited(t), 2); err == nil {
		t.Error("the first of four connections is still served, although two are allowed")
	}
	if err := clients[3].Null(limited(t), 2); err != nil {
		t.Errorf("the newest connection: %v", err)
	}
}

func TestIdleTimeout(t *testing.T) {
	pm := start(t, portmapper.Options{IdleTimeout: 10 * time.Millisecond}, "127.0.0.1:0", filepath.Join(t.TempDir(), "s"))
	c, err := net.Dial("tcp", pm.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an idle TCP connection: %d octets, %v; want it closed", n, err)
	}
}

// What is no call closes the connection after the good calls before it were answered.
func TestGarbageOnAStream(t *testing.T) {
	pm := start(t, portmapper.Options{}, "127.0.0.1:0")
	call := oncrpc.AppendCall(oncrpc.BeginRecord(nil), oncrpc.Call{XID: 5, Program: rpcbind.Program, Version: 2})
	oncrpc.EndRecord(call, 0)
	for name, garbage := range map[string]string{
		"a record over the limit": "\x80\x00\x23\x29",
		"an empty fragment":       "\x00\x00\x00\x00",
		"no call":                 "\x80\x00\x00\x04abcd",
	} {
		c, err := net.Dial("tcp", pm.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "%s%s", call, garbage)
		buf := make([]byte, 100)
		read := 0
		for err == nil && read < len(buf) {
			var n int
			n, err = c.Read(buf[read:])
			read += n
		}
		if read != oncrpc.RecordMarkSize+oncrpc.AcceptedHeaderSize || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d octets, then %v; want a reply, then the end", name, read, err)
		}
		c.Close()
	}
}

func TestStartErrors(t *testing.T) {
	pm := start(t, portmapper.Options{}, "127.0.0.1:0")
	for _, addresses := range [][]string{{}, {pm.Addr()}, {"nonsense"}, {"127.0.0.1:0", "/nonexistent/dir/sock"}} {
		if _, err := portmapper.Start(t.Context(), addresses...); err == nil {
			t.Errorf("%v: no error", addresses)
		}
	}
	var idle portmapper.Portmapper
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	if _, err := portmapper.New(portmapper.Options{}).Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial before Start: %v", err)
	}
}
