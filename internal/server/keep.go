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

// DefaultKeepAfter is how long after its first call a local connection counts as one that stays, and is given to the Keeper.
// Most connections are over before: they cost the service manager nothing.
const DefaultKeepAfter = 2 * time.Second

// keeping is what a connection has to do with the Keeper.
type keeping struct {
	conn    *sys.Connection // as the Keeper knows it
	kept    bool
	called  bool // a call was answered
	adopted bool // from an earlier process, and nothing was answered yet
	halved  bool // a part of a record is there, and left there; the poller reports what comes behind it
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
	p := peerOf(&from)
	if !local && from.Loopback {
		p = peer{kind: ofAny}
	}
	l.server.connections.enter(&from, p, bounds{}) // it was served already
	if c := l.add(conn.FD(), from, p); c != nil && local && keeper != nil {
		c.keeping = &keeping{conn: conn, kept: true, adopted: true}
	}
}

// lasted is called when a local connection has lasted: it is kept from now on. Where half of a record is here, or where there
// is no room for it, that is tried again after the same time.
func (l *streamLoop) lasted(c *streamConnection) {
	c.leave()
	if c.stream.records.Pending() {
		l.put(c, young)
		return
	}
	k := c.keeping
	l.slowly(c, func() { k.kept = l.server.config.Keeper.Keep(k.conn, &c.stream.from, false) }, func() { l.settle(c) })
}

// forget ends that, and goes on with next.
func (l *streamLoop) forget(c *streamConnection, next func()) {
	l.slowly(c, func() { l.server.config.Keeper.Forget(c.keeping.conn) }, func() {
		c.keeping.kept = false
		next()
	})
}

// peeked answers the whole records among the n octets that were looked at, which are taken off the connection after that. An
// unfinished one is left there: another process can go on with the connection, and nobody has to be told when half a record
// comes. What is no record, or has no room here, is read as ever.
func (l *streamLoop) peeked(c *streamConnection, n int) {
	k := c.keeping
	whole, sound := wholeRecords(l.shift.in[:n], c.stream.records.Limit)
	halved := whole == 0 && sound && n < len(l.shift.in) && !sys.Ended(c.fd)
	if halved != k.halved {
		if l.poller.WatchInput(c.fd, uint64(c.slot), halved) != nil {
			l.close(c)
			return
		}
		k.halved = halved
	}
	switch {
	case halved:
		return
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

// wholeRecords returns how many octets of b, which begins with a record mark, belong to whole records, and whether the rest
// can become one of at most limit octets.
func wholeRecords(b []byte, limit int) (whole int, sound bool) {
	const last = 1 << 31 // of a record's fragments, see pkg/oncrpc
	record := 0          // octets of the one that isn't whole
	for at := 0; len(b)-at >= oncrpc.RecordMarkSize; {
		mark := binary.BigEndian.Uint32(b[at:])
		size := int(mark &^ last)
		if size > limit-record || size == 0 && mark&last == 0 {
			return whole, false
		}
		if size > len(b)-at-oncrpc.RecordMarkSize {
			break
		}
		at += oncrpc.RecordMarkSize + size
		record += size
		if mark&last != 0 {
			whole, record = at, 0
		}
	}
	return whole, true
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
