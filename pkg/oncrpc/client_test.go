package oncrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// packetServer answers on UDP with what handle returns for each datagram, one datagram each.
func packetServer(t *testing.T, handle func(call []byte) (replies [][]byte)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, reply := range handle(bytes.Clone(buf[:n])) {
				conn.WriteTo(reply, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// streamServer accepts one connection and hands it to serve.
func streamServer(t *testing.T, network string, serve func(conn net.Conn)) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	return l.Addr().String()
}

// nextRecord reads a record in one fragment, as Client sends them; nil at the end.
func nextRecord(conn net.Conn) []byte {
	mark := make([]byte, 4)
	if _, err := io.ReadFull(conn, mark); err != nil {
		return nil
	}
	b := make([]byte, int(mark[1])<<16|int(mark[2])<<8|int(mark[3]))
	io.ReadFull(conn, b)
	return b
}

func sendRecord(conn net.Conn, message []byte) { conn.Write(fragment(nil, message, true)) }

// echo answers a call with its arguments.
func echo(call []byte) []byte {
	c, err := ParseCall(call)
	if err != nil {
		return nil
	}
	return append(AppendAccepted(nil, c.XID, Success), c.Args...)
}

func echoRecords(conn net.Conn) {
	for {
		call := nextRecord(conn)
		if call == nil {
			return
		}
		sendRecord(conn, echo(call))
	}
}

// dial connects within the test's time and closes at its end.
func dial(t *testing.T, network, address string) *Client {
	t.Helper()
	return dialWith(t, ClientConfig{}, network, address)
}

func dialWith(t *testing.T, config ClientConfig, network, address string) *Client {
	t.Helper()
	c, err := config.Dial(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClientTransports(t *testing.T) {
	for _, network := range []string{"udp", "tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			var address string
			if network == "udp" {
				address = packetServer(t, func(call []byte) [][]byte { return [][]byte{echo(call)} })
			} else {
				address = streamServer(t, network, echoRecords)
			}
			c := dial(t, network, address)
			var kept [][]byte
			for _, args := range []string{"first", "", "the third, a longer one"} {
				got, err := c.Call(t.Context(), Call{Args: []byte(args)})
				if err != nil || string(got) != args {
					t.Fatalf("%q, %v; want %q", got, err, args)
				}
				kept = append(kept, got)
			}
			if string(kept[0]) != "first" {
				t.Errorf("the first results became %q: they must be the caller's", kept[0])
			}
			if c.RemoteAddr().String() != address || c.LocalAddr() == nil {
				t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
			}
		})
	}
}

func TestClientRetransmits(t *testing.T) {
	calls := make(chan []byte, 3)
	address := packetServer(t, func(call []byte) [][]byte {
		if len(calls) < 2 {
			calls <- call
			return nil
		}
		select {
		case calls <- call:
		default: // sent again while the reply was on its way
		}
		return [][]byte{echo(call)}
	})
	c := dialWith(t, ClientConfig{FirstWait: time.Millisecond}, "udp", address)
	if got, err := c.Call(t.Context(), Call{Args: []byte("x")}); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
	first := <-calls
	for range 2 {
		if again := <-calls; !bytes.Equal(again, first) {
			t.Errorf("sent again as % x, the first was % x", again, first)
		}
	}
}

// Messages that don't answer the call are passed over: other xids, earlier replies, junk too short for an xid.
func TestClientSkipsOtherReplies(t *testing.T) {
	other := func(call []byte) []byte {
		b := echo(call)
		b[3]++
		return b
	}
	t.Run("udp", func(t *testing.T) {
		address := packetServer(t, func(call []byte) [][]byte {
			return [][]byte{{}, {1, 2, 3}, other(call), echo(call)}
		})
		if got, err := dial(t, "udp", address).Call(t.Context(), Call{Args: []byte("x")}); err != nil || string(got) != "x" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("tcp", func(t *testing.T) {
		address := streamServer(t, "tcp", func(conn net.Conn) {
			call := nextRecord(conn)
			b := fragment(nil, nil, true)
			b = fragment(b, []byte{1, 2, 3}, true)
			b = fragment(b, other(call), true)
			conn.Write(fragment(b, echo(call), true))
		})
		if got, err := dial(t, "tcp", address).Call(t.Context(), Call{Args: []byte("x")}); err != nil || string(got) != "x" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A call given up leaves the connection whole: its late reply is passed over.
func TestClientAfterCancelledCall(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var first []byte
			handle := func(call []byte) [][]byte {
				if first == nil {
					first = call
					cancel()
					return nil
				}
				return [][]byte{echo(first), echo(call)}
			}
			var address string
			if network == "udp" {
				address = packetServer(t, handle)
			} else {
				address = streamServer(t, network, func(conn net.Conn) {
					for call := nextRecord(conn); call != nil; call = nextRecord(conn) {
						for _, reply := range handle(call) {
							sendRecord(conn, reply)
						}
					}
				})
			}
			// What ends the wait is the context.
			c := dialWith(t, ClientConfig{FirstWait: time.Hour, LongestWait: time.Hour}, network, address)
			if _, err := c.Call(ctx, Call{Args: []byte("late")}); !errors.Is(err, context.Canceled) {
				t.Fatalf("first call: %v, want %v", err, context.Canceled)
			}
			if got, err := c.Call(t.Context(), Call{Args: []byte("second")}); err != nil || string(got) != "second" {
				t.Errorf("second call: %q, %v", got, err)
			}
		})
	}
}

func TestClientDeadline(t *testing.T) {
	silent := map[string]string{
		"udp": packetServer(t, func([]byte) [][]byte { return nil }),
		"tcp": streamServer(t, "tcp", func(conn net.Conn) { io.Copy(io.Discard, conn) }),
	}
	for network, address := range silent {
		c := dial(t, network, address)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, err := c.Call(ctx, Call{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want %v", network, err, context.DeadlineExceeded)
		}
		if _, err := c.Call(ctx, Call{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, context that ended before: %v, want %v", network, err, context.DeadlineExceeded)
		}
		cancel()
		c.Close()
	}
}

// The wait for one of MaxCalls places ends with the context too.
func TestClientWaitsForItsTurn(t *testing.T) {
	started := make(chan struct{})
	release := make(chan struct{})
	address := streamServer(t, "tcp", func(conn net.Conn) {
		call := nextRecord(conn)
		close(started)
		<-release
		sendRecord(conn, echo(call))
		echoRecords(conn)
	})
	c := dialWith(t, ClientConfig{MaxCalls: 1}, "tcp", address)
	result := make(chan error)
	go func() {
		_, err := c.Call(t.Context(), Call{})
		result <- err
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := c.Call(ctx, Call{})
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("second call: %v, want %v", err, context.Canceled)
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("first call: %v", err)
	}
	if _, err := c.Call(t.Context(), Call{}); err != nil {
		t.Errorf("third call: %v", err)
	}
}

func TestClientConcurrentCalls(t *testing.T) {
	c := dial(t, "tcp", streamServer(t, "tcp", echoRecords))
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			args := []byte{0, 0, 0, byte(i)}
			for range 20 {
				if got, err := c.Call(t.Context(), Call{Args: args}); err != nil || !bytes.Equal(got, args) {
					t.Errorf("% x, %v; want % x", got, err, args)
				}
			}
		})
	}
	group.Wait()
}

// hostile streams: what the server sends, with the call's xid where it needs one, before it closes.
func TestClientHostileStreams(t *testing.T) {
	tests := []struct {
		name   string
		answer func(call []byte) []byte
		want   error
		broken bool
	}{
		{"closes", func([]byte) []byte { return nil }, io.ErrUnexpectedEOF, true},
		{"half a mark", func([]byte) []byte { return []byte{0x80, 0} }, io.ErrUnexpectedEOF, true},
		{"half a reply", func(call []byte) []byte { return fragment(nil, echo(call), true)[:20] }, io.ErrUnexpectedEOF, true},
		{"first fragment only", func(call []byte) []byte { return fragment(nil, echo(call), false) }, io.ErrUnexpectedEOF, true},
		{"announces 2^31-1 octets", func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff} }, ErrRecordTooLong, true},
		{"announces a little too much", func([]byte) []byte { return []byte{0x80, 0x40, 0, 1} }, ErrRecordTooLong, true},
		{"announces 4 MiB, sends 100 octets", func([]byte) []byte { return append([]byte{0x80, 0x40, 0, 0}, make([]byte, 100)...) },
			io.ErrUnexpectedEOF, true},
		{"empty fragments", func([]byte) []byte { return make([]byte, 4000) }, ErrEmptyFragment, true},
		{"header cut short", func(call []byte) []byte { return fragment(nil, echo(call)[:23], true) }, ErrNotAReply, false},
		{"sends the call back", func(call []byte) []byte { return fragment(nil, call, true) }, ErrNotAReply, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, "tcp", streamServer(t, "tcp", func(conn net.Conn) {
				conn.Write(tt.answer(nextRecord(conn)))
				if !tt.broken {
					echoRecords(conn)
				}
			}))
			if _, err := c.Call(t.Context(), Call{}); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			_, err := c.Call(t.Context(), Call{})
			if tt.broken && !errors.Is(err, tt.want) || !tt.broken && err != nil {
				t.Errorf("the call after: %v", err)
			}
		})
	}
}

