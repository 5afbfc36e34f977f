package server

import (
	"cmp"
	"slices"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// Clients that don't read cost memory: what the kernel holds for them, replies of their own, and parts of lists that the table
// doesn't have any more. What all of them cost together is bounded, and beyond the bound those who read slowest are closed.

const (
	// DefaultMaxUnread is the bound in octets.
	DefaultMaxUnread = 48 << 20
	// shedPause is the least time between two looks at what the clients really have. One look asks the kernel about each.
	shedPause = 10 * time.Millisecond
	// littleUnread is what a connection may cost without being closed for it.
	littleUnread = 2 << 10
)

// unread is what unread replies cost.
type unread struct {
	octets int             // of connections, an upper bound
	parts  map[*byte]*held // parts of lists that somebody hasn't read to the end, by their first octet
	shared int             // octets of these
	looked time.Duration
	high   bool // it was much, and memory isn't given back yet
}

// held is a part of a list and how many connections hold it.
type held struct{ octets, by int }

// owe notes what c costs now.
func (l *streamLoop) owe(c *streamConnection) {
	if l.table[c.slot] != c {
		return // closed
	}
	octets := c.kernel
	if c.unsent != nil {
		octets += len(c.unsent.own) + sys.ReceiveOctets
	}
	if c.in != nil {
		octets += readSize
	}
	if c.begun != 0 {
		octets += min(c.stream.held, c.stream.records.Limit)
	}
	l.unread.octets += octets - c.owes
	c.owes = octets
}

// handed notes that the kernel took n octets for c.
func (l *streamLoop) handed(c *streamConnection, n int) {
	c.kernel = min(c.kernel+n, sys.SendOctets)
	c.taken += n
}

// hold notes that c has to wait before it is sent the rest of its replies.
func (l *streamLoop) hold(c *streamConnection, rest *replies) {
	c.unsent, c.taken = rest, 0
	for _, i := range rest.lists {
		p := l.unread.parts[&i.list[0]]
		if p == nil {
			p = &held{octets: cap(i.list)}
			if l.unread.parts == nil {
				l.unread.parts = make(map[*byte]*held)
			}
			l.unread.parts[&i.list[0]] = p
			l.unread.shared += p.octets
		}
		p.by++
	}
}

// unhold ends what hold began.
func (l *streamLoop) unhold(c *streamConnection) {
	if c.unsent == nil {
		return
	}
	for _, i := range c.unsent.lists {
		p := l.unread.parts[&i.list[0]]
		if p.by--; p.by == 0 {
			delete(l.unread.parts, &i.list[0])
			l.unread.shared -= p.octets
		}
	}
	if len(l.unread.parts) == 0 {
		l.unread.parts = nil // a map never shrinks
	}
	c.unsent = nil
}

// cost returns what unread replies cost in all. Parts of the table's lists as they are cost nothing.
func (l *streamLoop) cost() int {
	lists := 0
	if f := l.server.config.ListOctets; f != nil && l.unread.shared > 0 {
		lists = f()
	}
	return l.unread.octets + max(0, l.unread.shared-lists)
}

// shed closes the connections of those who read slowest as long as unread replies cost too much.
func (l *streamLoop) shed() {
	u, limit := &l.unread, l.server.config.MaxUnread
	total := l.cost()
	switch {
	case total > limit/4:
		u.high = true
	case u.high && total < limit/8:
		u.high = false
		if f := l.server.config.Freed; f != nil {
			f()
		}
	}
	if total <= limit || l.now < u.looked+shedPause && total < 2*limit {
		return
	}
	u.looked = l.now
	slow := l.slowReaders()
	closed := 0
	for _, c := range slow {
		if l.cost() <= limit-limit/8 {
			break
		}
		if l.table[c.slot] == c && !c.away {
			l.close(c)
			closed++
		}
	}
	if closed > 0 && l.server.unreadLogged.begins() {
		l.server.config.Log.Warn("clients don't read their replies: the slowest were disconnected; "+
			"further ones within a minute are not reported", "octets", total, "closed", closed)
	}
}

// slowReaders asks the kernel what it holds for each connection, and returns those that cost something, the slowest first.
func (l *streamLoop) slowReaders() []*streamConnection {
	var slow []*streamConnection
	for _, c := range l.table {
		if c == nil || c.away || c.owes == 0 {
			continue
		}
		if c.kernel > 0 {
			if n, err := sys.Unacknowledged(c.fd); err == nil {
				c.kernel = min(n, sys.SendOctets)
				l.owe(c)
			}
		}
		if c.owes > littleUnread && !isRoot(&c.stream.from) {
			slow = append(slow, c)
		}
	}
	speed := func(c *streamConnection) float64 {
		if c.unsent == nil {
			return 0
		}
		return float64(c.taken) / float64(l.now-c.since+shedPause)
	}
	slices.SortStableFunc(slow, func(a, b *streamConnection) int {
		return cmp.Or(cmp.Compare(speed(a), speed(b)), cmp.Compare(a.active, b.active))
	})
	return slow
}
