package server

import (
	"net/netip"
	"sync"

	"github.com/gportmap/gportmap/internal/portmap"
)

// connections counts what is open. Who asks for the figures is another goroutine than the one that serves.
type connections struct {
	mu    sync.Mutex
	count int // all
	tcp   int // how many are not local
	root  int // how many are root's, by the local socket
	each  map[peer]int
	ever  uint64 // how many there were
}

func (t *connections) init() { t.each = make(map[peer]int) }

// A peer is whom connections are counted for: an address, or a user of the local socket.
type peer struct {
	addr netip.Addr
	uid  uint32
}

func peerOf(from *portmap.Caller) peer { return peer{from.Remote.Addr(), from.UID} }

// isRoot tells whether a connection is root's by the local socket: the kernel's, most often.
func isRoot(from *portmap.Caller) bool {
	return from.Transport == portmap.Local && from.HasUID && from.UID == 0
}

// bounds are what a table of connections holds at most; 0 is no bound.
type bounds struct {
	tcp         int // TCP connections
	each        int // connections of one remote address, or by the local socket of one user
	descriptors int // connections in all, without those of root by the local socket: the rest is kept for these
}

// enter counts a connection, if there is a place for it. What is too much of one peer, and what there is no place for, is
// refused; room tells then whether closing another would make room.
func (t *connections) enter(from *portmap.Caller, b bounds) (entered, room bool) {
	local := from.Transport == portmap.Local
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case isRoot(from):
	case b.each > 0 && (local || !from.Loopback) && t.each[peerOf(from)] >= b.each:
		return false, false
	case b.descriptors > 0 && t.count-t.root >= b.descriptors, !local && b.tcp > 0 && t.tcp >= b.tcp:
		return false, true
	}
	t.ever++
	t.tally(from, 1)
	return true, false
}

// exit ends what enter began.
func (t *connections) exit(from *portmap.Caller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tally(from, -1)
}

// tally takes note of a connection that comes or goes. The lock is held.
func (t *connections) tally(from *portmap.Caller, change int) {
	t.count += change
	if from.Transport != portmap.Local {
		t.tcp += change
	}
	if isRoot(from) {
		t.root += change
	}
	p := peerOf(from)
	if t.each[p] += change; t.each[p] == 0 {
		delete(t.each, p)
	}
}

// counts returns how many connections are open, and how many were added so far.
func (t *connections) counts() (tcp, local int, ever uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tcp, t.count - t.tcp, t.ever
}
