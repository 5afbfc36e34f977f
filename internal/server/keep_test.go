package server

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// shelf is a Keeper: it has a descriptor of its own of each connection that it keeps.
type shelf struct {
	t    *testing.T
	full bool // for all but the end

	mu      sync.Mutex
	changed *sync.Cond
	kept    map[syscall.Conn]*os.File
	history []string
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, kept: make(map[syscall.Conn]*os.File)}
	s.changed = sync.NewCond(&s.mu)
	t.Cleanup(func() {
		for _, f := range s.kept {
			f.Close()
		}
	})
	return s
}

func (s *shelf) Keep(c syscall.Conn, _ *portmap.Caller, atEnd bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full && !atEnd {
		return false
	}
	f, err := duplicate(c)
	if err != nil {
		s.t.Error(err)
		return false
	}
	s.kept[c] = f
	s.note("keep")
	return true
}

// duplicate is what a service manager gets.
func duplicate(c syscall.Conn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	copied := -1
	if controlErr := raw.Control(func(fd uintptr) { copied, err = syscall.Dup(int(fd)) }); controlErr != nil {
		return nil, controlErr
	}
	return os.NewFile(uintptr(copied), "kept"), err
}

func (s *shelf) Forget(c syscall.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.kept[c]; f != nil {
		f.Close()
	}
	delete(s.kept, c)
	s.note("forget")
}

func (s *shelf) note(event string) {
	s.history = append(s.history, event)
	s.changed.Broadcast()
}

// await waits for the history to be this.
func (s *shelf) await(want ...string) {
	s.t.Helper()
	late := time.AfterFunc(aWhile, func() { s.changed.Broadcast() })
	defer late.Stop()
	end := time.Now().Add(aWhile)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !slices.Equal(s.history, want) {
		if time.Now().After(end) || len(s.history) > len(want) {
			s.t.Fatalf("%q, want %q", s.history, want)
		}
		s.changed.Wait()
	}
}

// awaitCount waits until so many are kept.
func (s *shelf) awaitCount(want int) {
	s.t.Helper()
	for end := time.Now().Add(aWhile); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.kept)
		s.mu.Unlock()
		if n == want {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d are kept, want %d", n, want)
		}
	}
}

// take returns what is kept as connections, as another process would have it.
func (s *shelf) take() []*sys.Connection {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var conns []*sys.Connection
	for c, f := range s.kept {
		conn, err := sys.NewConnection(f)
		if err != nil {
			s.t.Fatal(err)
		}
		f.Close()
		delete(s.kept, c)
		conns = append(conns, conn)
	}
	return conns
}

// keepers is a Config whose connections are kept, and the shelf.
func keepers(t *testing.T, conns ...*sys.Connection) (Config, *shelf) {
	s := newShelf(t)
	loopback := loopbackIndex(t)
	return Config{
		Portmapper: &fake{}, Keeper: s, Connections: conns, Loopback: func(i uint32) bool { return i == loopback }, KeepAfter: time.Millisecond,
	}, s
}

// asNew takes the deadlines from sockets that the end of a server left there, as they are in another process.
func asNew(sockets ...*sys.Socket) {
	for _, s := range sockets {
		if s.Packet != nil {
			s.Packet.SetReadDeadline(time.Time{})
		}
	}
}

// connect makes a call on a new connection and waits until that is kept.
func (s *shelf) connect(local *sys.Socket) *client {
	s.t.Helper()
	c := dial(s.t, local)
	c.send(record("first"))
	c.expect("re:first")
	s.await("keep")
	return c
}

// TestConnectionsOutliveAServer has two clients, local and over TCP, of a server that ends: what they send then the next
// server answers, on the same connections.
func TestConnectionsOutliveAServer(t *testing.T) {
	local, tcp := listenLocal(t), listenTCP(t)
	c, kept := keepers(t)
	kept.full = true // nothing is kept before the end
	first := start(t, c, local, tcp)
	clients := []*client{dial(t, local), dial(t, tcp)}
	for _, c := range clients {
		c.send(record("a"))
		c.expect("re:a")
	}
	first.stop(t)
	kept.await("keep", "keep")
	for _, c := range clients {
		c.send(slices.Concat(record("b"), record("cc")[:5]))
	}
	c, second := keepers(t, kept.take()...)
	asNew(local, tcp)
	start(t, c, local, tcp)
	for _, c := range clients {
		c.expect("re:b")
		c.send(record("cc")[5:])
		c.expect("re:cc")
	}
	second.mu.Lock()
	defer second.mu.Unlock()
	// Over TCP it was kept for the change alone.
	if len(second.history) == 0 || second.history[0] != "forget" {
		t.Errorf("%q", second.history)
	}
}

