package oncrpc

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"
)

// lingerTime is how long a connection that the Server ends may go on sending. Closing a socket with unread octets resets
// it, and a reset can overtake, at the client, replies that it hasn't read yet.
const lingerTime = time.Second

// lingerOctets is how much of what it sends meanwhile is read.
const lingerOctets = 1 << 20

// ServeConn serves one connection, as Serve does with those it accepts, and returns when it is over and closed: nil if the
// client closed it, or its sending half, and every call was answered; [ErrServerClosed] after Shutdown and Close;
// [ErrNotACall], [ErrRecordTooLong] or [ErrEmptyFragment] if what the client sent ended it; [os.ErrDeadlineExceeded] for
// one that was too slow, or idle too long or while others needed its place; or an error of the connection.
func (s *Server) ServeConn(conn net.Conn) error {
	s.mu.Lock()
	st := s.shared()
	s.mu.Unlock()
	if !s.enter(st, conn) {
		return ErrServerClosed
	}
	return s.serveConn(st, conn)
}

// serveConn is ServeConn for a connection that has a place.
func (s *Server) serveConn(st *state, conn net.Conn) error {
	defer func() { <-st.places }()
	c := newConnection(s, st, conn)
	if _, ok := s.begin(c); !ok {
		_ = conn.Close()
		return ErrServerClosed
	}
	defer s.finish(c)
	defer conn.Close()
	defer c.calls.Wait()
	defer c.cancel()
	err := c.serve()
	if err != nil && err != ErrServerClosed && !misbehaved(err) {
		return err // there is nobody who could take replies
	}
	c.calls.Wait()
	if c.served || misbehaved(err) {
		c.linger()
	}
	return err
}

// misbehaved tells whether a connection ends for what the client sent.
func misbehaved(err error) bool {
	return err == ErrNotACall || err == ErrRecordTooLong || err == ErrEmptyFragment
}

// connection is a connection that is served. Its fields belong to the goroutine that serves it, but for those that say
// more.
type connection struct {
	server  *Server
	state   *state
	conn    net.Conn
	ctx     context.Context
	cancel  context.CancelFunc
	request Request   // of the call that is carried out, if that is one after another
	out     []byte    // its reply
	begun   time.Time // when the record that is pending began; zero if none is
	served  bool      // a call was answered

	// If several calls are carried out at a time:
	several chan struct{} // holds a value for each; nil if they aren't
	calls   sync.WaitGroup
	free    sync.Pool  // of *job
	writing sync.Mutex // held while a reply is written

	mu       sync.Mutex
	stopping bool      // with mu: read no more
	gone     bool      // with mu: it gives way to another, at once
	running  int       // with mu: calls that are carried out
	idle     time.Time // with mu: when the last one was, or when the connection began
}

// job is a call that is carried out beside others of its connection.
type job struct {
	message []byte
	out     []byte
	request Request
}

func newConnection(s *Server, st *state, conn net.Conn) *connection {
	c := &connection{server: s, state: st, conn: conn, idle: time.Now()}
	c.request = c.newRequest()
	c.ctx, c.cancel = context.WithCancel(st.ctx)
	if s.CallsPerConnection > 1 {
		c.several = make(chan struct{}, s.CallsPerConnection)
		c.free.New = func() any { return &job{request: c.newRequest()} }
	}
	return c
}

func (c *connection) newRequest() Request {
	return Request{Local: c.conn.LocalAddr(), Remote: c.conn.RemoteAddr(), Conn: c.conn}
}

// stop ends the wait for input. What was read is answered.
func (c *connection) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if c.conn.SetReadDeadline(time.Unix(1, 0)) != nil {
		_ = c.conn.Close() // there is no gentler way
	}
}

// Close ends reading, writing and the context of the handlers.
func (c *connection) Close() error {
	c.cancel()
	return c.conn.Close()
}

// serve reads calls and answers them, until nothing more comes or may come.
func (c *connection) serve() error {
	records := RecordReader{Limit: orDefault(c.server.MaxRecord, DefaultMaxRecord)}
	in := make([]byte, streamReadSize)
	for {
		if err := c.arm(records.Pending()); err != nil {
			return err
		}
		n, readErr := c.conn.Read(in)
		records.Feed(in[:n])
		if err := c.takeCalls(&records); err != nil {
			return err
		}
		switch {
		case readErr == nil:
		case readErr == io.EOF:
			return nil
		case c.state.ended():
			return ErrServerClosed
		case errors.Is(readErr, os.ErrDeadlineExceeded) && !records.Pending() && len(c.several) > 0:
			// Not idle: calls are being carried out.
		case errors.Is(readErr, os.ErrDeadlineExceeded):
			return os.ErrDeadlineExceeded
		default:
			return readErr
		}
	}
}

