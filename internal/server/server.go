// Package server moves octets between sockets and a portmapper: datagrams and records in, replies out, calls for other
// services relayed.
//
// It knows sockets, time limits and how a stream is cut into records; what a call means is the [Portmapper]'s business
// alone. Each UDP socket has a goroutine, and calls by datagram that may wait one more; all TCP and local sockets and their connections have one together, see streamLoop. A
// connection's protocol (type stream) is kept apart from how it waits (type streamConnection).
package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// Defaults of [Config].
const (
	// DefaultMaxRecord is rpcbind's limit in octets.
	DefaultMaxRecord = 9000
	// DefaultIdleTimeout is Linux's own for its RPC servers. Its RPC clients hang up after 5 minutes, so a client that
	// keeps to the custom never finds its connection closed under a call.
	DefaultIdleTimeout = 6 * time.Minute
	// DefaultRecordTimeout is how long rpcbind's library waits for the rest of a record.
	DefaultRecordTimeout = 35 * time.Second
	// DefaultWriteTimeout is how long rpcbind's library waits for a client to read.
	DefaultWriteTimeout = 35 * time.Second
	// DefaultMaxConnections is more than the busiest hosts are known to hold, and some 10 MiB of memory while they are
	// idle. It doesn't follow RLIMIT_NOFILE, which may be a thousand million.
	DefaultMaxConnections = 16384
)

// grace is how long Serve goes on, after it was told to end, for clients that have yet to read their replies and for
// services that have yet to answer a relayed call.
const grace = time.Second

// drainWait is how long a socket has to be silent to count as empty when Serve ends. It only has to outlast a
// goroutine that is kept from running between setting its deadline and reading.
const drainWait = 50 * time.Millisecond

// Portmapper is what answers. A *portmap.Portmapper is one; its methods say what the results mean.
type Portmapper interface {
	AppendReply(dst, call []byte, from portmap.Caller) []byte
	AppendReplyAround(dst, call []byte, from portmap.Caller) (reply []byte, at int, list [][]byte)
	MayWait(call []byte) bool
	AppendRemoteReply(dst []byte, c *portmap.RemoteCall, reply []byte) []byte
}

var _ Portmapper = (*portmap.Portmapper)(nil)

// Config is what a Server works with. Portmapper is needed; the zero value of every other field stands for a default.
type Config struct {
	Portmapper Portmapper
	// Relay is the one that the Portmapper forwards by; nil if it forwards nothing.
	Relay *Relay
	// Log takes one line per change of state. Nil: no log.
	Log *slog.Logger
	// Loopback tells whether the interface with this index is a loopback interface. It is asked for every datagram and
	// every TCP connection, from several goroutines, and should look in memory. Nil: none is.
	Loopback func(ifindex uint32) bool
	// Owner returns the uid at the other end of the TCP connection fd, which came over loopback. It is asked before the first
	// call that registers or unregisters. Nil: none is known.
	Owner func(fd int, remote, local netip.AddrPort) (uid uint32, ok bool)
	// Answered, if not nil, is told of calls of one caller that were read at once: how many, when they were read, and how
	// long it took until the replies were handed to the kernel. It is called for every datagram and every read of a
	// connection, from several goroutines.
	Answered func(from *portmap.Caller, calls int, at time.Time, took time.Duration)

	// Keeper, if not nil, keeps connections of this host beyond the end of this process.
	Keeper Keeper
	// KeepAfter is how long after its first call a local connection is given to the Keeper.
	KeepAfter time.Duration
	// Connections are those that an earlier process had kept, to go on with.
	Connections []*sys.Connection

	// MaxRecord is the size in octets of the longest call taken on a stream.
	MaxRecord int
	// MaxConnections is the number of TCP connections held at once. One more closes the one that was idle longest.
	// Local connections are not counted.
	MaxConnections int
	// MaxConnectionsEach is the number of connections of one address (IPv6: /56) of another host, and of one user of this one but
	// root; one more is refused. Zero is no limit.
	MaxConnectionsEach int
	// MaxUnread is how many octets the replies that clients don't read cost at most; those who read slowest are disconnected.
	MaxUnread int
	// ListOctets, if not nil, returns the size of the lists that the Portmapper has at present, which cost nothing.
	ListOctets func() int
	// Freed, if not nil, is called when unread replies have cost much memory and don't any more.
	Freed func()
	// Descriptors is the number of connections in all, but those of root by the local socket, which so have a reserve. Zero
	// is no limit.
	Descriptors int
	// IdleTimeout closes a TCP connection that brought nothing for so long. Local connections may idle for ever, as
	// the kernel's does.
	IdleTimeout time.Duration
	// RecordTimeout closes a TCP connection when a record that has begun isn't whole after so long.
	RecordTimeout time.Duration
	// WriteTimeout closes a connection, a local one as well, whose client doesn't take a write of replies in so long.
	WriteTimeout time.Duration
}

