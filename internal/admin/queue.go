package admin

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// A queue holds the connections of one listener, oldest first, maxAsking at most. For one more the oldest that hasn't asked
// yet is closed, of the host that has the most: who asks at once is answered, however many are silent.
type queue struct {
	mu    sync.Mutex
	conns []*asker
}

// An asker is a connection, and whether its request has come.
type asker struct {
	net.Conn
	host  netip.Addr // invalid on a local socket
	asked bool
}

func newAsker(c net.Conn) *asker {
	a := &asker{Conn: c}
	if t, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		a.host = t.AddrPort().Addr().Unmap().WithZone("")
	}
	return a
}

func (q *queue) enter(a *asker) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.conns) >= maxAsking {
		i := q.victim()
		_ = q.conns[i].Close()
		q.conns = slices.Delete(q.conns, i, i+1)
	}
	q.conns = append(q.conns, a)
}

// victim returns the index of the connection to close for another one. The lock is held.
func (q *queue) victim() int {
	silent := make(map[netip.Addr]int)
	most := 0
	for _, a := range q.conns {
		if !a.asked {
			silent[a.host]++
			most = max(most, silent[a.host])
		}
	}
	return max(0, slices.IndexFunc(q.conns, func(a *asker) bool { return !a.asked && silent[a.host] == most }))
}

// asked notes that the request of a has come.
func (q *queue) asked(a *asker) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.asked = true
}

func (q *queue) leave(a *asker) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.conns, a); i >= 0 {
		q.conns = slices.Delete(q.conns, i, i+1)
	}
}
