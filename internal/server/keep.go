package server

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// A Keeper keeps connections open beyond the end of this process, also a sudden one, for the next process to go on with
// ([Config.Connections]): a service manager, say. Its methods are called from several goroutines.
//
// What is kept has to be in a state that another process can go on from: nothing of an unfinished record was taken off the
// connection, and nothing of an unfinished reply was sent. While a connection is kept, a call is therefore only looked at
// until its reply was handed to the kernel, and taken off after that; a crash between the two makes the next process answer
// it once more, to a client that has its reply and drops a second one. SET and UNSET do no harm a second time.
type Keeper interface {
	// Keep keeps a connection and tells whether it does. At the end of Serve more may be kept than before.
	Keep(c syscall.Conn, from *portmap.Caller, atEnd bool) bool
	// Forget ends that, before the connection is closed or got into another state.
	Forget(c syscall.Conn)
}

// lasting is how long a local connection has to last to be kept, unless it is root's: then it may be the kernel's, which is
// never made anew, and is kept at once.
const lasting = 5 * time.Second

// keeping is what a connection has to do with the Keeper. Only the connection's goroutine uses it.
type keeping struct {
	kept    bool
	lasts   bool // is to be kept whenever its state is one that can be
	adopted bool // from an earlier process, and nothing was answered yet
	peeked  bool // what was read last is still to be taken off
	waiting bool // for the rest of a record, when Serve ends
	left    bool // to the next process

	drop func(fd uintptr) // takeOff, made once
	size int              // what it takes off
}

// adopt serves a connection that an earlier process had kept. Of TCP that is for a change of processes only.
func (s *Server) adopt(conn net.Conn) {
	_, local := conn.(*net.UnixConn)
	if sc, ok := conn.(syscall.Conn); ok && !local && s.config.Keeper != nil {
		s.config.Keeper.Forget(sc)
	}
	s.open(conn, keeping{kept: local && s.config.Keeper != nil, adopted: true})
}

// begin decides whether the connection is one to keep, and when.
func (c *connection) begin() {
	c.drop = c.takeOff
	switch {
	case c.server.config.Keeper == nil || !c.local || c.stream.from.Self:
	case c.kept:
		c.lasts = true
	case c.stream.from.HasUID && c.stream.from.UID == 0:
		c.lasts = true
		c.keep()
	default:
		c.mu.Lock()
		if c.end.IsZero() {
			_ = c.conn.SetReadDeadline(time.Now().Add(lasting))
		}
		c.mu.Unlock()
	}
}

// lasted is called when a local connection has lasted.
func (c *connection) lasted() {
	c.mu.Lock()
	if c.end.IsZero() {
		_ = c.conn.SetReadDeadline(time.Time{})
	}
	c.mu.Unlock()
	c.lasts = true
	c.keep()
}

// keep has the connection kept from now on, if it is one to keep and nothing of a record is here. Where there is no room it
// isn't tried again before the end.
func (c *connection) keep() {
	if c.lasts && !c.kept && !c.stream.records.Pending() {
		c.kept = c.server.config.Keeper.Keep(c.conn, &c.stream.from, false)
		c.lasts = c.kept
	}
}

// forget ends that.
func (c *connection) forget() {
	if c.kept {
		c.kept = false
		c.server.config.Keeper.Forget(c.conn)
	}
}

// leave gives the connection over to the next process when Serve ends: local ones, and those of this host over TCP. What
// has arrived waits there.
func (c *connection) leave() bool {
	from := &c.stream.from
	if c.server.config.Keeper == nil || from.Self || !c.local && !(from.Loopback && from.Remote.Addr().IsLoopback()) {
		return false
	}
	if c.stream.records.Pending() {
		return false
	}
	c.left = c.kept || c.server.config.Keeper.Keep(c.conn, from, true)
	return c.left
}

// awaitRest tells, once, whether to wait for the rest of a record when Serve ends, so that the connection can be left to the next process.
func (c *connection) awaitRest() bool {
	if c.waiting || c.server.config.Keeper == nil || !c.local || !c.stream.records.Pending() {
		return false
	}
	c.waiting = true
	return true
}

// answerPeeked answers the whole records among octets that were looked at, and takes them off the connection. An unfinished
// one is taken off as ever: its rest may be long in coming, and the connection isn't kept until it has come.
func (c *connection) answerPeeked(b []byte, now time.Duration) bool {
	whole := wholeRecords(b)
	if whole == 0 {
		c.forget()
		return c.take(len(b)) && c.answer(b, now)
	}
	// What an earlier process was answering when it ended may be what ended it. It isn't to end the next one as well.
	if c.adopted {
		c.adopted = false
		return c.take(whole) && c.answer(b[:whole], now)
	}
	return c.answer(b[:whole], now) && c.take(whole)
}

// take takes n octets off the connection, which have to be there. They are those that were looked at.
func (c *connection) take(n int) bool {
	c.size = n
	if err := c.raw.Control(c.drop); err != nil {
		c.err = err
	} else if c.size > 0 && c.err == nil {
		c.err = io.ErrUnexpectedEOF
	}
	return c.err == nil
}

func (c *connection) takeOff(fd uintptr) {
	for at := 0; c.size > 0; {
		n, err := syscall.Read(int(fd), c.buf.in[at:at+c.size])
		switch {
		case err == syscall.EINTR:
			continue
		case n <= 0:
			c.err = err
			return
		}
		at, c.size = at+n, c.size-n
	}
}

// wholeRecords returns how many octets of b, which begins with a record mark, belong to whole records. What is no record
// isn't whole either.
func wholeRecords(b []byte) int {
	const last = 1 << 31 // of a record's fragments, see pkg/oncrpc
	whole := 0
	for at := 0; len(b)-at >= oncrpc.RecordMarkSize; {
		mark := binary.BigEndian.Uint32(b[at:])
		size := int(mark &^ last)
		if size > len(b)-at-oncrpc.RecordMarkSize {
			break
		}
		at += oncrpc.RecordMarkSize + size
		if mark&last != 0 {
			whole = at
		}
	}
	return whole
}

// outlives tells whether a socket goes on without us: then what has arrived there waits for the next process.
func outlives(s *sys.Socket) bool { return s.Activated || s.Kept }

// handOver gives a connection of this host to the next process when Serve ends, if it is between two records. What has
// arrived waits there.
func (l *streamLoop) handOver(c *streamConnection) bool {
	keeper, from := l.server.config.Keeper, &c.stream.from
	return keeper != nil && !from.Self && from.Loopback && from.Remote.Addr().IsLoopback() &&
		!c.stream.records.Pending() && keeper.Keep(&descriptor{c.fd}, from, true)
}

// A descriptor is a connection for a Keeper, to which alone Control matters.
type descriptor struct{ fd int }

func (d *descriptor) SyscallConn() (syscall.RawConn, error) { return d, nil }

func (d *descriptor) Control(f func(fd uintptr)) error {
	f(uintptr(d.fd))
	return nil
}

func (d *descriptor) Read(func(fd uintptr) bool) error { return errors.ErrUnsupported }

func (d *descriptor) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
