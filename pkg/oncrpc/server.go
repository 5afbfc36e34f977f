package oncrpc

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// What a [Server] stands for where it says nothing.
const (
	// DefaultMaxRecord is the size in octets of the largest call: an NFS WRITE of 1 MiB with its header.
	DefaultMaxRecord = 1<<20 + 4<<10
	// DefaultMaxConnections is the number of connections that are served at a time.
	DefaultMaxConnections = 1024
	// DefaultMaxRunning is the number of calls that are carried out at a time, over all transports.
	DefaultMaxRunning = 1024
	// DefaultDatagramWorkers is the number of calls of one datagram socket that are carried out at a time.
	DefaultDatagramWorkers = 16
	// DefaultRecordTimeout is how long a call may take to arrive.
	DefaultRecordTimeout = 30 * time.Second
	// DefaultWriteTimeout is how long a client may take to accept a reply.
	DefaultWriteTimeout = 30 * time.Second
)

// Server answers calls for the programs that are registered with it, over any number of listeners, connections and
// datagram sockets at once. The zero value is ready for use. The exported fields must not change after the first call of
// a Serve method; all methods may be called by several goroutines.
//
// What it answers by itself (RFC 5531 section 9), in the order of the checks: nothing to what is no call, and a stream
// closes then, behind the replies to the calls before it; RPC_MISMATCH; AUTH_BADCRED, AUTH_REJECTEDCRED and AUTH_FAILED
// as [CheckCred] says; what Authorize says; PROG_UNAVAIL; PROG_MISMATCH with the lowest and the highest version that are
// registered; procedure 0; PROC_UNAVAIL. Replies have AUTH_NONE verifiers.
//
// A call over UDP that is sent again is carried out again: procedures that must not be repeated are for streams. A reply
// over UDP can be larger than its call, and the caller's address forged: what strangers may call should have small
// results, or be refused by Authorize. On Linux a reply over UDP leaves from the address that was asked, which clients wait
// for; elsewhere the system chooses, and a host with several addresses should have one socket bound to each.
//
// Memory: each connection costs a goroutine, a read buffer of 16 KiB, what has arrived of one call, at most MaxRecord,
// and one reply; with CallsPerConnection above 1 as many calls and replies. A datagram socket costs two buffers of up to
// 64 KiB for each of its workers.
type Server struct {
	// MaxRecord is the size in octets of the largest call, its header included; a longer one closes the connection, or
	// isn't answered if it is a datagram. 0 stands for [DefaultMaxRecord].
	MaxRecord int
	// MaxConnections is the number of connections that are served at a time. One more closes the one that has waited
	// longest for a whole call; while a call is carried out on each, more wait unread. 0 stands for
	// [DefaultMaxConnections].
	MaxConnections int
	// MaxRunning is the number of calls that are carried out at a time. 0 stands for [DefaultMaxRunning].
	MaxRunning int
	// CallsPerConnection is the number of calls of one connection that are carried out at a time. 0 and 1 mean: one
	// after another, and replies in the order of the calls, as servers made with rpcgen do. A client that sends a call
	// that depends on the one before it, without waiting for the reply, can rely on it; the price is that a slow call
	// keeps those behind it waiting. Above 1, each reply is sent when it is there: RFC 5531 lets clients match by xid.
	CallsPerConnection int
	// DatagramWorkers is the number of calls of one datagram socket that are carried out at a time, in any order; more
	// wait in the socket's buffer. 0 stands for [DefaultDatagramWorkers].
	DatagramWorkers int
	// IdleTimeout is how long a connection may be without a call before it is closed. 0 means for ever, or until another
	// needs its place: kernels keep connections that they use once a day.
	IdleTimeout time.Duration
	// RecordTimeout is how long a call may take from its first octet to its last one. 0 stands for
	// [DefaultRecordTimeout].
	RecordTimeout time.Duration
	// WriteTimeout is how long a reply may take to be accepted by the client's system. 0 stands for
	// [DefaultWriteTimeout].
	WriteTimeout time.Duration
	// Authorize, unless nil, is asked about every call with a well-formed credential of AUTH_NONE or AUTH_SYS, before it
	// is looked up and procedure 0 included. Everything but [AuthOK] denies the call with that auth_stat: AuthTooWeak
	// says that the caller may not have this in this way. It may run at the same time for several calls.
	Authorize func(ctx context.Context, r *Request) AuthStat
	// Report, unless nil, is told of errors that nobody else learns: those of a [Handler] that become SYSTEM_ERR, its
	// panics ([*PanicError]), replies that can't be sent over UDP, and with a nil r of a listener or socket that fails and
	// is tried again. It may run at the same time for several calls and must not keep r.
	Report func(r *Request, err error)

	programs atomic.Pointer[map[uint32]*program]

	mu      sync.Mutex
	state   *state
	serving map[stoppable]struct{}
	ending  bool
}

