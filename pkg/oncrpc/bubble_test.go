package oncrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The tests of this file run in bubbles of package synctest: time passes when everybody waits, and a goroutine that is
// left over at the end fails the test.

// pipeListener hands out the server's ends of pipes.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// dial returns the client's end of a new pipe; false when nobody accepts any more.
func (l *pipeListener) dial() (net.Conn, bool) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, true
	case <-l.done:
		return nil, false
	}
}

// rig is a Server that serves a pipeListener.
type rig struct {
	*Server
	listener *pipeListener
	served   chan error
}

func newRig(t *testing.T, s *Server) *rig {
	t.Helper()
	r := &rig{Server: s, listener: newPipeListener(), served: make(chan error, 1)}
	go func() { r.served <- s.Serve(r.listener) }()
	return r
}

func (r *rig) client(t *testing.T, config ClientConfig) *Client {
	t.Helper()
	conn, ok := r.listener.dial()
	if !ok {
		t.Fatal("the server doesn't listen any more")
	}
	return NewClient(conn, config)
}

// over checks that the server has ended.
func (r *rig) over(t *testing.T) {
	t.Helper()
	if err := <-r.served; err != ErrServerClosed {
		t.Errorf("Serve returned %v, want %v", err, ErrServerClosed)
	}
}

// gate is a handler that says that it was entered, and waits.
type gate struct {
	entered chan string
	open    chan struct{}
}

func newGate() gate { return gate{make(chan string, 100), make(chan struct{})} }

func (g gate) handle(_ context.Context, r *Request, results []byte) ([]byte, error) {
	g.entered <- string(r.Args)
	<-g.open
	return append(results, r.Args...), nil
}

func slowServer(t *testing.T, s *Server) (*Server, gate) {
	t.Helper()
	g := newGate()
	if err := s.Register(testProgram, testVersion, Procedures{procEcho: echoArgs, 50: g.handle}); err != nil {
		t.Fatal(err)
	}
	return s, g
}

// answered is what came of a call that was made in the background.
type answered struct {
	results string
	err     error
}

func callLater(ctx context.Context, c *Client, call Call) chan answered {
	result := make(chan answered, 1)
	go func() {
		got, err := c.Call(ctx, call)
		result <- answered{string(got), err}
	}()
	return result
}

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	for _, perConnection := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			s, g := slowServer(t, &Server{CallsPerConnection: perConnection})
			r := newRig(t, s)
			busy, idle := r.client(t, ClientConfig{}), r.client(t, ClientConfig{})
			if _, err := idle.Call(t.Context(), testCall(procEcho, "")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(idleTime)
			result := callLater(t.Context(), busy, testCall(50, "late"))
			<-g.entered
			down := make(chan error, 1)
			go func() { down <- s.Shutdown(context.Background()) }()
			synctest.Wait()
			if _, err := idle.Call(t.Context(), testCall(procEcho, "")); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("a call on an idle connection after the beginning of Shutdown: %v, want %v", err, io.ErrUnexpectedEOF)
			}
			if _, ok := r.listener.dial(); ok {
				t.Error("a connection was accepted")
			}
			select {
			case err := <-down:
				t.Errorf("Shutdown returned %v before the call was answered", err)
			default:
			}
			close(g.open)
			if a := <-result; a.err != nil || a.results != "late" {
				t.Errorf("%+v", a)
			}
			if err := <-down; err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			r.over(t)
			if err := s.Serve(newPipeListener()); err != ErrServerClosed {
				t.Errorf("Serve after Shutdown: %v", err)
			}
			busy.Close()
			idle.Close()
		})
	}
}

// What was read together with the call that is carried out is answered too.
func TestShutdownAnswersWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := slowServer(t, &Server{})
		r := newRig(t, s)
		conn, _ := r.listener.dial()
		var stream []byte
		for _, c := range []Call{testCall(50, "first"), testCall(procEcho, "second")} {
			stream = fragment(stream, AppendCall(nil, c), true)
		}
		conn.Write(append(stream, 0x80, 0)) // and half a record mark, which isn't
		<-g.entered
		go s.Shutdown(context.Background())
		synctest.Wait()
		close(g.open)
		answers, err := io.ReadAll(conn)
		if replies, _ := cutRecords(answers, 1000); err != nil || len(replies) != 2 {
			t.Errorf("%q, %v; want two replies", replies, err)
		}
		r.over(t)
		conn.Close()
	})
}

func TestShutdownGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		ended := make(chan error, 1)
		s.Register(testProgram, testVersion, Procedures{50: func(ctx context.Context, _ *Request, results []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return results, nil
		}})
		r := newRig(t, s)
		c := r.client(t, ClientConfig{})
		result := callLater(t.Context(), c, testCall(50, ""))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := s.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(began) != time.Minute {
			t.Errorf("Shutdown: %v after %v", err, time.Since(began))
		}
		if err := <-ended; err != context.Canceled {
			t.Errorf("the handler's context: %v", err)
		}
		<-result // its reply may have been quicker than the end of the connection
		r.over(t)
		c.Close()
	})
}

func TestServerTimeouts(t *testing.T) {
	call := fragment(nil, AppendCall(nil, testCall(procEcho, "abcd")), true)
	config := func() *Server {
		return &Server{IdleTimeout: 10 * time.Minute, RecordTimeout: time.Minute, WriteTimeout: 2 * time.Minute}
	}
	tests := []struct {
		name   string
		client func(conn net.Conn)
		want   time.Duration
	}{
		{"idle from the start", func(net.Conn) {}, 10 * time.Minute},
		{"idle after a call", func(conn net.Conn) {
			time.Sleep(time.Minute)
			conn.Write(call)
			io.ReadFull(conn, make([]byte, 32))
		}, 11 * time.Minute},
		{"an octet every ten seconds", func(conn net.Conn) {
			for _, octet := range call {
				if _, err := conn.Write([]byte{octet}); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}, time.Minute},
		{"whole calls, then half a one", func(conn net.Conn) {
			for range 3 {
				time.Sleep(5 * time.Minute)
				conn.Write(call)
				io.ReadFull(conn, make([]byte, 32))
			}
			conn.Write(call[:3])
		}, 16 * time.Minute},
		{"two calls of 50 seconds each", func(conn net.Conn) {
			conn.Write(call[:10])
			time.Sleep(50 * time.Second)
			conn.Write(append(bytes.Clone(call[10:]), call[:10]...))
			io.ReadFull(conn, make([]byte, 32))
			time.Sleep(50 * time.Second)
			conn.Write(call[10:])
			io.ReadFull(conn, make([]byte, 32))
		}, 100*time.Second + 10*time.Minute},
		{"takes no reply", func(conn net.Conn) { conn.Write(call) }, 2 * time.Minute},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := register(t, config())
			ours, theirs := net.Pipe()
			began := time.Now()
			var client sync.WaitGroup
			client.Go(func() { tt.client(ours) })
			err := s.ServeConn(theirs)
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != tt.want {
				t.Errorf("%s: %v after %v, want %v after %v", tt.name, err, time.Since(began), os.ErrDeadlineExceeded, tt.want)
			}
			client.Wait()
			ours.Close()
		})
	}
}

// A connection on which a call is carried out isn't idle.
func TestServerBusyIsNotIdle(t *testing.T) {
	for _, perConnection := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			s, g := slowServer(t, &Server{CallsPerConnection: perConnection, IdleTimeout: time.Minute})
			r := newRig(t, s)
			c := r.client(t, ClientConfig{})
			result := callLater(t.Context(), c, testCall(50, "slow"))
			time.Sleep(time.Hour)
			if perConnection == 2 {
				if _, err := c.Call(t.Context(), testCall(procEcho, "")); err != nil {
					t.Errorf("a call beside it: %v", err)
				}
			}
			close(g.open)
			if a := <-result; a.err != nil || a.results != "slow" {
				t.Errorf("%d at a time: %+v", perConnection, a)
			}
			s.Shutdown(t.Context())
			r.over(t)
			c.Close()
		})
	}
}

// By default the second call of a connection isn't begun before the first is answered; if configured, it is.
func TestServerOrder(t *testing.T) {
	for _, perConnection := range []int{0, 1, 2} {
		synctest.Test(t, func(t *testing.T) {
			s, g := slowServer(t, &Server{CallsPerConnection: perConnection})
			r := newRig(t, s)
			c := r.client(t, ClientConfig{})
			slow := callLater(t.Context(), c, testCall(50, "slow"))
			<-g.entered
			fast := callLater(t.Context(), c, testCall(procEcho, "fast"))
			synctest.Wait()
			if overtaken := len(fast) == 1; overtaken != (perConnection == 2) {
				t.Errorf("%d at a time: the second call overtook the first: %v", perConnection, overtaken)
			}
			close(g.open)
			if a, b := <-slow, <-fast; a.results != "slow" || b.results != "fast" {
				t.Errorf("%d at a time: %+v, %+v", perConnection, a, b)
			}
			s.Shutdown(t.Context())
			r.over(t)
			c.Close()
		})
	}
}