func TestClientHostileDatagrams(t *testing.T) {
	for name, answer := range map[string]func(call []byte) []byte{
		"xid only":            func(call []byte) []byte { return call[:4] },
		"header cut short":    func(call []byte) []byte { return echo(call)[:23] },
		"sends the call back": func(call []byte) []byte { return call },
		"verifier of 2^32-1":  func(call []byte) []byte { b := echo(call); b[16] = 0xff; return b },
	} {
		c := dial(t, "udp", packetServer(t, func(call []byte) [][]byte { return [][]byte{answer(call)} }))
		if _, err := c.Call(t.Context(), Call{}); !errors.Is(err, ErrNotAReply) {
			t.Errorf("%s: %v, want %v", name, err, ErrNotAReply)
		}
	}
}

// The largest replies arrive whole, in fragments of any size.
func TestClientLargeReplies(t *testing.T) {
	t.Run("udp", func(t *testing.T) {
		want := bytes.Repeat([]byte{7}, 65507-AcceptedHeaderSize)
		c := dial(t, "udp", packetServer(t, func(call []byte) [][]byte { return [][]byte{append(echo(call), want...)} }))
		if got, err := c.Call(t.Context(), Call{}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d octets, %v; want %d", len(got), err, len(want))
		}
	})
	t.Run("tcp", func(t *testing.T) {
		want := bytes.Repeat([]byte{7}, DefaultMaxReply-AcceptedHeaderSize)
		c := dial(t, "tcp", streamServer(t, "tcp", func(conn net.Conn) {
			reply := append(echo(nextRecord(conn)), want...)
			var stream []byte
			for size := 1; len(reply) > 0; size = size*3%8191 + 1 {
				n := min(size, len(reply))
				stream = fragment(stream, reply[:n], n == len(reply))
				reply = reply[n:]
			}
			conn.Write(stream)
		}))
		if got, err := c.Call(t.Context(), Call{}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d octets, %v; want %d", len(got), err, len(want))
		}
	})
}