// arm sets the time until when the next octets have to come; the error says why the connection is to end instead.
func (c *connection) arm(pending bool) error {
	var deadline time.Time
	switch {
	case !pending:
		c.begun = time.Time{}
		if c.server.IdleTimeout > 0 {
			deadline = time.Now().Add(c.server.IdleTimeout)
		}
	case c.begun.IsZero():
		c.begun = time.Now()
		fallthrough
	default:
		deadline = c.begun.Add(orDefault(c.server.RecordTimeout, DefaultRecordTimeout))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return os.ErrDeadlineExceeded
	case c.stopping:
		return ErrServerClosed
	}
	_ = c.conn.SetReadDeadline(deadline) // a connection that is closed, or has no deadlines: Read will tell
	return nil
}

// takeCalls answers the records that are there.
func (c *connection) takeCalls(records *RecordReader) error {
	for {
		record, ok, err := records.Next()
		if err != nil || !ok {
			return err
		}
		c.begun = time.Time{} // what follows is another record
		if c.several != nil {
			err = c.answerBeside(record)
		} else {
			err = c.answer(record)
		}
		if err != nil {
			return err
		}
		c.served = true
	}
}

// answer answers a call before the next one is looked at.
func (c *connection) answer(record []byte) error {
	if err := c.beginCall(); err != nil {
		return err
	}
	reply, err := c.carryOut(c.ctx, c.out, record, &c.request)
	if err != nil {
		return err
	}
	err = c.write(reply)
	c.out = keepBuffer(reply)
	return err
}

// answerBeside starts to answer a call, beside others.
func (c *connection) answerBeside(record []byte) error {
	if _, err := ParseCall(record); err != nil {
		return err
	}
	select {
	case c.several <- struct{}{}:
	case <-c.state.ctx.Done():
		return ErrServerClosed
	}
	if err := c.beginCall(); err != nil {
		<-c.several
		return err
	}
	j := c.free.Get().(*job)
	j.message = append(j.message[:0], record...)
	c.calls.Go(func() { c.doJob(j) })
	return nil
}

func (c *connection) doJob(j *job) {
	answered := false
	defer func() {
		<-c.several
		if !answered {
			_ = c.Close() // wakes who reads: a client that gets no reply has to learn it
		}
	}()
	reply, err := c.carryOut(c.ctx, j.out, j.message, &j.request)
	if err != nil || c.write(reply) != nil {
		return
	}
	answered = true
	j.out, j.message = keepBuffer(reply), keepBuffer(j.message)
	c.free.Put(j)
}

// keepBuffer is the buffer, emptied, unless it is too large to be kept.
func keepBuffer(b []byte) []byte {
	if cap(b) > bufferKept {
		return nil
	}
	return b[:0]
}

// carryOut makes the record of the reply to a call that was begun, in the memory of out, and ends it.
func (c *connection) carryOut(ctx context.Context, out, message []byte, r *Request) ([]byte, error) {
	defer c.endCall()
	if !c.state.run() {
		return nil, ErrServerClosed
	}
	defer func() { <-c.state.running }()
	reply, err := c.server.answer(ctx, BeginRecord(out[:0]), message, r)
	if err != nil {
		return nil, err
	}
	if int64(len(reply))-RecordMarkSize > math.MaxInt32 {
		c.server.report(r, errReplyTooLong)
		reply = AppendAccepted(BeginRecord(nil), r.XID, SystemErr)
	}
	EndRecord(reply, 0)
	return reply, nil
}

var errReplyTooLong = errors.New("oncrpc: the reply is longer than its transport can carry")

func (c *connection) write(reply []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.armWrite(); err != nil {
		return err
	}
	_, err := c.conn.Write(reply)
	return err
}

// armWrite sets the time until when a reply has to be accepted.
func (c *connection) armWrite() error {
	timeout := orDefault(c.server.WriteTimeout, DefaultWriteTimeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return os.ErrDeadlineExceeded
	}
	return c.conn.SetWriteDeadline(time.Now().Add(timeout))
}

// linger lets the client read its replies before the connection is closed.
func (c *connection) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.mu.Lock()
	err := c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	c.stopping = true // the deadline is set already, and the shorter one
	gone := c.gone
	c.mu.Unlock()
	if err == nil && !gone {
		_, _ = io.CopyN(io.Discard, c.conn, lingerOctets) // what it sends doesn't count any more
	}
}
