package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

const program = 0x20000001

// serving starts a portmapper in which program is registered with the port, and returns its TCP address.
func serving(t *testing.T, address string, port uint32) (*portmapper.Portmapper, string) {
	t.Helper()
	pm, err := portmapper.Start(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pm.Close() })
	addr := pm.Addrs()[0].String()
	c, err := rpcbind.DialPortmapper(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := c.SetMapping(t.Context(), rpcbind.Mapping{Program: program, Version: 1, Prot: rpcbind.ProtTCP, Port: port}); err != nil || !ok {
		t.Fatalf("SET: %v, %v", ok, err)
	}
	return pm, addr
}

// call lets c make its calls until it has made n more.
func call(t *testing.T, c *client, n int) {
	t.Helper()
	args := rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: program, Version: 1, Prot: rpcbind.ProtTCP})
	for range n {
		if err := c.call(args); err != nil {
			c.fails(err)
		}
		c.calls++
	}
	t.Log(c)
}

func TestServed(t *testing.T) {
	_, addr := serving(t, "127.0.0.1:0", 2049)
	for _, c := range []*client{
		{name: "udp", network: "udp4", address: addr, keeps: true},
		{name: "tcp", network: "tcp4", address: addr, keeps: true},
		{name: "tcp, a connection each", network: "tcp4", address: addr},
	} {
		call(t, c, 20)
		if !c.served(trouble{}) || c.port != 2049 {
			t.Errorf("%v; port %d", c, c.port)
		}
		c.hangUp()
	}
}

func TestNotCalled(t *testing.T) {
	if (&client{}).served(trouble{}) {
		t.Error("who never called was served")
	}
}

func TestNotRegistered(t *testing.T) {
	pm, err := portmapper.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	c := &client{network: "tcp4", address: pm.Addrs()[0].String()}
	call(t, c, 1)
	if c.served(trouble{}) || !strings.Contains(c.String(), "answered 0") {
		t.Error(c)
	}
}

func TestAnsweredOtherwise(t *testing.T) {
	_, first := serving(t, "127.0.0.1:0", 2049)
	_, second := serving(t, "127.0.0.1:0", 2050)
	c := &client{network: "tcp4", address: first}
	call(t, c, 1)
	c.address = second
	call(t, c, 1)
	if c.served(trouble{}) || !strings.Contains(c.String(), "answered 2050, first 2049") {
		t.Error(c)
	}
}

// TestBroken ends the portmapper under a client that keeps its connection, and starts another in its place.
func TestBroken(t *testing.T) {
	pm, addr := serving(t, "127.0.0.1:0", 2049)
	c := &client{network: "tcp4", address: addr, keeps: true}
	call(t, c, 2)
	pm.Close()
	serving(t, addr, 2049)
	call(t, c, 2)
	if c.served(trouble{}) || !c.served(trouble{broken: 1}) || c.broken != 1 {
		t.Error(c)
	}
}

// TestByTCP holds a client that found no local socket to the flag that allows it.
func TestByTCP(t *testing.T) {
	c := &client{network: "unix", calls: 1, byTCP: 1}
	if c.served(trouble{}) || !c.served(trouble{byTCP: true}) {
		t.Error(c)
	}
}

// TestBrokenLocal holds the local connection that is kept to a limit of its own.
func TestBrokenLocal(t *testing.T) {
	for _, c := range []*client{
		{network: "unix", keeps: true, calls: 1, broken: 1},
		{network: "unix", calls: 1, broken: 1},
		{network: "tcp4", keeps: true, calls: 1, broken: 1},
	} {
		local := c.network == "unix" && c.keeps
		if c.served(trouble{brokenLocal: 1}) != local || c.served(trouble{broken: 1}) == local {
			t.Errorf("%+v", c)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, network := range []string{"udp4", "tcp4"} {
		c := &client{network: network, address: "127.0.0.1:1", keeps: true}
		call(t, c, 5)
		if c.served(trouble{9, 9, 9, true}) || c.wrongs != 5 || len(c.wrong) != 3 {
			t.Error(c)
		}
	}
}

// TestSentAgain answers datagrams only when they come for the nth time.
func TestSentAgain(t *testing.T) {
	for _, n := range []int{2, 3} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			b := make([]byte, 1500)
			for i := 1; ; i++ {
				_, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				if i%n == 0 {
					// A reply: the xid, accepted without a verifier, success, port 2049.
					reply := append(append([]byte(nil), b[:4]...), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1)
					conn.WriteToUDPAddrPort(reply, from)
				}
			}
		}()
		c := &client{network: "udp4", address: conn.LocalAddr().String(), keeps: true}
		call(t, c, 1)
		if c.again != n-1 || c.served(trouble{again: 1}) != (n <= 2) {
			t.Errorf("answered when it comes for time %d: %v", n, c)
		}
	}
}

func TestCallUntilDone(t *testing.T) {
	_, addr := serving(t, "127.0.0.1:0", 2049)
	all := []*client{
		{name: "tcp", network: "tcp4", address: addr, keeps: true},
		{name: "udp", network: "udp4", address: addr, keeps: true},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, c := range callUntilDone(ctx, all, program, 1) {
		if !c.served(trouble{}) {
			t.Error(c)
		}
	}
}
