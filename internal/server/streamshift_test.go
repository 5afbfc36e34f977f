package server

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// slowly is a portmapper whose calls "slow" wait for a signal each, as for a disk.
type slowly struct {
	fake
	begun chan struct{}
	let   chan struct{}
}

func newSlowly() *slowly { return &slowly{begun: make(chan struct{}, 1000), let: make(chan struct{})} }

func (p *slowly) MayWait(call []byte) bool { return string(call) == "slow" || string(call) == "quick" }

func (p *slowly) AppendReplyAround(dst, call []byte, from portmap.Caller) ([]byte, int, [][]byte) {
	if string(call) == "slow" {
		p.begun <- struct{}{}
		<-p.let
	}
	return p.fake.AppendReplyAround(dst, call, from)
}

// TestSlowCallsHinderNobody has many clients that make calls which wait. Others are answered meanwhile. Such calls are made one at a
// time, and everybody gets his replies, in order, with what came behind.
func TestSlowCallsHinderNobody(t *testing.T) {
	p := newSlowly()
	tcp, local := listenTCP(t), listenLocal(t)
	running := start(t, Config{Portmapper: p}, tcp, local)
	var slow []*client
	for i := range 20 {
		s := tcp
		if i%2 == 1 {
			s = local
		}
		c := dial(t, s)
		c.send(record("a", "slow", "b"))
		if i == 0 {
			<-p.begun
		}
		c.send(record("c", "slow", "d")) // it isn't read yet
		slow = append(slow, c)
		other := dial(t, s)
		other.send(record("1", "2"))
		other.expect("re:1", "re:2")
		other.Close()
	}
	quick := dial(t, tcp)
	quick.send(record("quick"))
	if n := len(p.begun); n > 0 {
		t.Errorf("%d calls that wait are made beside the first", n)
	}
	gone := slow[0]
	gone.Close()
	close(p.let)
	quick.expect("re:quick")
	quick.Close()
	for _, c := range slow[1:] {
		c.expect("re:a", "re:slow", "re:b", "re:c", "re:slow", "re:d")
	}
	other := dial(t, tcp)
	other.send(record("e"))
	other.expect("re:e")
	for end := time.Now().Add(aWhile); ; time.Sleep(time.Millisecond) {
		if tcp, local, _ := running.Connections(); tcp+local == len(slow) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the connection of a client that is gone stays open")
		}
	}
	running.stop(t)
}

// TestSlowCallOutlastsTheTimes: a connection isn't idle, nor one to be closed for another, while its call is being answered.
func TestSlowCallOutlastsTheTimes(t *testing.T) {
	p := newSlowly()
	tcp := listenTCP(t)
	const short = 10 * time.Millisecond
	start(t, Config{Portmapper: p, IdleTimeout: short, RecordTimeout: short, MaxConnections: 2}, tcp)
	c := dial(t, tcp)
	c.send(append(record("a", "slow"), 0x80, 0))
	<-p.begun
	for range 4 { // idle ones are closed for each other, or in time
		dial(t, tcp).expectEnd()
	}
	time.Sleep(2 * short)
	close(p.let)
	c.expect("re:a", "re:slow")
	c.expectEnd() // in the middle of a record
}

// TestSlowCallAtTheEnd is waited for when Serve ends, and its goroutine as well.
func TestSlowCallAtTheEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newSlowly()
	local := listenLocal(t)
	running := start(t, Config{Portmapper: p}, local)
	c, other := dial(t, local), dial(t, local)
	c.send(record("slow"))
	<-p.begun
	running.cancel()
	running.waitStopping(t)
	other.expectEnd()
	close(p.let)
	c.expect("re:slow")
	c.expectEnd()
	running.stop(t)
	for end := time.Now().Add(aWhile); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
		}
	}
}

// slowShelf is a Keeper that takes its time.
type slowShelf struct {
	*shelf
	let   chan struct{}
	calls atomic.Int32
}

