package server

import "time"

// The lists of a streamLoop, for what a connection waits for.
const (
	idle    = iota // calls
	pending        // the rest of a record
	blocked        // the client to read
	lingers        // the client to hear that nothing more will come
	young          // to have lasted, see keep.go
	kindsOfList
)

// The kinds of peers that have lists of their own. When descriptors are short, those of other hosts are closed first, and local
// ones not at all: the kernel keeps one open for good, and doesn't notice for long that it was closed.
const (
	foreign = iota // another host
	own            // this host, over TCP
	local          // this host, by a local socket
	kindsOfPeer
)

type streamLists [kindsOfPeer][kindsOfList]streamList

// A streamList is a queue of connections in the order in which they came into their state, which each may be in for the same
// time: so the first is the first to be closed for it. A connection is in one at most.
type streamList struct {
	first, last *streamConnection
	limit       time.Duration
}

// add puts c behind all others, out of the list that it was in; since is when its time began.
func (l *streamList) add(c *streamConnection, since time.Duration) {
	c.leave()
	c.list, c.since, c.before = l, since, l.last
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
}

// leave takes c out of its list.
func (c *streamConnection) leave() {
	l := c.list
	if l == nil {
		return
	}
	if c.before != nil {
		c.before.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.before = c.before
	} else {
		l.last = c.before
	}
	c.list, c.before, c.next = nil, nil, nil
}

// due is when the first connection's time is over, and false if there is none.
func (l *streamList) due() (time.Duration, bool) {
	if l.first == nil {
		return 0, false
	}
	return l.first.since + l.limit, true
}