// TestRecordThatIsHalfThereWhenAServerEnds is waited for, because its first half is in the server that ends.
func TestRecordThatIsHalfThereWhenAServerEnds(t *testing.T) {
	local := listenLocal(t)
	c, kept := keepers(t)
	kept.full = true
	p := c.Portmapper.(*fake)
	seen := newGate()
	p.observe = seen.observe
	first := start(t, c, local)
	client := dial(t, local)
	client.send(slices.Concat(record("a"), record("bb")[:5]))
	seen.wait(t, "a")
	close(seen.let)
	client.expect("re:a")
	first.cancel()
	first.waitStopping(t)
	client.send(record("bb")[5:])
	client.expect("re:bb")
	first.stop(t)
	kept.await("keep")
	client.send(record("c"))
	c, _ = keepers(t, kept.take()...)
	asNew(local)
	start(t, c, local)
	client.expect("re:c")
}

// TestCallsAreTakenOffAfterTheirReply looks at a kept connection while its call is being answered: if the process died now,
// the call would still be there. Afterwards it isn't.
func TestCallsAreTakenOffAfterTheirReply(t *testing.T) {
	local := listenLocal(t)
	c, kept := keepers(t)
	seen := newGate()
	c.Portmapper.(*fake).observe = func(call []byte, from portmap.Caller) {
		if string(call) != "first" {
			seen.observe(call, from)
		}
	}
	start(t, c, local)
	client := kept.connect(local)
	client.send(record("a", "bb"))
	seen.wait(t, "a")
	if got := kept.peek(); !bytes.Equal(got, record("a", "bb")) {
		t.Errorf("while a call is being answered %q is there, want it and what is behind it", got)
	}
	close(seen.let)
	client.expect("re:a", "re:bb")
	client.send(record("ccc")) // when it is answered, those before it are taken off
	client.expect("re:ccc")
	kept.await("keep")
}

// peek returns what waits in the one connection that is kept.
func (s *shelf) peek() []byte {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.kept {
		return waiting(s.t, c)
	}
	s.t.Fatal("nothing is kept")
	return nil
}

// waiting returns what waits in a connection.
func waiting(t *testing.T, c syscall.Conn) []byte {
	t.Helper()
	b, n := make([]byte, 1000), 0
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n, _, _ = syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return b[:max(n, 0)]
}

// TestHalvesAreLeftThere sends a call in pieces on a connection that is kept: that it is kept doesn't change, and another
// process finds what has come.
func TestHalvesAreLeftThere(t *testing.T) {
	local := listenLocal(t)
	c, kept := keepers(t)
	start(t, c, local)
	client := kept.connect(local)
	call := slices.Concat(fragment(false, "a"), fragment(true, "a"))
	for range 20 {
		for i := range call {
			client.send(call[i : i+1])
			if i%3 == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
		client.expect("re:aa")
	}
	client.send(slices.Concat(record("b"), call[:7]))
	client.expect("re:b")
	for end := time.Now().Add(aWhile); !bytes.Equal(kept.peek(), call[:7]); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is there, want the half of a record", kept.peek())
		}
	}
	kept.await("keep")
	// The other end closes with a half on the way: the connection is closed.
	client.Close()
	kept.await("keep", "forget")
}

// TestNoRecordOnAKeptConnection closes it as it closes others.
func TestNoRecordOnAKeptConnection(t *testing.T) {
	for _, b := range [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0x80, 0, 0xff, 0xff}, fragment(false, "")} {
		local := listenLocal(t)
		c, kept := keepers(t)
		start(t, c, local)
		client := kept.connect(local)
		client.send(slices.Concat(record("a"), b))
		client.expect("re:a")
		client.expectEnd()
		kept.await("keep", "forget")
	}
}