// state is what the Serve methods of a Server share.
type state struct {
	ctx     context.Context // of the handlers
	cancel  context.CancelFunc
	places  chan struct{} // holds a value for each connection
	running chan struct{} // holds a value for each call
	end     chan struct{} // closed by Shutdown and Close
	over    chan struct{} // closed when nothing is served any more after that
}

// A stoppable is what a Server serves.
type stoppable interface {
	io.Closer
	stop() // let it end when the calls that it has received are answered
}

// shared completes the fields and makes the state at the first use. It is called with mu held.
func (s *Server) shared() *state {
	if s.state != nil {
		return s.state
	}
	st := &state{
		places:  make(chan struct{}, orDefault(s.MaxConnections, DefaultMaxConnections)),
		running: make(chan struct{}, orDefault(s.MaxRunning, DefaultMaxRunning)),
		end:     make(chan struct{}),
		over:    make(chan struct{}),
	}
	st.ctx, st.cancel = context.WithCancel(context.Background())
	s.state = st
	s.serving = make(map[stoppable]struct{})
	return st
}

func orDefault[T int | time.Duration](v, standard T) T {
	if v <= 0 {
		return standard
	}
	return v
}

// begin enters what is to be served, unless the Server is closed.
func (s *Server) begin(what stoppable) (*state, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.shared()
	if s.ending {
		return nil, false
	}
	s.serving[what] = struct{}{}
	return st, true
}

func (s *Server) finish(what stoppable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.serving, what)
	if s.ending && len(s.serving) == 0 {
		close(s.state.over)
	}
}

// beginEnd makes everything that is served end, each call that has been received being answered before.
func (s *Server) beginEnd() *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.shared()
	if s.ending {
		return st
	}
	s.ending = true
	close(st.end)
	for what := range s.serving {
		what.stop()
	}
	if len(s.serving) == 0 {
		close(st.over)
	}
	return st
}

// Shutdown stops listening and reading, waits until the calls that have been received are answered, and closes the
// connections and sockets. It returns nil then. If ctx ends before that, it does what [Server.Close] does and returns the
// error of ctx. A Server can't be used again.
func (s *Server) Shutdown(ctx context.Context) error {
	st := s.beginEnd()
	select {
	case <-st.over:
		st.cancel()
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// Close closes listeners, connections and sockets at once and ends the context of the handlers, for which it doesn't wait.
// It returns nil.
func (s *Server) Close() error {
	st := s.beginEnd()
	st.cancel()
	s.mu.Lock()
	serving := make([]stoppable, 0, len(s.serving))
	for what := range s.serving {
		serving = append(serving, what)
	}
	s.mu.Unlock()
	for _, what := range serving {
		_ = what.Close() // closing is all that is left to do about it
	}
	return nil
}

// listener is a net.Listener that is served.
type listener struct{ net.Listener }

func (l listener) stop() { _ = l.Close() }

// Serve accepts connections from l and serves each in a goroutine of its own, until l is closed or the Server is. It
// returns when all these connections are over: [ErrServerClosed] after Shutdown and Close, else the error of l, which is
// closed in either case. Errors that pass, as too many open files, are reported and waited out, and each closes the
// connection that has waited longest for a call.
func (s *Server) Serve(l net.Listener) error {
	what := &listener{l}
	st, ok := s.begin(what)
	if !ok {
		_ = l.Close()
		return ErrServerClosed
	}
	defer s.finish(what)
	defer l.Close()
	var connections sync.WaitGroup
	defer connections.Wait()
	var pause pause
	for {
		conn, err := l.Accept()
		if err == nil {
			pause.reset()
			if !s.enter(st, conn) {
				return ErrServerClosed
			}
			connections.Go(func() { _ = s.serveConn(st, conn) }) // how clients end is not news
			continue
		}
		if st.ended() {
			return ErrServerClosed
		}
		if passing, ok := err.(interface{ Temporary() bool }); !ok || !passing.Temporary() {
			return err
		}
		s.report(nil, err)
		s.makeRoom() // most likely the process is out of descriptors
		if !pause.wait(st.end) {
			return ErrServerClosed
		}
	}
}

// run waits until one more call may be carried out; false if the Server was closed.
func (st *state) run() bool {
	select {
	case st.running <- struct{}{}:
		return true
	case <-st.ctx.Done():
		return false
	}
}

func (st *state) ended() bool {
	select {
	case <-st.end:
		return true
	default:
		return false
	}
}

// pause is the time to wait after an error that passes: longer each time in a row.
type pause struct{ next time.Duration }

func (p *pause) reset() { p.next = 0 }

func (p *pause) longer() time.Duration {
	p.next = min(max(2*p.next, 5*time.Millisecond), time.Second)
	return p.next
}

// wait waits, and is false if end was closed.
func (p *pause) wait(end <-chan struct{}) bool {
	t := time.NewTimer(p.longer())
	defer t.Stop()
	select {
	case <-end:
		return false
	case <-t.C:
		return true
	}
}
