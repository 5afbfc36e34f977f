package server

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// patience is how long one call, or the Keeper, may hold up a streamLoop before another goroutine goes on with it.
const patience = 2 * time.Millisecond

// A shift is one goroutine's time at a streamLoop, and the buffers that it works with.
//
// Nearly everything that the loop does never waits. What may (a SET on a slow disk, a service manager that doesn't read) is
// done in place as well, because nearly always it is over sooner than another goroutine would be there. But a timer runs
// meanwhile, and when that is up another goroutine begins a shift. The one that is late then has no more of the loop than
// the connection that it does this for, and when it is through gives that back and ends.
type shift struct {
	loop   *streamLoop
	in     *[readSize]byte
	out    replies // of a turn
	parts  [][]byte
	gather sys.Gather

	serving *streamConnection // what it is away for
	calling bool              // that is a call of it

	state atomic.Int32
	timer *time.Timer // made when it is first needed
}

// The states of a shift.
const (
	atWork    int32 = iota
	mayBeLate       // may be relieved
	relieved
)

func (l *streamLoop) newShift() *shift {
	return &shift{
		loop: l,
		in:   l.server.inputs.Get().(*[readSize]byte),
		out:  replies{own: make([]byte, 0, 4<<10)},
	}
}

// wait is called before what may take long, for a connection that is away, and done after it. Until over says that the loop
// is still ours, nothing of it may be touched.
func (s *shift) wait() {
	switch {
	case s.state.Load() == relieved:
	case s.loop.late > 0: // something does take long at present
		s.state.Store(relieved)
		go s.loop.relieve()
	case s.timer == nil:
		s.state.Store(mayBeLate)
		s.timer = time.AfterFunc(patience, s.up)
	default:
		s.state.Store(mayBeLate)
		s.timer.Reset(patience)
	}
}

// caller returns from, who has its turn, with the uid that a call which registers needs.
func (s *shift) caller(from *portmap.Caller) *portmap.Caller {
	if s.serving == nil {
		return from
	}
	return s.serving.owned(from, s.loop.server.config.Owner)
}

func (s *shift) done() {
	if s.state.CompareAndSwap(mayBeLate, atWork) {
		s.timer.Stop()
	}
}

// over tells whether another goroutine has the loop now.
func (s *shift) over() bool { return s.state.Load() == relieved }

// up is called when the time is up.
func (s *shift) up() {
	if s.state.CompareAndSwap(mayBeLate, relieved) {
		s.loop.relieve()
	}
}

// relieve goes on with the loop, in a goroutine of its own.
func (l *streamLoop) relieve() {
	l.late++
	if l.shift.calling {
		l.busy++ // one such call at a time, see tired
	}
	l.shift.serving.leave() // it isn't to be closed meanwhile
	l.shift = l.newShift()
	// The shift that is late may have been woken for what it won't come to do: to take back from others, to end.
	l.poller.Wake()
	l.run()
}

// quit is called by a goroutine whose shift is over, and ends it. What is left to be done is done by the one that has the
// loop now.
func (l *streamLoop) quit(next func()) {
	l.mu.Lock()
	l.through = append(l.through, next)
	l.mu.Unlock()
	l.poller.Wake()
	runtime.Goexit()
}

// takeBack does what those that were late have left to be done.
func (l *streamLoop) takeBack() {
	for l.late > 0 {
		l.mu.Lock()
		if len(l.through) == 0 {
			l.mu.Unlock()
			return
		}
		next := l.through[0]
		l.through = l.through[1:] // the rest is for the next shift if this one is late as well
		l.mu.Unlock()
		l.late--
		next()
	}
}

// slowly does for c what may take long, and then next, which may use the loop.
func (l *streamLoop) slowly(c *streamConnection, do, next func()) {
	s := l.shift
	s.serving, s.calling, c.away = c, false, true
	s.wait()
	do()
	s.done()
	if s.over() {
		l.quit(func() { l.retire(s, c); next() })
	}
	c.away = false
	next()
}

// retire ends what there was of a shift that was over, and has c again.
func (l *streamLoop) retire(s *shift, c *streamConnection) {
	if s.in != nil {
		l.server.inputs.Put(s.in)
		s.in = nil
	}
	c.away = false
	if c.ignored {
		c.ignored = false
		// If that fails nothing is heard of it any more until its time is over.
		_ = l.poller.Watch(c.fd, uint64(c.slot), c.unsent == nil, c.unsent != nil)
	}
}
