package server

import (
	"net/netip"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

// connections is the table of what is open: of those with a goroutine each, and of how many the streamLoop has.
type connections struct {
	freed chan struct{} // brings something after a connection has closed, if somebody waits
	done  sync.WaitGroup

	mu    sync.Mutex
	all   map[*connection]struct{} // without the streamLoop's
	count int                      // with them
	tcp   int                      // how many are not local
	root  int                      // how many are root's, by the local socket
	each  map[peer]int
	ever  uint64    // how many there were
	end   time.Time // zero until stop
}

func (t *connections) init() {
	t.freed = make(chan struct{}, 1)
	t.all = make(map[*connection]struct{})
	t.each = make(map[peer]int)
}

// A peer is whom connections are counted for: an address, or a user of the local socket.
type peer struct {
	addr netip.Addr
	uid  uint32
}

// bounds are what a table of connections holds at most; 0 is no bound.
type bounds struct {
	tcp         int // TCP connections
	each        int // connections of one remote address, or by the local socket of one user
	descriptors int // connections in all, without those of root by the local socket: the rest is kept for these
}

// add puts c into the table. Where a bound is reached in all, the idlest TCP connection is closed for it, one from another
// host if there is any; a caller from another host gets no place of one on this host. What is too much of one peer, and what
// there is no place for, is refused: false.
func (t *connections) add(c *connection, b bounds) bool {
	t.mu.Lock()
	var idlest *connection
	switch {
	case c.root():
	case b.each > 0 && !(c.own() && !c.local) && t.each[c.peer()] >= b.each:
		t.mu.Unlock()
		return false
	case t.full(c.local, b):
		if idlest = t.takeIdlest(c.own()); idlest == nil {
			t.mu.Unlock()
			return false
		}
	}
	t.done.Add(1)
	t.all[c] = struct{}{}
	t.ever++
	t.tally(c.local, c.root(), c.peer(), 1)
	end := t.end
	t.mu.Unlock()
	if idlest != nil {
		_ = idlest.conn.Close()
	}
	if !end.IsZero() {
		c.stop(end)
	}
	return true
}

// full tells whether a bound in all is reached. The lock is held.
func (t *connections) full(local bool, b bounds) bool {
	return b.descriptors > 0 && t.count-t.root >= b.descriptors || !local && b.tcp > 0 && t.tcp >= b.tcp
}

// crowded tells whether c was refused for a bound in all, and not for one of its peer.
func (t *connections) crowded(c *connection, b bounds) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.full(c.local, b) && !(b.each > 0 && t.each[c.peer()] >= b.each)
}

// enter counts a connection of the streamLoop, if there is a place for it. If not, room tells whether the bound is one in
// all, so that closing another would make room.
func (t *connections) enter(own bool, p peer, b bounds) (entered, room bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case b.each > 0 && !own && t.each[p] >= b.each:
		return false, false
	case t.full(false, b):
		return false, true
	}
	t.ever++
	t.tally(false, false, p, 1)
	return true, false
}

// exit ends what enter began.
func (t *connections) exit(p peer) {
	t.mu.Lock()
	t.tally(false, false, p, -1)
	t.mu.Unlock()
	t.free()
}

// tally takes note of a connection that comes or goes. The lock is held.
func (t *connections) tally(local, root bool, p peer, change int) {
	t.count += change
	if !local {
		t.tcp += change
	}
	if root {
		t.root += change
	}
	if t.each[p] += change; t.each[p] == 0 {
		delete(t.each, p)
	}
}

// own tells whether the caller is on this host, peer whom the connection is counted for, and root whether it is root's by
// the local socket. They don't change after identify.
func (c *connection) own() bool { return c.local || c.stream.from.Loopback }

func (c *connection) peer() peer { return peerOf(&c.stream.from) }

func peerOf(from *portmap.Caller) peer { return peer{from.Remote.Addr(), from.UID} }

func (c *connection) root() bool { return c.local && c.stream.from.HasUID && c.stream.from.UID == 0 }

// remove takes c, which is closed, out of the table.
func (t *connections) remove(c *connection) {
	t.mu.Lock()
	t.forget(c)
	t.mu.Unlock()
	t.free()
	t.done.Done()
}

// free tells who waits that a descriptor came free.
func (t *connections) free() {
	select {
	case t.freed <- struct{}{}:
	default:
	}
}

// forget takes c out of the table if it is there. The lock is held.
func (t *connections) forget(c *connection) {
	if _, ok := t.all[c]; !ok {
		return
	}
	delete(t.all, c)
	t.tally(c.local, c.root(), c.peer(), -1)
}

// takeIdlest takes the TCP connection that brought nothing for the longest time out of the table, to be closed; nil if
// there is none. It is one from another host if there is any, and one of this host only if own is true. Local connections
// are left alone: the kernel keeps one open for good, and doesn't notice for long that it was closed. The lock is held.
func (t *connections) takeIdlest(own bool) *connection {
	var idlest *connection
	for c := range t.all {
		switch {
		case c.local, c.own() && !own:
		case idlest == nil, idlest.own() && !c.own():
			idlest = c
		case idlest.own() == c.own() && c.active.Load() < idlest.active.Load():
			idlest = c
		}
	}
	if idlest != nil {
		t.forget(idlest)
	}
	return idlest
}

// closeIdlest closes the idlest TCP connection and tells whether there was one. Its descriptor is free when closeIdlest
// returns: Close waits for that, after waking the connection's goroutine.
func (t *connections) closeIdlest() bool {
	t.mu.Lock()
	idlest := t.takeIdlest(true)
	t.mu.Unlock()
	if idlest == nil {
		return false
	}
	_ = idlest.conn.Close()
	return true
}

// counts returns how many connections are open, and how many were added so far.
func (t *connections) counts() (tcp, local int, ever uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tcp, t.count - t.tcp, t.ever
}

// stop stops every connection, and those that come after.
func (t *connections) stop(end time.Time) {
	t.mu.Lock()
	t.end = end
	open := make([]*connection, 0, len(t.all))
	for c := range t.all {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		c.stop(end)
	}
}

// wait returns when every connection's goroutine has ended. No connection may be added any more.
func (t *connections) wait() { t.done.Wait() }
