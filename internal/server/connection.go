package server

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// lingerTime is how long a connection that is closed for what it sent may go on sending. Closing a socket with
// unread octets resets it, and a reset can overtake, at the client, replies that it hasn't read yet.
const lingerTime = time.Second

// streamConn is a *net.TCPConn or a *net.UnixConn.
type streamConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// A connection is one accepted connection and the goroutine that serves it.
type connection struct {
	server *Server
	conn   streamConn
	raw    syscall.RawConn
	local  bool // AF_UNIX
	stream stream

	// active is when octets came last, in nanoseconds of the Server's clock. It is read by whoever looks for the
	// idlest connection.
	active atomic.Int64

	mu       sync.Mutex
	end      time.Time // when the connection has to be over; zero until stop
	deadline time.Duration

	// Only the connection's goroutine uses what follows.
	read     func(fd uintptr) bool // tryRead, made once
	try      func(fd uintptr)      // tryWrite, made once
	out      []byte                // what it writes
	wrote    int
	buf      *buffers      // nil while idle
	n        int           // what tryRead read
	err      error         // why there is nothing to read, or no use in writing
	draining bool          // read what is there, and don't wait for more
	begun    time.Duration // when the record that is pending began; 0 if none is
	answered int           // calls of the last read
	keeping
}

func newConnection(s *Server, conn streamConn) (*connection, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	_, local := conn.(*net.UnixConn)
	c := &connection{
		server: s,
		conn:   conn,
		raw:    raw,
		local:  local,
		stream: stream{
			portmapper: s.config.Portmapper,
			records:    oncrpc.RecordReader{Limit: s.limits.Load().MaxRecord},
		},
	}
	c.read, c.try = c.tryRead, c.tryWrite
	c.active.Store(int64(s.clock()))
	return c, nil
}

// serve serves the connection until it is over, and closes it.
func (c *connection) serve() {
	defer c.close()
	c.begin()
	c.arm(c.due())
	for c.once() {
	}
}

func (c *connection) close() {
	if c.kept && !c.left {
		_ = c.conn.CloseWrite() // the client is to see the end before the Keeper closes its descriptor
		c.forget()
	}
	_ = c.conn.Close() // every reply was handed over, or can't be
	c.release()
}

// identify learns who is at the other end. That doesn't change while the connection lasts.
func (c *connection) identify() {
	switch conn := c.conn.(type) {
	case *net.UnixConn:
		c.stream.from = portmap.Caller{Transport: portmap.Local, Loopback: true}
		cred, err := sys.PeerCred(conn)
		if err != nil {
			c.server.config.Log.Debug("a local caller's uid is not known", "err", err)
			return
		}
		c.stream.from.UID, c.stream.from.HasUID = cred.UID, true
		c.stream.from.Self = c.server.probed.local.Load() > 0 && int(cred.PID) == os.Getpid()
	case *net.TCPConn:
		// Probes every 15 s, Go's default, are for nothing when idle connections are closed anyway.
		_ = conn.SetKeepAlive(false)
		c.stream.from = c.remoteCaller(conn)
	}
}

func (c *connection) remoteCaller(conn *net.TCPConn) portmap.Caller {
	from := portmap.Caller{
		Transport: portmap.TCP6,
		Remote:    plainAddr(conn.RemoteAddr()),
		Local:     plainAddr(conn.LocalAddr()),
	}
	if from.Remote.Addr().Is4() { // on a dual-stack socket as well
		from.Transport = portmap.TCP
	}
	ifindex, err := sys.ArrivalInterface(conn)
	c.server.arrived(&from, ifindex, err)
	return from
}

// arrived fills in how a caller over TCP arrived, given what the kernel says of that.
func (s *Server) arrived(from *portmap.Caller, ifindex uint32, err error) {
	if err == nil && ifindex != 0 {
		from.Ifindex, from.Loopback = ifindex, s.config.Loopback(ifindex)
		return
	}
	s.config.Log.Debug("the interface of a caller is not known", "err", err)
	// Some kernels and sandboxes can't tell. A datagram would have to count as foreign then, but this caller finished a
	// handshake: it knows the sequence number that we sent to its address, and what is sent to a loopback address goes
	// by the loopback interface alone. To refuse it would keep servers of old C libraries from registering.
	from.Loopback = from.Remote.Addr().IsLoopback() && from.Local.Addr().IsLoopback()
}

// plainAddr is the address without a zone, and as IPv4 if it is IPv4-mapped.
func plainAddr(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// once waits for input and answers it. False says that the connection is over.
func (c *connection) once() bool {
	if err := c.raw.Read(c.read); err != nil {
		return errors.Is(err, os.ErrDeadlineExceeded) && c.woken()
	}
	if c.err != nil {
		return false // the client is done, or gone, and its calls are answered
	}
	now := c.server.clock()
	c.active.Store(int64(now))
	answer := c.answer
	if c.peeked {
		answer = c.answerPeeked
	}
	more := answer(c.buf.in[:c.n], now)
	if tell := c.server.config.Answered; tell != nil && c.answered > 0 && !c.stream.from.Self {
		tell(&c.stream.from, c.answered, c.server.at(now), c.server.clock()-now)
	}
	if more {
		return !c.waiting || !c.leave()
	}
	if c.err == nil {
		c.linger()
	}
	return false
}

// tryRead is the body of a wait for input, under the poller; false means that there is none yet. It takes a buffer only
// for as long as there is something to put into it.
func (c *connection) tryRead(fd uintptr) bool {
	if c.buf == nil {
		c.buf = c.server.buffers.Get().(*buffers)
	}
	c.peeked = c.kept
	for {
		n, err := sys.Read(fd, c.buf.in[:], c.peeked)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN && !c.draining:
			c.release()
			c.stream.idle()
			c.keep()
			return false
		case n == 0 && err == nil:
			err = io.EOF
		}
		c.n, c.err = n, err
		return true
	}
}

