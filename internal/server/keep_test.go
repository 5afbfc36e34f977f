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
	return Config{Portmapper: &fake{}, Keeper: s, Connections: conns, Loopback: func(i uint32) bool { return i == loopback }}, s
}

// asNew takes the deadlines from sockets that the end of a server left there, as they are in another process.
func asNew(sockets ...*sys.Socket) {
	for _, s := range sockets {
		if s.Packet != nil {
			s.Packet.SetReadDeadline(time.Time{})
		}
	}
}

// rootOnly skips a test in which connections are to be kept at once.
func rootOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root's connections are kept at once")
	}
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
	rootOnly(t)
	local := listenLocal(t)
	c, kept := keepers(t)
	seen := newGate()
	c.Portmapper.(*fake).observe = seen.observe
	start(t, c, local)
	client := dial(t, local)
	kept.await("keep")
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

// TestConnectionInAnUncertainStateIsNotKept sends half a record, and then doesn't read its replies: in the meantime another
// process couldn't go on.
func TestConnectionInAnUncertainStateIsNotKept(t *testing.T) {
	rootOnly(t)
	local := listenLocal(t)
	c, kept := keepers(t)
	start(t, c, local)
	client := dial(t, local)
	kept.await("keep")
	client.send(record("aa")[:5])
	kept.await("keep", "forget")
	client.send(record("aa")[5:])
	client.expect("re:aa")
	kept.await("keep", "forget", "keep")
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
	kept.await("keep", "forget", "keep", "forget")
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
	rootOnly(t)
	local := listenLocal(t)
	c, kept := keepers(t)
	seen := newGate()
	c.Portmapper.(*fake).observe = seen.observe
	start(t, c, local) // hangs in the call instead of dying, which the test needs to survive
	client := dial(t, local)
	kept.await("keep")
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
	rootOnly(t)
	local := listenLocal(t)
	c, kept := keepers(t)
	start(t, c, local)
	client := dial(t, local)
	kept.await("keep")
	client.send(record("a", "!bad", "b"))
	client.expect("re:a")
	client.expectEnd()
	kept.await("keep", "forget")
}

// TestLastingConnections is about those of other users, which the test's own is made to be by what the server believes.
func TestLastingConnections(t *testing.T) {
	c, kept := keepers(t)
	c.Keeper = nil // for now
	r := newStreamRig(t, c, listenLocal(t))
	client := r.dial()
	r.server.config.Keeper = kept
	held := r.table[0]
	held.stream.from.UID = 1000
	r.consider(held)
	if held.isKept() || held.list != &r.lists[local][young] {
		t.Fatal("kept at once, or not considered")
	}
	client.send(record("a"))
	r.step()
	client.expect("re:a")
	if held.isKept() || held.list != &r.lists[local][young] {
		t.Fatal("kept before it has lasted")
	}
	r.now += lasting
	r.expire()
	if !held.isKept() || held.list != nil {
		t.Error("not kept when it has lasted")
	}
	kept.await("keep")
	kept.full = true
	r.forget(held, func() {})
	r.keep(held)
	if held.isKept() || held.keeping.lasts {
		t.Error("kept where there is no room")
	}
	client.send(record("b"))
	r.step()
	client.expect("re:b")
	if held.list != nil {
		t.Error("it is tried again")
	}
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
		if got := wholeRecords(two[:n]); got != want {
			t.Errorf("of %d octets %d, want %d", n, got, want)
		}
	}
	for _, b := range [][]byte{nil, {0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff, 1}, fragment(false, "")} {
		if got := wholeRecords(b); got != 0 {
			t.Errorf("%x: %d", b, got)
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
