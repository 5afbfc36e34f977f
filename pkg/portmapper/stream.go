package portmapper

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

const (
	// readSize is the room for one read of a connection in octets.
	readSize = 4096
	// flushSize is how many octets of replies are gathered before they are sent.
	flushSize = 64 << 10
	// acceptFailures is how many errors in a row end a listener. After each it rests longer.
	acceptFailures = 10
)

// An acceptLoop serves a listener.
type acceptLoop struct {
	p        *Portmapper
	listener net.Listener
	local    bool // AF_UNIX
	closed   atomic.Bool
}

func (l *acceptLoop) close() {
	l.closed.Store(true)
	_ = l.listener.Close()
}

func (l *acceptLoop) run() error {
	failures := 0
	for {
		nc, err := l.listener.Accept()
		switch {
		case err == nil:
			failures = 0
			l.p.open(nc, l.local)
		case l.closed.Load():
			return nil
		case errors.Is(err, net.ErrClosed) || failures == acceptFailures:
			return fmt.Errorf("portmapper: serve %v: %w", l.listener.Addr(), err)
		default:
			// Most likely the process is out of descriptors, and an idle connection has one.
			failures++
			if failures == 1 {
				l.p.log.Warn("portmapper: a connection could not be accepted", "listener", l.listener.Addr(), "err", err)
			}
			if !l.p.closeIdlest() {
				time.Sleep(time.Duration(failures) * 10 * time.Millisecond)
			}
		}
	}
}

// conn is one connection.
type conn struct {
	net.Conn
	local  bool
	active atomic.Int64 // when a call came last, in nanoseconds since 1970
	ended  chan struct{}
	gone   bool // it was closed to make room; under Portmapper.mu
}

// open serves a connection in a goroutine of its own.
func (p *Portmapper) open(nc net.Conn, local bool) {
	c := &conn{Conn: nc, local: local, ended: make(chan struct{})}
	c.active.Store(time.Now().UnixNano())
	p.mu.Lock()
	p.conns[c] = true
	over := !local && p.remoteConns() > p.options.MaxConnections
	p.mu.Unlock()
	if over {
		p.closeIdlest()
	}
	go func() {
		defer close(c.ended)
		p.serve(c)
		_ = c.Close() // every reply was handed over, or can't be
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}()
}

// remoteConns counts the TCP connections. The lock is held.
func (p *Portmapper) remoteConns() int {
	n := 0
	for c := range p.conns {
		if !c.local && !c.gone {
			n++
		}
	}
	return n
}

// closeIdlest closes the TCP connection that was idle longest, if there is one.
func (p *Portmapper) closeIdlest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var idlest *conn
	for c := range p.conns {
		if !c.local && !c.gone && (idlest == nil || c.active.Load() < idlest.active.Load()) {
			idlest = c
		}
	}
	if idlest == nil {
		return false
	}
	idlest.gone = true
	_ = idlest.Close()
	return true
}

// closeConns ends every connection: a reply that is being sent has a moment to be taken.
func (p *Portmapper) closeConns() {
	p.stopping.Store(true)
	p.mu.Lock()
	var all []*conn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		_ = c.SetWriteDeadline(time.Now().Add(grace))
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
	for _, c := range all {
		<-c.ended
	}
}

// serve answers the calls of a connection until it is over.
func (p *Portmapper) serve(c *conn) {
	from := p.streamCaller(c)
	records := oncrpc.RecordReader{Limit: MaxRecord}
	in := make([]byte, readSize)
	for {
		if !c.local {
			idle := time.Unix(0, c.active.Load()).Add(p.options.IdleTimeout)
			if c.SetReadDeadline(idle) != nil {
				return
			}
		}
		if p.stopping.Load() { // the deadline just set may have replaced that of closeConns
			return
		}
		n, err := c.Read(in)
		records.Feed(in[:n])
		for {
			out, more, ok := p.answer(nil, &records, from)
			if len(out) > 0 {
				c.active.Store(time.Now().UnixNano())
				if !p.send(c, out) {
					return
				}
			}
			if !ok {
				return
			}
			if !more {
				break
			}
		}
		if err != nil {
			return
		}
	}
}

// send sends replies, and gives the client a time to take them.
func (p *Portmapper) send(c *conn, out []byte) bool {
	limit := writeTimeout
	if p.stopping.Load() {
		limit = grace
	}
	if c.SetWriteDeadline(time.Now().Add(limit)) != nil {
		return false
	}
	_, err := c.Write(out)
	return err == nil
}

// answer appends the replies to the records that are there, in their order: more tells that some are left, and ok is false
// if what came is no record or no call.
func (p *Portmapper) answer(out []byte, records *oncrpc.RecordReader, from portmap.Caller) (_ []byte, more, ok bool) {
	for len(out) <= flushSize {
		call, whole, err := records.Next()
		if err != nil {
			return out, false, false
		}
		if !whole {
			return out, false, true
		}
		start := len(out)
		out = p.portmap.AppendReply(oncrpc.BeginRecord(out), call, from)
		if len(out) == start+oncrpc.RecordMarkSize {
			return out[:start], false, false
		}
		oncrpc.EndRecord(out, start)
	}
	return out, true, true
}

// streamCaller tells who is at the other end of a connection.
func (p *Portmapper) streamCaller(c *conn) portmap.Caller {
	if c.local {
		from := portmap.Caller{Transport: portmap.Local, Loopback: true}
		from.UID, from.HasUID = peerUID(c.Conn)
		return from
	}
	from := portmap.Caller{Transport: portmap.TCP6, Remote: plain(c.RemoteAddr()), Local: plain(c.LocalAddr())}
	if from.Remote.Addr().Is4() {
		from.Transport = portmap.TCP
	}
	from.Ifindex = arrivedOn(c.Conn)
	if from.Loopback = p.onLoopback(from.Ifindex, from.Remote.Addr(), from.Local.Addr()); from.Loopback {
		from.UID, from.HasUID = connectionUID(c.Conn, from.Remote, from.Local)
	}
	return from
}
