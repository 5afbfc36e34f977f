package oncrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// As in bubble_test.go, the tests of this file run in bubbles of package synctest.

// Waits between transmissions double, up to the longest, and each is the same message.
func TestClientBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		c := NewClient(w, ClientConfig{Datagram: true, FirstWait: time.Second, LongestWait: 5 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		result := callLater(ctx, c, testCall(procEcho, "abcd"))
		var first []byte
		for i, want := range []time.Duration{0, 1, 3, 7, 12, 17} {
			message := w.sent()
			if first == nil {
				first = message
			}
			if at := time.Since(began); at != want*time.Second || !bytes.Equal(message, first) {
				t.Errorf("transmission %d after %v, want %v: % x", i, at, want*time.Second, message)
			}
		}
		if a := <-result; !errors.Is(a.err, context.DeadlineExceeded) || time.Since(began) != 20*time.Second {
			t.Errorf("%+v after %v", a, time.Since(began))
		}
		c.Close()
	})
}

// wire is a connection of datagrams in memory: what the test reads from peer was sent.
type wire struct {
	net.Conn
	peer net.Conn
}

func newWire() *wire {
	ours, theirs := net.Pipe()
	return &wire{ours, theirs}
}

const failure = "the next Read fails"

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if string(b[:n]) == failure {
		return 0, errPlain
	}
	return n, err
}

func (w *wire) sent() []byte {
	b := make([]byte, 1000)
	n, _ := w.peer.Read(b)
	return b[:n]
}

// A datagram socket survives the errors that peers cause.
func TestClientSocketErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		c := NewClient(w, ClientConfig{Datagram: true, FirstWait: time.Hour, LongestWait: time.Hour})
		for range 300 {
			results := []chan answered{callLater(t.Context(), c, testCall(procEcho, "abcd")), callLater(t.Context(), c, testCall(procEcho, "efgh"))}
			w.sent()
			w.sent()
			synctest.Wait()
			w.peer.Write([]byte(failure))
			for _, result := range results {
				if a := <-result; !errors.Is(a.err, errPlain) {
					t.Fatalf("%+v, want %v", a, errPlain)
				}
			}
		}
		result := callLater(t.Context(), c, testCall(procEcho, "abcd"))
		w.peer.Write(echo(w.sent()))
		if a := <-result; a.err != nil || a.results != "abcd" {
			t.Errorf("%+v", a)
		}
		c.Close()
	})
}

// The error of an earlier datagram, which the socket reports once, doesn't fail a call that could be sent.
func TestClientStaleSocketError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &failingOnce{wire: newWire()}
		c := NewClient(w, ClientConfig{Datagram: true})
		result := callLater(t.Context(), c, testCall(procEcho, "abcd"))
		w.peer.Write(echo(w.sent()))
		if a := <-result; a.err != nil || a.results != "abcd" || w.writes != 2 {
			t.Errorf("%+v after %d writes", a, w.writes)
		}
		c.Close()
	})
}

type failingOnce struct {
	*wire
	writes int
}

func (f *failingOnce) Write(b []byte) (int, error) {
	f.writes++
	if f.writes == 1 {
		return 0, errPlain
	}
	return f.wire.Write(b)
}

// A call that is given up in the middle of its sending leaves the stream whole: the next one finishes the record.
func TestClientGivesUpWhileSending(t *testing.T) {
	for taken := range 60 {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			c := NewClient(ours, ClientConfig{})
			ctx, cancel := context.WithCancel(t.Context())
			result := callLater(ctx, c, testCall(procEcho, "sixteen octets.."))
			head := make([]byte, taken)
			io.ReadFull(theirs, head)
			synctest.Wait()
			cancel()
			if a := <-result; !errors.Is(a.err, context.Canceled) {
				t.Fatalf("%d octets taken: %+v, want %v", taken, a, context.Canceled)
			}
			// A second one that is given up before its turn to be sent came is never sent.
			ended, cancel := context.WithCancel(t.Context())
			result = callLater(ended, c, testCall(procEcho, "never sent"))
			synctest.Wait()
			cancel()
			if a := <-result; !errors.Is(a.err, context.Canceled) {
				t.Fatalf("%d octets taken, second call: %+v, want %v", taken, a, context.Canceled)
			}
			calls := 0
			s := register(t, &Server{Authorize: func(context.Context, *Request) AuthStat { calls++; return AuthOK }})
			served := make(chan error, 1)
			go func() { served <- s.ServeConn(&headedConn{theirs, head}) }()
			if got, err := c.Call(t.Context(), testCall(procEcho, "abcd")); err != nil || string(got) != "abcd" {
				t.Errorf("%d octets taken: %q, %v", taken, got, err)
			}
			c.Close()
			if err := <-served; err != nil {
				t.Errorf("%d octets taken: the server says %v", taken, err)
			}
			if want := min(taken, 1) + 1; calls != want {
				t.Errorf("%d octets taken: the server got %d calls, want %d", taken, calls, want)
			}
		})
	}
}

// headedConn brings head before what the connection brings.
type headedConn struct {
	net.Conn
	head []byte
}

func (c *headedConn) Read(b []byte) (int, error) {
	if n := copy(b, c.head); n > 0 {
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// A server that hangs up on an idle connection is noticed without a call, and what it sends to nobody is passed over.
func TestClientWatchesIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := NewClient(ours, ClientConfig{})
		var call []byte
		for i := range 3 {
			result := callLater(t.Context(), c, testCall(procEcho, "x"))
			call = nextRecord(theirs)
			sendRecord(theirs, echo(call))
			if a := <-result; a.err != nil {
				t.Fatalf("call %d: %v", i, a.err)
			}
			time.Sleep(time.Duration(i) * idleTime) // the last call's answer is read by whoever watches
		}
		synctest.Wait()
		sendRecord(theirs, echo(call)) // blocks unless somebody reads
		theirs.Close()
		synctest.Wait()
		if !errors.Is(c.reason(), io.ErrUnexpectedEOF) {
			t.Errorf("the connection is said to be broken by %v, want %v", c.reason(), io.ErrUnexpectedEOF)
		}
		if _, err := c.Call(t.Context(), testCall(procEcho, "x")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a later call: %v, want %v", err, io.ErrUnexpectedEOF)
		}
		c.Close()
	})
}

// A connection that breaks fails every call with the same reason; Close fails them with net.ErrClosed.
func TestClientBrokenConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(c *Client, server net.Conn)
		want error
	}{
		"hang-up":  {func(_ *Client, server net.Conn) { server.Close() }, io.ErrUnexpectedEOF},
		"too long": {func(_ *Client, server net.Conn) { server.Write([]byte{0xff, 0xff, 0xff, 0xff}) }, ErrRecordTooLong},
		"Close":    {func(c *Client, _ net.Conn) { c.Close() }, net.ErrClosed},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			c := NewClient(ours, ClientConfig{MaxCalls: 20})
			var results []chan answered
			for range 30 { // ten of them wait for their turn
				results = append(results, callLater(t.Context(), c, testCall(procEcho, "x")))
			}
			for range 20 {
				nextRecord(theirs)
			}
			synctest.Wait()
			tt.end(c, theirs)
			for _, result := range results {
				if a := <-result; !errors.Is(a.err, tt.want) {
					t.Errorf("%s: %v, want %v", name, a.err, tt.want)
				}
			}
			if _, err := c.Call(t.Context(), testCall(procEcho, "x")); !errors.Is(err, tt.want) {
				t.Errorf("%s, a later call: %v, want %v", name, err, tt.want)
			}
			theirs.Close()
			c.Close()
		})
	}
}