// TestConnectionInAnUncertainStateIsNotKept doesn't read its replies: in the meantime another process couldn't go on.
func TestConnectionInAnUncertainStateIsNotKept(t *testing.T) {
	local := listenLocal(t)
	c, kept := keepers(t)
	start(t, c, local)
	client := kept.connect(local)
	long := strings.Repeat("x", DefaultMaxRecord)
	var calls, want []string
	for range 100 {
		calls, want = append(calls, long), append(want, "re:"+long)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, call := range calls {
			if _, err := client.Write(record(call)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	kept.await("keep", "forget")
	client.expect(want...)
	<-sent
	client.send(record("b"))
	client.expect("re:b")
	kept.awaitCount(1)
	client.Close()
	kept.awaitCount(0)
}

// TestCallThatEndsAProcess is answered by the next one, and if that ends as well it isn't there for a third.
func TestCallThatEndsAProcess(t *testing.T) {
	local := listenLocal(t)
	c, kept := keepers(t)
	seen := newGate()
	c.Portmapper.(*fake).observe = func(call []byte, from portmap.Caller) {
		if string(call) != "first" {
			seen.observe(call, from)
		}
	}
	start(t, c, local) // hangs in the call instead of dying, which the test needs to survive
	client := kept.connect(local)
	client.send(record("evil", "b"))
	seen.wait(t, "evil")
	defer close(seen.let)
	copies := kept.take()
	third, err := duplicate(copies[0])
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	c, _ = keepers(t, copies...)
	again := newGate()
	c.Portmapper.(*fake).observe = again.observe
	start(t, c, listenLocal(t))
	defer close(again.let)
	again.wait(t, "evil")
	if b := waiting(t, third); len(b) != 0 {
		t.Errorf("a third process would meet %q", b)
	}
}

// TestKeptConnectionIsForgottenWithAMistake closes it for the client as well, at once.
func TestKeptConnectionIsForgottenWithAMistake(t *testing.T) {
	local := listenLocal(t)
	c, kept := keepers(t)
	start(t, c, local)
	client := kept.connect(local)
	client.send(record("a", "!bad", "b"))
	client.expect("re:a")
	client.expectEnd()
	kept.await("keep", "forget")
}

// TestOnlyLastingConnectionsAreKept: one that is over soon, or that brought no call, costs the Keeper nothing.
func TestOnlyLastingConnectionsAreKept(t *testing.T) {
	c, kept := keepers(t)
	c.KeepAfter = time.Hour
	r := newStreamRig(t, c, listenLocal(t))
	client := r.dial()
	held := r.table[0]
	later := func(d time.Duration) {
		r.now += d
		r.expire()
	}
	later(time.Hour)
	if held.isKept() || held.list != nil {
		t.Fatal("considered before it made a call")
	}
	r.now = r.server.clock()
	for range 10 { // that it is busy makes no difference
		client.send(record("a"))
		r.step()
		client.expect("re:a")
		if held.isKept() || held.list != &r.lists[local][young] {
			t.Fatal("kept before it has lasted")
		}
	}
	client.send(record("bb")[:5])
	r.step()
	later(time.Hour)
	if held.isKept() || held.list != &r.lists[local][young] {
		t.Error("kept with half of a record here")
	}
	client.send(record("bb")[5:])
	r.step()
	client.expect("re:bb")
	kept.full = true
	later(2 * time.Hour)
	if held.isKept() || held.list != &r.lists[local][young] {
		t.Error("kept where there is no room, or not to be tried again")
	}
	kept.full = false
	later(2 * time.Hour)
	if !held.isKept() || held.list != nil {
		t.Error("not kept when it has lasted")
	}
	kept.await("keep")
}

func TestWholeRecords(t *testing.T) {
	two := slices.Concat(fragment(false, "ab"), fragment(true, "c"), record("dd"))
	for n := range len(two) + 1 {
		want := 0
		switch {
		case n == len(two):
			want = n
		case n >= 11:
			want = 11
		}
		if got, sound := wholeRecords(two[:n], 3); got != want || !sound {
			t.Errorf("of %d octets %d, %v, want %d", n, got, sound, want)
		}
	}
	for _, b := range [][]byte{nil, {0x80, 0, 0, 1}, {0, 0, 0, 3, 1}} {
		if got, sound := wholeRecords(b, 3); got != 0 || !sound {
			t.Errorf("%x: %d, %v", b, got, sound)
		}
	}
	for _, b := range [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff, 1}, fragment(false, ""), slices.Concat(fragment(false, "ab"), fragment(true, "cd"))} {
		if got, sound := wholeRecords(b, 3); got != 0 || sound {
			t.Errorf("%x: %d, %v", b, got, sound)
		}
	}
}

// TestSocketsThatOutliveAServer are left as they are when it ends: what has come waits for the next one.
func TestSocketsThatOutliveAServer(t *testing.T) {
	udp, tcp, local := listenUDP(t, addrPort("127.0.0.1:0")), listenTCP(t), listenLocal(t)
	udp.Activated, tcp.Kept, local.Kept = true, true, true
	sockets := []*sys.Socket{udp, tcp, local}
	start(t, Config{Portmapper: &fake{}}, sockets...).stop(t)
	var clients []*client
	for _, s := range sockets {
		c := dial(t, s)
		if s.Packet != nil {
			c.send([]byte("a"))
		} else {
			c.send(record("a"))
		}
		clients = append(clients, c)
	}
	asNew(sockets...)
	start(t, Config{Portmapper: &fake{}}, sockets...)
	clients[0].expectDatagram("re:a")
	clients[1].expect("re:a")
	clients[2].expect("re:a")
}
