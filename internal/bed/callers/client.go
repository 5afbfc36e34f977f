package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const (
	pause = 2 * time.Millisecond // between two calls of a client
	// firstWait is how long a client waits before it sends a datagram again, as libtirpc does.
	firstWait = time.Second
	// maxBroken is how many connections may break under one call before it counts as lost.
	maxBroken = 2
	// patience is how long a call may take in all before it counts as lost.
	patience = 20 * time.Second
)

// A client asks over one transport.
type client struct {
	name             string
	network, address string
	keeps            bool // one connection for all calls, rather than one for each

	calls, again, broken int
	mostSent             int           // how often a call was sent at most
	byTCP                int           // calls made over TCP, because the local socket refused
	longest              time.Duration // from a call to its answer
	last                 time.Time     // when the last right answer came
	gap                  time.Duration // the longest from one right answer to the next
	wrong                []string      // what must not happen; the first few
	wrongs               int

	conn *counted
	rpc  *oncrpc.Client
	port uint32 // the answer to the first call
}

// clients returns one for each way to the portmapper of this host.
func clients(v6 bool) []*client {
	all := []*client{
		{name: "udp", network: "udp4", address: "127.0.0.1:111", keeps: true},
		{name: "tcp", network: "tcp4", address: "127.0.0.1:111", keeps: true},
		{name: "tcp, a connection each", network: "tcp4", address: "127.0.0.1:111"},
		{name: "local", network: "unix", address: rpcbind.SocketPath, keeps: true},
		{name: "local, a connection each", network: "unix", address: rpcbind.SocketPath},
	}
	if v6 {
		all = append(all,
			&client{name: "udp6", network: "udp6", address: "[::1]:111", keeps: true},
			&client{name: "tcp6, a connection each", network: "tcp6", address: "[::1]:111"})
	}
	return all
}

func (c *client) String() string {
	s := fmt.Sprintf("%-24s %6d calls, %d sent again, %d connections broken, %d by TCP instead, longest wait %v, longest without an answer %v ms",
		c.name, c.calls, c.again, c.broken, c.byTCP, c.longest.Round(100*time.Microsecond), c.gap.Milliseconds())
	if c.wrongs > 0 {
		s += fmt.Sprintf(", %d WRONG: %s", c.wrongs, strings.Join(c.wrong, "; "))
	}
	return s
}

// served tells whether every call was answered as it must be, with no more trouble than allowed.
func (c *client) served(allowed trouble) bool {
	broken := allowed.broken
	if c.keeps && c.network == "unix" {
		broken = allowed.brokenLocal
	}
	return c.calls > 0 && c.wrongs == 0 && c.broken <= broken && c.mostSent <= 1+allowed.again && (c.byTCP == 0 || allowed.byTCP)
}

// trouble is what a client may have to put up with.
type trouble struct {
	broken      int  // connections that break
	brokenLocal int  // the same of the local connection that is kept
	again       int  // how often a call is sent again
	byTCP       bool // the local socket may refuse for a while
}

func (c *client) callUntilDone(ctx context.Context, program, version uint32) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	defer func() { c.hangUp() }()
	args := rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: program, Version: version, Prot: rpcbind.ProtTCP})
	for ctx.Err() == nil {
		start := time.Now()
		if err := c.call(args); err != nil {
			c.fails(err)
		} else {
			now := time.Now()
			if !c.last.IsZero() {
				c.gap = max(c.gap, now.Sub(c.last))
			}
			c.last = now
		}
		c.longest = max(c.longest, time.Since(start))
		c.calls++
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (c *client) fails(err error) {
	c.wrongs++
	if len(c.wrong) < 3 {
		c.wrong = append(c.wrong, fmt.Sprintf("call %d: %v", c.calls, err))
	}
	c.hangUp()
}

// call makes one call. It doesn't end with the program: one that is under way is to be answered.
func (c *client) call(args []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !c.keeps {
		defer c.hangUp()
	}
	results, sent, err := c.ask(ctx, args)
	for range maxBroken {
		if err == nil || c.rpc == nil || !c.conn.stream || ctx.Err() != nil {
			break
		}
		// What every client of a stream does when it breaks: connect again, and call again.
		c.broken++
		c.hangUp()
		results, sent, err = c.ask(ctx, args)
	}
	if err != nil {
		return err
	}
	c.again += sent - 1
	c.mostSent = max(c.mostSent, sent)
	d := xdr.NewDecoder(results)
	port := d.Uint32()
	if err := d.Err(); err != nil {
		return err
	}
	if c.port == 0 {
		c.port = port
	}
	if port == 0 || port != c.port {
		return fmt.Errorf("answered %d, first %d", port, c.port)
	}
	return nil
}

// ask connects if need be and sends a call; sent is how often that was, until it was answered.
func (c *client) ask(ctx context.Context, args []byte) (results []byte, sent int, err error) {
	if c.rpc == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, c.network, c.address)
		if err != nil && c.network == "unix" {
			// As libtirpc and the kernel do it.
			conn, err = d.DialContext(ctx, "tcp4", "127.0.0.1:111")
			c.byTCP++
		}
		if err != nil {
			return nil, 0, err
		}
		c.conn = &counted{Conn: conn, stream: !strings.HasPrefix(c.network, "udp")}
		c.rpc = oncrpc.NewClient(c.conn, oncrpc.ClientConfig{FirstWait: firstWait, Datagram: !c.conn.stream})
	}
	before := c.conn.writes.Load()
	results, err = c.rpc.Call(ctx, oncrpc.Call{
		Program: rpcbind.Program, Version: rpcbind.PMAPVers, Procedure: rpcbind.ProcGetPort, Args: args,
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in %v: %w", patience, err)
	}
	if sent = 1; !c.conn.stream {
		sent = int(c.conn.writes.Load() - before)
	}
	return results, sent, err
}

func (c *client) hangUp() {
	if c.rpc != nil {
		c.rpc.Close()
		c.rpc = nil
	}
}

// counted counts what is written: over UDP each time is a datagram.
type counted struct {
	net.Conn
	stream bool
	writes atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}