// No more calls are carried out, and no more connections served, than configured; the others wait.
func TestServerBounds(t *testing.T) {
	tests := []struct {
		name        string
		server      *Server
		connections int
		want        int
	}{
		{"running", &Server{MaxRunning: 3}, 10, 3},
		{"connections", &Server{MaxConnections: 2}, 5, 2},
		{"per connection", &Server{CallsPerConnection: 4}, 1, 4},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s, g := slowServer(t, tt.server)
			r := newRig(t, s)
			var results []chan answered
			var clients []*Client
			connected := make(chan *Client)
			for range tt.connections {
				go func() {
					if conn, ok := r.listener.dial(); ok {
						connected <- NewClient(conn, ClientConfig{})
					}
				}()
			}
			synctest.Wait()
			for len(clients) < tt.connections {
				synctest.Wait()
				select {
				case c := <-connected:
					clients = append(clients, c)
					for range 10 / tt.connections {
						results = append(results, callLater(t.Context(), c, testCall(50, "x")))
					}
					continue
				default:
				}
				break
			}
			synctest.Wait()
			if n := len(g.entered); n != tt.want {
				t.Errorf("%s: %d calls are carried out, want %d", tt.name, n, tt.want)
			}
			close(g.open)
			if tt.name != "connections" { // those who have a place keep it
				for _, result := range results {
					if a := <-result; a.err != nil {
						t.Errorf("%s: %v", tt.name, a.err)
					}
				}
			}
			s.Close()
			for _, c := range clients {
				c.Close()
			}
			r.over(t)
		})
	}
}

// A listener's errors that pass are waited out, and others end Serve.
func TestServeAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told reports
		s := &Server{Report: told.add}
		l := &failingListener{pipeListener: newPipeListener(), errs: []error{passing{}, passing{}, errPlain}}
		if err := s.Serve(l); err != errPlain {
			t.Errorf("Serve: %v, want %v", err, errPlain)
		}
		if all := told.take(); len(all) != 2 {
			t.Errorf("reported %v", all)
		}
	})
}

type passing struct{}

func (passing) Error() string   { return "too many open files" }
func (passing) Temporary() bool { return true }

type failingListener struct {
	*pipeListener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

// A client that goes away ends the context of its calls where several are carried out at a time.
func TestServerClientGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{CallsPerConnection: 2}
		ended := make(chan error, 1)
		s.Register(testProgram, testVersion, Procedures{50: func(ctx context.Context, _ *Request, results []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return results, nil
		}})
		conn := &resetConn{reset: make(chan struct{})}
		conn.stream = fragment(nil, AppendCall(nil, testCall(50, "")), true)
		served := make(chan error, 1)
		go func() { served <- s.ServeConn(conn) }()
		synctest.Wait()
		close(conn.reset)
		if err := <-ended; err != context.Canceled {
			t.Errorf("the handler's context: %v", err)
		}
		if err := <-served; err != errPlain {
			t.Errorf("ServeConn: %v, want %v", err, errPlain)
		}
	})
}

// resetConn brings a stream and then, when reset is closed, an error.
type resetConn struct {
	net.Conn
	stream []byte
	reset  chan struct{}
}

func (c *resetConn) Read(b []byte) (int, error) {
	if n := copy(b, c.stream); n > 0 {
		c.stream = c.stream[n:]
		return n, nil
	}
	<-c.reset
	return 0, errPlain
}

func (c *resetConn) Write([]byte) (int, error)        { return 0, errPlain }
func (c *resetConn) Close() error                     { return nil }
func (c *resetConn) SetReadDeadline(time.Time) error  { return nil }
func (c *resetConn) SetWriteDeadline(time.Time) error { return nil }
func (c *resetConn) LocalAddr() net.Addr              { return nil }
func (c *resetConn) RemoteAddr() net.Addr             { return nil }
