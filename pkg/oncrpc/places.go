package oncrpc

import (
	"net"
	"os"
	"time"
)

// enter waits for a place for a connection, which one that waits for a call makes; false, and the connection is closed, if
// the Server ends. Without that, whoever opens [Server.MaxConnections] connections and says nothing would keep everybody
// out.
func (s *Server) enter(st *state, conn net.Conn) bool {
	var pause pause
	for {
		select {
		case st.places <- struct{}{}:
			return true
		default:
		}
		s.makeRoom()
		t := time.NewTimer(pause.longer()) // after that another may have ended its call
		select {
		case st.places <- struct{}{}:
			t.Stop()
			return true
		case <-st.end:
			t.Stop()
			_ = conn.Close()
			return false
		case <-t.C:
		}
	}
}

// makeRoom makes the connection that has waited longest for a whole call end, unless a call is carried out on each.
func (s *Server) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var idlest *connection
	var since time.Time
	for what := range s.serving {
		c, ok := what.(*connection)
		if !ok {
			continue
		}
		if t, idle := c.idleSince(); idle && (idlest == nil || t.Before(since)) {
			idlest, since = c, t
		}
	}
	if idlest != nil {
		idlest.giveWay()
	}
}

// idleSince tells since when a connection has waited for a whole call; false if one is carried out, or if it gives way
// already. A reply that the client doesn't take is none of these.
func (c *connection) idleSince() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle, c.running == 0 && !c.gone
}

// giveWay makes a connection end at once, without answering what may come.
func (c *connection) giveWay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running > 0 {
		return // a call has come meanwhile
	}
	c.gone = true
	if c.conn.SetDeadline(time.Unix(1, 0)) != nil {
		_ = c.conn.Close() // there is no gentler way
	}
}

// beginCall takes note that a call is carried out; the error is that the connection gives way to another.
func (c *connection) beginCall() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return os.ErrDeadlineExceeded
	}
	c.running++
	return nil
}

func (c *connection) endCall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.idle = time.Now()
}
