package server

import (
	"encoding/binary"
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

// keeping is what a connection has to do with the Keeper.
type keeping struct {
	conn    *sys.Connection // as the Keeper knows it
	kept    bool
	lasts   bool // is to be kept whenever its state is one that can be
	tried   bool // to be kept; where there was no room it isn't tried again before the end
	adopted bool // from an earlier process, and nothing was answered yet
	peeked  int  // octets that are being answered and are still to be taken off
}

// isKept tells whether the Keeper has the connection.
func (c *streamConnection) isKept() bool { return c.keeping != nil && c.keeping.kept }

// adopt serves a connection that an earlier process had kept. Of TCP that is for a change of processes only.
func (l *streamLoop) adopt(conn *sys.Connection) {
	keeper := l.server.config.Keeper
	remote, own, v6, local := conn.Ends()
	var from portmap.Caller
	if local {
		from = l.localCaller(conn.FD())
	} else {
		from = l.remoteCaller(conn.FD(), v6, remote, own)
		if keeper != nil {
			keeper.Forget(conn)
		}
	}
	l.server.connections.enter(&from, bounds{}) // it was served already
	if c := l.add(conn.FD(), from); c != nil && local && keeper != nil {
		c.keeping = &keeping{conn: conn, kept: true, lasts: true, adopted: true}
	}
}

// consider decides whether a new local connection is one to keep, and when.
func (l *streamLoop) consider(c *streamConnection) {
	c.keeping = &keeping{conn: sys.ConnectionOf(c.fd)}
	if isRoot(&c.stream.from) {
		c.keeping.lasts = true
		l.keep(c)
		return
	}
	l.put(c, young)
}

// lasted is called when a local connection has lasted.
func (l *streamLoop) lasted(c *streamConnection) {
	c.leave()
	c.keeping.lasts = true
	l.keep(c)
}

// keep has the connection kept from now on, if it is one to keep and nothing of a record is here.
func (l *streamLoop) keep(c *streamConnection) {
	k := c.keeping
	if k == nil || !k.lasts || k.kept || c.stream.records.Pending() {
		return
	}
	l.slowly(c, func() {
		k.kept = l.server.config.Keeper.Keep(k.conn, &c.stream.from, false)
		k.lasts, k.tried = k.kept, true
	}, func() {})
}

// forget ends that, and goes on with next.
func (l *streamLoop) forget(c *streamConnection, next func()) {
	l.slowly(c, func() { l.server.config.Keeper.Forget(c.keeping.conn) }, func() {
		c.keeping.kept = false
		next()
	})
}

// peeked answers the whole records among the n octets that were looked at, which are taken off the connection after that. An
// unfinished one is read as ever: its rest may be long in coming, and the connection isn't kept until it has come.
func (l *streamLoop) peeked(c *streamConnection, n int) {
	k, whole := c.keeping, wholeRecords(l.shift.in[:n])
	switch {
	case whole == 0:
		l.forget(c, func() {}) // and it is still readable
		return
	case k.adopted:
		// What an earlier process was answering when it ended may be what ended it. It isn't to end the next one as well.
		k.adopted = false
		if !l.take(c, whole) {
			l.close(c)
			return
		}
	default:
		k.peeked = whole
	}
	l.feed(c, whole)
}

// settleKept is settle for a connection that may be kept. With a part of a reply sent, or after a mistake, it is of no use to
// another process. The calls that were looked at are taken off once each is answered.
func (l *streamLoop) settleKept(c *streamConnection) {
	if c.isKept() && (c.unsent != nil || c.closing) {
		l.forget(c, func() { l.settleForgotten(c) })
		return
	}
	l.settleForgotten(c)
}

func (l *streamLoop) settleForgotten(c *streamConnection) {
	k := c.keeping
	if n := k.peeked; n > 0 && c.in == nil {
		k.peeked = 0
		if !l.take(c, n) {
			l.close(c)
			return
		}
	}
	l.settle(c)
}

// take takes n octets off the connection, which have to be there. They were looked at.
func (l *streamLoop) take(c *streamConnection, n int) bool {
	for n > 0 {
		took, err := sys.ReadNow(c.fd, l.shift.in[:n])
		switch {
		case err == syscall.EINTR:
		case took <= 0:
			return false
		default:
			n -= took
		}
	}
	return true
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

// handOver gives a connection over to the next process when Serve ends, if it is between two records: local ones, and those of
// this host over TCP. What has arrived waits there.
func (l *streamLoop) handOver(c *streamConnection) bool {
	keeper, from := l.server.config.Keeper, &c.stream.from
	switch {
	case keeper == nil || from.Self || c.stream.records.Pending():
		return false
	case c.isKept():
		return true
	case c.keeping != nil:
		return keeper.Keep(c.keeping.conn, from, true)
	}
	return (c.local() || from.Loopback && from.Remote.Addr().IsLoopback()) && keeper.Keep(sys.ConnectionOf(c.fd), from, true)
}

// awaitsRest tells whether to wait for the rest of a record when Serve ends, so that the connection can be left to the next
// process.
func (l *streamLoop) awaitsRest(c *streamConnection) bool {
	return l.server.config.Keeper != nil && c.local() && c.stream.records.Pending()
}
