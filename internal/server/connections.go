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
	own   int // how many of these are of this host
	root  int // how many are root's, by the local socket
	each  map[peer]int
	ever  uint64 // how many there were
}

func (t *connections) init() { t.each = make(map[peer]int) }

// A peer is whom connections are counted for: an address or network of another host, or a user of this one.
type peer struct {
	addr netip.Addr
	kind peerKind
	uid  uint32
}

type peerKind uint8

const (
	ofNetwork peerKind = iota // an IPv4 address, or the first of a /56 of IPv6: a host has as many of these as it likes
	ofUser
	ofUnknown // users of this host of whom the kernel tells nothing
	ofAny     // this host over TCP, as long as it has few connections
)

// networkBits is the size of an IPv6 network that counts as one, as it does for the rate of answers.
const networkBits = 56

// peerOf returns whom a connection is counted for, but for one of this host over TCP.
func peerOf(from *portmap.Caller) peer {
	switch {
	case from.Transport == portmap.Local && from.HasUID:
		return peer{kind: ofUser, uid: from.UID}
	case from.Transport == portmap.Local:
		return peer{kind: ofUnknown}
	}
	addr := from.Remote.Addr().Unmap()
	if addr.Is6() {
		network, _ := addr.Prefix(networkBits) // that many bits every IPv6 address has
		addr = network.Addr()
	}
	return peer{addr: addr}
}

// ownPeer is peerOf for a connection of this host over TCP. Its user is asked for once there are as many such connections as one
// user may have; root has no bound.
func (s *Server) ownPeer(fd int, from *portmap.Caller, each int) peer {
	if each == 0 || s.config.Owner == nil || s.connections.ownCount() < each {
		return peer{kind: ofAny}
	}
	uid, ok := s.config.Owner(fd, from.Remote, from.Local)
	switch {
	case !ok:
		return peer{kind: ofUnknown}
	case uid == 0:
		return peer{kind: ofAny}
	}
	return peer{kind: ofUser, uid: uid}
}

// isRoot tells whether a connection is root's by the local socket: the kernel's, most often.
func isRoot(from *portmap.Caller) bool {
	return from.Transport == portmap.Local && from.HasUID && from.UID == 0
}

// bounds are what a table of connections holds at most; 0 is no bound.
type bounds struct {
	tcp         int // TCP connections; a quarter of them only other hosts may have
	each        int // connections of one peer
	descriptors int // connections in all, without those of root by the local socket; again a quarter for other hosts
}

// shared is the part of n that this host may use up.
func shared(n int) int { return n - n/4 }

// entry is what becomes of a new connection.
type entry uint8

const (
	entered entry = iota
	refused       // its peer has too many
	fullOwn       // there is a place once a TCP connection of this host is closed
	fullTCP       // there is a place once any TCP connection is closed
)

// enter counts a connection, if there is a place for it.
func (t *connections) enter(from *portmap.Caller, p peer, b bounds) entry {
	local := from.Transport == portmap.Local
	ours := local || from.Loopback
	t.mu.Lock()
	defer t.mu.Unlock()
	locals := t.count - t.tcp - t.root
	switch {
	case isRoot(from):
	case b.each > 0 && p.kind != ofAny && t.each[p] >= b.each:
		return refused
	case ours && b.descriptors > 0 && locals+t.own >= shared(b.descriptors), ours && !local && b.tcp > 0 && t.own >= shared(b.tcp):
		return fullOwn
	case b.descriptors > 0 && t.count-t.root >= b.descriptors, !local && b.tcp > 0 && t.tcp >= b.tcp:
		return fullTCP
	}
	t.ever++
	t.tally(from, p, 1)
	return entered
}

// exit ends what enter began.
func (t *connections) exit(from *portmap.Caller, p peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tally(from, p, -1)
}

// tally takes note of a connection that comes or goes. The lock is held.
func (t *connections) tally(from *portmap.Caller, p peer, change int) {
	t.count += change
	if from.Transport != portmap.Local {
		t.tcp += change
		if from.Loopback {
			t.own += change
		}
	}
	if isRoot(from) {
		t.root += change
	}
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

// ownCount returns how many TCP connections of this host are open.
func (t *connections) ownCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.own
}