// release gives the buffers back.
func (c *connection) release() {
	if c.buf == nil {
		return
	}
	c.buf.out.clear()
	clear(c.buf.parts)
	c.server.buffers.Put(c.buf)
	c.buf = nil
}

// answer feeds the stream with octets that came at the time now and sends the replies: all of one read by one write, if
// they aren't large. Nothing is read while the client doesn't take them. False says that the connection has to close.
func (c *connection) answer(b []byte, now time.Duration) bool {
	if !c.local {
		c.stream.from.Self = c.server.probed.has(c.stream.from.Remote)
	}
	c.stream.feed(b)
	complete := 0
	c.answered = 0
	for {
		c.buf.out.clear()
		taken, next := c.stream.answer(&c.buf.out)
		complete += taken
		c.answered = complete
		c.buf.parts = c.buf.out.parts(c.buf.parts[:0])
		for _, part := range c.buf.parts {
			if !c.write(part) {
				return false
			}
		}
		if next == wantClose {
			return false
		}
		if next == wantInput {
			break
		}
	}
	switch {
	case !c.stream.pending(len(b)):
		c.begun = 0
	case complete > 0 || c.begun == 0:
		c.begun = now
		c.arm(c.due())
	}
	return true
}

// write sends replies, and gives the client WriteTimeout to take what it doesn't take at once.
func (c *connection) write(b []byte) bool {
	if b = c.writeNow(b); len(b) == 0 || c.err != nil {
		return c.err == nil
	}
	c.mu.Lock()
	if c.end.IsZero() { // else stop has set an earlier deadline
		_ = c.conn.SetWriteDeadline(time.Now().Add(c.server.limits.Load().WriteTimeout))
	}
	c.mu.Unlock()
	_, c.err = c.conn.Write(b)
	return c.err == nil
}

// tryWrite writes what the client takes at once.
func (c *connection) tryWrite(fd uintptr) {
	for {
		n, err := syscall.Write(int(fd), c.out)
		switch err {
		case syscall.EINTR:
			continue
		case nil:
			c.wrote = n
		case syscall.EAGAIN:
		default:
			c.err = err
		}
		return
	}
}

// writeNow writes replies and returns what the client didn't take at once. A deadline for all of them would be a timer, which
// costs as much as the system call. With a part of a reply sent the connection is of no use to another process, so it isn't
// kept until the rest is sent.
func (c *connection) writeNow(b []byte) (rest []byte) {
	c.out, c.wrote = b, 0
	if err := c.raw.Control(c.try); err != nil {
		c.err = err
	}
	c.out = nil
	if c.wrote < len(b) {
		c.forget()
	}
	return b[c.wrote:]
}

// due is when the connection is closed if nothing more comes.
func (c *connection) due() time.Duration {
	if c.begun != 0 {
		return c.begun + c.server.limits.Load().RecordTimeout
	}
	return time.Duration(c.active.Load()) + c.server.limits.Load().IdleTimeout
}

// arm makes a wait for input end at the time t of the Server's clock, if it doesn't end earlier. A deadline that turns
// out too early when it comes is moved by woken: that is cheaper than to move it with every call. Local connections
// have none.
func (c *connection) arm(t time.Duration) {
	if c.local || c.deadline != 0 && c.deadline <= t {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end.IsZero() {
		c.deadline = t
		_ = c.conn.SetReadDeadline(c.server.at(t))
	}
}

// woken is called when a wait ended by a deadline. It tells whether the connection goes on.
func (c *connection) woken() bool {
	c.mu.Lock()
	end := c.end
	c.mu.Unlock()
	if !end.IsZero() {
		if c.leave() || c.draining || c.waiting {
			return false
		}
		c.draining = !c.awaitRest()
		return c.conn.SetReadDeadline(end) == nil
	}
	if c.local {
		c.lasted()
		return true
	}
	due := c.due()
	if c.server.clock() >= due {
		return false
	}
	c.deadline = 0
	c.arm(due)
	return true
}

// stop makes the connection answer what has come, and be over at the time end at the latest.
func (c *connection) stop(end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = end
	_ = c.conn.SetReadDeadline(longAgo())
	_ = c.conn.SetWriteDeadline(end)
}

// linger tells the client that nothing more will come, and waits a little for it to have done as well, unless the
// Server itself is about to end.
func (c *connection) linger() {
	if c.conn.CloseWrite() != nil {
		return
	}
	c.mu.Lock()
	stopping := !c.end.IsZero()
	if !stopping {
		_ = c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	}
	c.mu.Unlock()
	for !stopping {
		if _, err := c.conn.Read(c.buf.in[:]); err != nil {
			return
		}
	}
}
