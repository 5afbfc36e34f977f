package server

import (
	"time"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// slowTime is how long calls that may wait are answered before everybody else has a turn.
const slowTime = time.Millisecond

// tired tells whether calls that may wait have had their time, or one of them still waits. It is false at the end, when
// nobody else comes any more.
func (l *streamLoop) tired() bool {
	return !l.draining && (l.busy > 0 || l.slow && l.server.clock() >= l.now+slowTime)
}

// tired is that of the loop for the goroutine whose shift it is, before a call that may wait.
func (s *shift) tired() bool {
	if s.loop == nil || s.loop.tired() {
		return s.loop != nil
	}
	s.loop.slow = true
	return false
}

// isSlow tells whether the next call of c, which isn't read yet, may wait. It costs a system call.
func (l *streamLoop) isSlow(c *streamConnection) bool {
	const enough = 64
	n, err := sys.PeekNow(c.fd, l.shift.in[:enough])
	return err == nil && n > oncrpc.RecordMarkSize && l.server.config.Portmapper.MayWait(l.shift.in[oncrpc.RecordMarkSize:n])
}

// park lets c wait for its turn among those whose calls may wait. It isn't watched meanwhile.
func (l *streamLoop) park(c *streamConnection) {
	if c.parked {
		return
	}
	c.leave()
	if l.poller.Ignore(c.fd) != nil {
		l.close(c)
		return
	}
	c.parked = true
	l.parked = append(l.parked, c)
}

// slowTurns serves those that are parked, in their order, for a while.
func (l *streamLoop) slowTurns() {
	for range len(l.parked) {
		if l.tired() {
			return
		}
		switch c := l.unpark(); {
		case c == nil:
		case c.in != nil:
			l.answer(c)
		default:
			l.readable(c)
		}
	}
	if len(l.parked) == 0 {
		l.parked = nil
	}
}

// unpark returns the first of those that are parked, watched again, or nil if it is gone.
func (l *streamLoop) unpark() *streamConnection {
	c := l.parked[0]
	l.parked = l.parked[1:]
	if l.table[c.slot] != c || !c.parked {
		return nil
	}
	c.parked = false
	if l.poller.Watch(c.fd, uint64(c.slot), true, false) != nil {
		l.close(c)
		return nil
	}
	if c.keeping != nil {
		c.keeping.halved = false // what is there is reported anew
	}
	return c
}