func (s *slowShelf) Keep(c syscall.Conn, from *portmap.Caller, atEnd bool) bool {
	if !atEnd {
		s.calls.Add(1)
		<-s.let
	}
	return s.shelf.Keep(c, from, atEnd)
}

func (s *slowShelf) Forget(c syscall.Conn) {
	s.calls.Add(1)
	<-s.let
	s.shelf.Forget(c)
}

// TestSlowKeeperHindersNobody: a service manager that doesn't read.
func TestSlowKeeperHindersNobody(t *testing.T) {
	local, tcp := listenLocal(t), listenTCP(t)
	c, kept := keepers(t)
	slow := &slowShelf{shelf: kept, let: make(chan struct{})}
	c.Keeper = slow
	start(t, c, local, tcp)
	var clients []*client
	for i := range 10 {
		l, o := dial(t, local), dial(t, tcp)
		l.send(record("first"))
		l.expect("re:first")
		for slow.calls.Load() <= int32(i) {
			time.Sleep(time.Millisecond)
		}
		l.send(record(fmt.Sprint(i))) // while it is being kept
		clients = append(clients, l)
		o.send(record("a"))
		o.expect("re:a")
	}
	close(slow.let)
	for i, c := range clients {
		c.expect(fmt.Sprint("re:", i))
	}
	kept.awaitCount(len(clients))
	for i, c := range clients {
		if i%2 == 0 {
			c.Close()
		}
	}
	kept.awaitCount(len(clients) / 2)
}

// TestQuickAndSlowCallsMixed lets calls wait about as long as the patience of the loop, so that shifts end while they return.
func TestQuickAndSlowCallsMixed(t *testing.T) {
	p := newSlowly()
	var n atomic.Int64
	p.observe = func(call []byte, _ portmap.Caller) {
		if string(call) == "quick" {
			time.Sleep(patience - 300*time.Microsecond + time.Duration(n.Add(1)%7)*100*time.Microsecond)
		}
	}
	tcp, local := listenTCP(t), listenLocal(t)
	start(t, Config{Portmapper: p}, tcp, local)
	calls := slices.Repeat([]string{"a", "quick", "b"}, 10)
	var want []string
	for _, c := range calls {
		want = append(want, "re:"+c)
	}
	var all sync.WaitGroup
	for i := range 8 {
		s := tcp
		if i%2 == 1 {
			s = local
		}
		c := dial(t, s)
		all.Go(func() {
			for range 3 {
				if _, err := c.Write(record(calls...)); err != nil {
					t.Error(err)
					return
				}
				c.expect(want...)
			}
		})
	}
	all.Wait()
}

// A call that may wait and doesn't costs no goroutine and no memory.
func TestQuickCallsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: .ci/unit runs this without it as well")
	}
	r := newStreamRig(t, Config{Portmapper: newSlowly()}, listenLocal(t))
	c, calls := r.dial(), record("quick", "a")
	replies := make([]byte, len(calls)+6)
	first := r.shift
	if got := testing.AllocsPerRun(200, func() { r.exchange(c, calls, replies) }); got != 0 && r.shift == first {
		t.Errorf("%v allocations, want 0", got)
	}
}

// TestEndIsNotLostWithALateShift: what a shift was woken for, and didn't come to because a call took long, the next one does.
func TestEndIsNotLostWithALateShift(t *testing.T) {
	p := newSlowly()
	local := listenLocal(t)
	s := New(Config{Portmapper: p})
	l, err := newStreamLoop(s, []*sys.Socket{local})
	if err != nil {
		t.Fatal(err)
	}
	c, other := dial(t, local), dial(t, local)
	for l.open < 2 {
		if err := l.once(); err != nil {
			t.Fatal(err)
		}
	}
	c.send(record("slow"))
	l.stop(time.Now().Add(aWhile))
	go func() { l.failed = l.once() }() // the call and the end at once
	<-p.begun
	other.expectEnd()
	close(p.let)
	c.expect("re:slow")
	<-l.ended
}