// withDefaults returns c with defaults for zero values.
func (c Config) withDefaults() Config {
	c.MaxRecord = cmp.Or(c.MaxRecord, DefaultMaxRecord)
	c.MaxConnections = cmp.Or(c.MaxConnections, DefaultMaxConnections)
	c.MaxUnread = cmp.Or(c.MaxUnread, DefaultMaxUnread)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, DefaultIdleTimeout)
	c.RecordTimeout = cmp.Or(c.RecordTimeout, DefaultRecordTimeout)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, DefaultWriteTimeout)
	c.KeepAfter = cmp.Or(c.KeepAfter, DefaultKeepAfter)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Loopback == nil {
		c.Loopback = func(uint32) bool { return false }
	}
	return c
}

// A Server serves sockets, once.
type Server struct {
	config       Config
	connections  connections
	inputs       sync.Pool // of *[readSize]byte
	streams      *streamLoop
	worker       *worker
	limits       atomic.Pointer[Config] // of which only the limits count
	epoch        time.Time              // what clock counts from
	short        episode                // out of descriptors or memory for connections
	refused      episode                // connections beyond a limit
	unreadLogged episode                // clients that don't read were disconnected
	stopping     atomic.Bool
	stopped      chan struct{} // closed when stopping is set
	probed       probed

	mu    sync.Mutex
	loops []loop // what is served
}

// New returns a Server, and ties c.Relay to c.Portmapper and the log.
func New(c Config) *Server {
	s := &Server{
		config:  c.withDefaults(),
		epoch:   time.Now(),
		stopped: make(chan struct{}),
	}
	s.limits.Store(&s.config)
	s.worker = newWorker(s)
	s.inputs.New = func() any { return new([readSize]byte) }
	s.connections.init()
	if c.Relay != nil {
		c.Relay.bind(s.config.Portmapper, s.config.Log)
	}
	return s
}

// Connections returns how many connections are open, and how many were opened so far.
func (s *Server) Connections() (tcp, local int, opened uint64) { return s.connections.counts() }

// SetLimits replaces the limits and times of the configuration, for what happens from now on.
func (s *Server) SetLimits(c Config) {
	c = c.withDefaults()
	s.limits.Store(&c)
}

// clock returns the time since the Server was made.
func (s *Server) clock() time.Duration { return time.Since(s.epoch) }

// at turns a time of clock into one for a deadline.
func (s *Server) at(t time.Duration) time.Time { return s.epoch.Add(t) }

// longAgo is a deadline that wakes whoever waits.
func longAgo() time.Time { return time.Unix(1, 0) }

// A loop serves one socket.
type loop interface {
	// run calls started when it is about to read for the first time, and returns when stop was called and what had been
	// received is answered or handed to a connection, or with the error that ended it.
	run(started func()) error
	// stop makes run return. It is called once, after Server.stopping was set.
	stop() error
	// pulse returns the socket and what counts up with each read of it.
	pulse() (*sys.Socket, *atomic.Uint64)
}

