package server

import (
	"sync"
	"time"
)

// connections is the table of what is open.
type connections struct {
	freed chan struct{} // brings something after a connection has closed, if somebody waits
	done  sync.WaitGroup

	mu   sync.Mutex
	all  map[*connection]struct{}
	tcp  int       // how many of all are not local
	ever uint64    // how many there were
	end  time.Time // zero until stop
}

func (t *connections) init() {
	t.freed = make(chan struct{}, 1)
	t.all = make(map[*connection]struct{})
}

// add puts c into the table. If that holds limit TCP connections already, the idlest is closed for it.
func (t *connections) add(c *connection, limit int) {
	t.done.Add(1)
	t.mu.Lock()
	var idlest *connection
	if !c.local && t.tcp >= limit {
		idlest = t.takeIdlest()
	}
	t.all[c] = struct{}{}
	t.ever++
	if !c.local {
		t.tcp++
	}
	end := t.end
	t.mu.Unlock()
	if idlest != nil {
		_ = idlest.conn.Close()
	}
	if !end.IsZero() {
		c.stop(end)
	}
}

// remove takes c, which is closed, out of the table.
func (t *connections) remove(c *connection) {
	t.mu.Lock()
	t.forget(c)
	t.mu.Unlock()
	select {
	case t.freed <- struct{}{}:
	default:
	}
	t.done.Done()
}

// forget takes c out of the table if it is there. The lock is held.
func (t *connections) forget(c *connection) {
	if _, ok := t.all[c]; !ok {
		return
	}
	delete(t.all, c)
	if !c.local {
		t.tcp--
	}
}

// takeIdlest takes the TCP connection that brought nothing for the longest time out of the table, to be closed; nil if
// there is none. Local connections are left alone: the kernel keeps one open for good, and doesn't notice for long that
// it was closed. The lock is held.
func (t *connections) takeIdlest() *connection {
	var idlest *connection
	for c := range t.all {
		if !c.local && (idlest == nil || c.active.Load() < idlest.active.Load()) {
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
	idlest := t.takeIdlest()
	t.mu.Unlock()
	if idlest == nil {
		return false
	}
	_ = idlest.conn.Close()
	return true
}

// count returns the number of connections, local ones included.
func (t *connections) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}

// counts returns how many connections are open, and how many were added so far.
func (t *connections) counts() (tcp, local int, ever uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tcp, len(t.all) - t.tcp, t.ever
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