func TestClientServersErrors(t *testing.T) {
	refuse := func(reply func(xid uint32) []byte) *Client {
		return dial(t, "udp", packetServer(t, func(call []byte) [][]byte {
			c, _ := ParseCall(call)
			return [][]byte{reply(c.XID)}
		}))
	}
	_, err := refuse(func(xid uint32) []byte { return AppendProgMismatch(nil, xid, 2, 3) }).Call(t.Context(), Call{})
	var accept *AcceptError
	if !errors.As(err, &accept) || *accept != (AcceptError{Stat: ProgMismatch, Low: 2, High: 3}) {
		t.Errorf("PROG_MISMATCH: %#v", err)
	}
	_, err = refuse(func(xid uint32) []byte { return AppendAuthError(nil, xid, AuthTooWeak) }).Call(t.Context(), Call{})
	var denied *DeniedError
	if !errors.As(err, &denied) || *denied != (DeniedError{Stat: AuthError, Auth: AuthTooWeak}) {
		t.Errorf("AUTH_TOOWEAK: %#v", err)
	}
}

func TestClientNobodyThere(t *testing.T) {
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, "udp", gone.LocalAddr().String())
	gone.Close()
	if _, err := c.Call(t.Context(), Call{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("udp: %v, want %v", err, syscall.ECONNREFUSED)
	}
	if _, err := Dial(t.Context(), "unix", filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unix: %v, want %v", err, os.ErrNotExist)
	}
	var unknown net.UnknownNetworkError
	if _, err := Dial(t.Context(), "unixgram", "x"); !errors.As(err, &unknown) {
		t.Errorf("unixgram: %v, want a net.UnknownNetworkError", err)
	}
}

func TestClientClose(t *testing.T) {
	var c *Client
	ready := make(chan struct{})
	c = dial(t, "tcp", streamServer(t, "tcp", func(conn net.Conn) {
		nextRecord(conn)
		<-ready
		c.Close()
		io.Copy(io.Discard, conn)
	}))
	close(ready)
	if _, err := c.Call(t.Context(), Call{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("call while closing: %v, want %v", err, net.ErrClosed)
	}
	if _, err := c.Call(t.Context(), Call{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("call after: %v, want %v", err, net.ErrClosed)
	}
}