// Serve serves the sockets until ctx is done, and calls ready, unless it is nil, once when every socket is about to be
// read. When ctx is done, the calls that had been received are answered, for one second at most if clients don't read,
// every connection is closed, and Serve returns nil. What arrives at a socket that goes on without us, and on connections
// that the Keeper has, is left to the next process. An error of a socket ends Serve in the same way and is returned.
//
// No goroutine outlives Serve. The sockets stay open: who made them closes them. Serve may be called once.
func (s *Server) Serve(ctx context.Context, sockets []*sys.Socket, ready func()) error {
	loops, streams, err := s.newLoops(sockets)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.loops, s.streams = loops, streams
	s.mu.Unlock()
	if streams != nil {
		for _, conn := range s.config.Connections {
			streams.adopt(conn)
		}
		go streams.run()
	}
	if s.config.Relay != nil {
		s.config.Relay.open(sockets)
	}
	s.worker.start()
	ended := make(chan error, len(loops))
	var started, receiving sync.WaitGroup
	started.Add(len(loops))
	for _, l := range loops {
		receiving.Go(func() { ended <- l.run(started.Done) })
	}
	started.Wait()
	if ready != nil {
		ready()
	}
	running := len(loops)
	var first error
	select {
	case <-ctx.Done():
	case first = <-ended:
		running--
	}
	s.stop(&receiving)
	for range running {
		if err := <-ended; first == nil {
			first = err
		}
	}
	return first
}

// stop ends everything, in the order in which work is handed on: streams, datagrams, relay. Datagrams are answered until the
// connections are gone, so nobody who calls by UDP waits for a client that doesn't read.
func (s *Server) stop(receiving *sync.WaitGroup) {
	end := time.Now().Add(grace)
	s.stopping.Store(true)
	close(s.stopped)
	if s.streams != nil {
		s.streams.stop(end)
		<-s.streams.ended
	}
	for _, l := range s.loops {
		// A socket whose deadline can't be set is closed or broken, and its loop has ended or will by its next read.
		if err := l.stop(); err != nil {
			s.config.Log.Debug("stop a socket", "err", err)
		}
	}
	receiving.Wait()
	s.worker.stop()
	if s.config.Relay != nil {
		s.config.Relay.close(end)
	}
}

// newLoops returns a loop for each socket, and the one that serves all those of streams, or nil.
func (s *Server) newLoops(sockets []*sys.Socket) ([]loop, *streamLoop, error) {
	var loops []loop
	var listening []*sys.Socket
	for _, socket := range sockets {
		switch {
		case socket.Packet != nil:
			loops = append(loops, newPacketLoop(s, socket))
		case socket.Listener != nil:
			listening = append(listening, socket)
		default:
			return nil, nil, fmt.Errorf("serve %s %v: the socket is not open", socket.Netid, socket.Addr)
		}
	}
	if listening == nil && s.config.Connections == nil {
		return loops, nil, nil
	}
	streams, err := newStreamLoop(s, listening)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range streams.listeners {
		loops = append(loops, l)
	}
	return loops, streams, nil
}

// pause waits for d, or less if Serve is to end or wake brings something. A nil wake brings nothing.
func (s *Server) pause(d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-s.stopped:
	}
}

// episodeQuiet is how long an event has to stay away before its return is worth another line in the log.
const episodeQuiet = time.Minute

// An episode is a run of like events, of which only the first is logged.
type episode struct {
	mu    sync.Mutex
	last  time.Time
	begun bool
}

// begins notes an event and tells whether it is the first of an episode.
func (e *episode) begins() bool {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !e.begun || now.Sub(e.last) > episodeQuiet
	e.last, e.begun = now, true
	return first
}

// since tells whether there was an event after t.
func (e *episode) since(t time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last.After(t)
}
