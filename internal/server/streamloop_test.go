package server

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// streamRig is a streamLoop that a test drives itself, with clients.
type streamRig struct {
	*streamLoop
	t      testing.TB
	socket *sys.Socket
}

func newStreamRig(t testing.TB, c Config, socket *sys.Socket) *streamRig {
	t.Helper()
	s := New(c)
	l, err := newStreamLoop(s, []*sys.Socket{socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range l.table {
			if c != nil {
				l.abandon(c)
			}
		}
		l.release()
	})
	return &streamRig{l, t, socket}
}

// step is once, which has to find something to do.
func (r *streamRig) step() {
	r.t.Helper()
	if err := r.once(); err != nil {
		r.t.Fatal(err)
	}
}

// dial makes a connection that the loop has taken.
func (r *streamRig) dial() *client {
	r.t.Helper()
	before := r.open
	c := dial(r.t, r.socket)
	for r.open == before {
		r.step()
	}
	return c
}

// An idle connection is its entry in the table and nothing else.
func TestIdleConnectionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(streamConnection{}); size > 512 {
		t.Errorf("a connection has %d octets", size)
	}
	r := newStreamRig(t, Config{Portmapper: &fake{}}, listenTCP(t))
	c := r.dial()
	c.send(record("a"))
	r.step()
	c.expect("re:a")
	for _, held := range r.table {
		if held.in != nil || held.unsent != nil || held.list != &r.lists[foreign][idle] {
			t.Errorf("an idle connection holds buffers, or isn't in the list of idle ones: %+v", held)
		}
	}
}

func TestStreamLoopAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: .ci/unit runs this without it as well")
	}
	r := newStreamRig(t, Config{Portmapper: &fake{}}, listenTCP(t))
	c := r.dial()
	call, buf := record(strings.Repeat("x", 56)), make([]byte, 1000)
	got := testing.AllocsPerRun(200, func() {
		if _, err := c.Write(call); err != nil {
			t.Fatal(err)
		}
		r.step()
		if n, err := c.Read(buf); err != nil || n != len(call)+3 {
			t.Fatalf("reply of %d octets, %v", n, err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations a call, want 0", got)
	}
}

// However many calls with large replies a client has sent, others are served after one flush.
func TestTurnsAreShort(t *testing.T) {
	answered := 0
	big := portmapperFunc(func(dst, call []byte, _ portmap.Caller) []byte {
		if string(call) == "big" {
			answered++
			return append(dst, make([]byte, 20<<10)...)
		}
		return append(dst, call...)
	})
	r := newStreamRig(t, Config{Portmapper: big}, listenTCP(t))
	greedy, other := r.dial(), r.dial()
	greedy.send(record(strings.Split(strings.Repeat("big,", 200)+"big", ",")...))
	r.step()
	most := 2 * (flushSize/(20<<10) + 1) // as what came, and as what was left
	if answered == 0 || answered > most {
		t.Errorf("%d replies before others are served, want at most %d", answered, most)
	}
	answered = 0
	other.send(record("a"))
	r.step()
	other.expect("a")
	if answered > most {
		t.Errorf("%d replies to the greedy client before the other's", answered)
	}
}

// A client that reads late gets every reply, in order; until it reads, nothing more of it is read, and little is held.
func TestLateReader(t *testing.T) {
	const calls = 600
	reply := strings.Repeat("r", 10<<10)
	number := portmapperFunc(func(dst, call []byte, _ portmap.Caller) []byte {
		return append(append(dst, call...), reply...)
	})
	r := newStreamRig(t, Config{Portmapper: number}, listenTCP(t))
	c := r.dial()
	var all, want []string
	for i := range calls {
		all = append(all, fmt.Sprintf("%04d", i))
		want = append(want, fmt.Sprintf("%04d", i)+reply)
	}
	c.send(record(all...))
	for r.lists[foreign][blocked].first == nil {
		r.step()
	}
	held := r.lists[foreign][blocked].first
	if n := held.unsent.size; n > flushSize+2*len(reply) {
		t.Errorf("%d octets of replies are held", n)
	}
	r.readable(held) // it doesn't
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.expect(want...)
	}()
	for len(r.ready) > 0 || r.lists[foreign][idle].first == nil {
		r.step()
	}
	<-done
	if held.in != nil || held.unsent != nil {
		t.Error("buffers are held although everything was sent")
	}
}

// The idlest of all is closed first, whatever it waits for.
func TestCloseOne(t *testing.T) {
	r := newStreamRig(t, Config{Portmapper: &fake{}}, listenTCP(t))
	if r.closeOne(false, true) {
		t.Error("a connection of nobody was closed")
	}
	first, half, last := r.dial(), r.dial(), r.dial()
	half.send(record("abc")[:5])
	r.step()
	first.send(record("a"))
	r.step()
	first.expect("re:a")
	for i, c := range []*client{last, half, first} {
		if !r.closeOne(false, true) {
			t.Fatalf("number %d isn't closed", i)
		}
		c.expectEnd()
	}
}

// A burst of new connections is taken, and those that are open are served between.
func TestManyNewConnections(t *testing.T) {
	tcp := listenTCP(t)
	running := start(t, Config{Portmapper: &fake{}}, tcp)
	var all []*client
	for range 3 * acceptsAtOnce {
		all = append(all, dial(t, tcp))
	}
	for i, c := range all {
		c.send(record(fmt.Sprint(i)))
	}
	for i, c := range all {
		c.expect(fmt.Sprint("re:", i))
	}
	if n, _, ever := running.Connections(); n != len(all) || ever != uint64(len(all)) {
		t.Errorf("%d connections, %d ever; want %d", n, ever, len(all))
	}
}

// Each list closes its first when its time is over; the others wait for theirs.
func TestStreamLists(t *testing.T) {
	list := &streamList{limit: time.Minute}
	other := &streamList{limit: time.Second}
	if _, ok := list.due(); ok {
		t.Error("an empty list is due")
	}
	a, b, c := &streamConnection{}, &streamConnection{}, &streamConnection{}
	for i, each := range []*streamConnection{a, b, c} {
		list.add(each, time.Duration(i))
	}
	other.add(b, 7)
	list.add(a, 9) // to its end
	var order []*streamConnection
	for e := list.first; e != nil; e = e.next {
		order = append(order, e)
	}
	if len(order) != 2 || order[0] != c || order[1] != a || list.last != a || c.before != nil {
		t.Errorf("the list is %v", order)
	}
	if due, ok := list.due(); !ok || due != 2+time.Minute {
		t.Errorf("due at %v, %v", due, ok)
	}
	if due, _ := other.due(); due != 7+time.Second {
		t.Errorf("the other is due at %v", due)
	}
	for _, each := range []*streamConnection{a, b, c, c} {
		each.leave()
	}
	if list.first != nil || list.last != nil || other.first != nil || other.last != nil {
		t.Error("something is left")
	}
}

// Replies to calls in one segment leave together.
func TestStreamLoopAnswersByOneWrite(t *testing.T) {
	r := newStreamRig(t, Config{Portmapper: &fake{}}, listenTCP(t))
	c := r.dial()
	c.send(record("a", "b", "c"))
	r.step()
	buf := make([]byte, 1000)
	if n, err := c.Read(buf); err != nil || n != len(record("re:a", "re:b", "re:c")) {
		t.Errorf("%d octets, %v", n, err)
	}
}

// A client with many calls in flight gets the replies to the first ones at once, and is looked for before the loop sleeps; in
// vain not many times in a row.
func TestManyCallsInFlight(t *testing.T) {
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		r := newStreamRig(t, Config{Portmapper: &fake{}}, s)
		c := r.dial()
		calls := slices.Repeat([]string{strings.Repeat("c", 56)}, 64)
		size := len(calls) * (4 + 3 + 56)
		buf := make([]byte, size)
		c.send(record(calls...))
		r.step()
		if n, err := c.Read(buf[:size/2]); err != nil || s.Path != "" && n != size/2 {
			t.Errorf("%d octets, %v", n, err)
		} else if _, err := io.ReadFull(c, buf[n:]); err != nil {
			t.Error(err)
		}
		if !r.many {
			t.Error("nothing is expected to come")
		}
		time.AfterFunc(20*time.Millisecond, r.poller.Wake)
		r.step() // looks in vain, and then waits for the wake-up
		if r.many || r.pass != 1 {
			t.Errorf("many %v, pass %d, want 1", r.many, r.pass)
		}
		for i := range 3 {
			r.exchange(c, record(calls...), buf)
			if want := max(1-i, 0); r.pass != want {
				t.Errorf("pass %d, want %d", r.pass, want)
			}
		}
		r.many, r.pass, r.passes = true, 0, mostPasses
		time.AfterFunc(20*time.Millisecond, r.poller.Wake)
		r.step()
		if r.pass != mostPasses {
			t.Errorf("pass %d, want %d", r.pass, mostPasses)
		}
		c.send(record("a"))
		r.step()
		c.expect("re:a")
		if r.many {
			t.Error("one call is many")
		}
	})
}

func BenchmarkStreamLoop(b *testing.B) {
	r := newStreamRig(b, Config{Portmapper: &fake{}}, listenTCP(b))
	c := r.dial()
	call, buf := record(strings.Repeat("x", 56)), make([]byte, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := net.Conn(c).Write(call); err != nil {
			b.Fatal(err)
		}
		r.step()
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// One peer has no more connections than it may, and gets others when it has closed some.
func TestStreamsOfOnePeer(t *testing.T) {
	var log logged
	tcp := listenTCP(t)
	running := start(t, Config{Portmapper: &fake{}, MaxConnectionsEach: 2, Log: log.logger()}, tcp)
	call := func(c *client) {
		t.Helper()
		c.send(record("a"))
		c.expect("re:a")
	}
	first, second := dial(t, tcp), dial(t, tcp)
	call(first)
	call(second)
	for range 3 {
		dial(t, tcp).expectEnd()
	}
	call(first)
	if n := log.count("was refused"); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
	second.Close()
	for {
		if n, _, _ := running.Connections(); n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	call(dial(t, tcp))
}

// The bound of descriptors is one for TCP and local connections together: a local caller takes the place of the idlest.
func TestStreamsAndLocalConnectionsTogether(t *testing.T) {
	tcp, local := listenTCP(t), listenLocal(t)
	start(t, Config{Portmapper: &fake{}, Descriptors: 2, Loopback: func(uint32) bool { return true }}, tcp, local)
	call := func(c *client) {
		t.Helper()
		c.send(record("a"))
		c.expect("re:a")
	}
	first, second := dial(t, tcp), dial(t, tcp)
	call(first)
	call(second)
	call(first)
	// Root's local connections have places of their own.
	l := dial(t, local)
	call(l)
	if os.Geteuid() != 0 {
		second.expectEnd()
	} else {
		call(second)
	}
	call(first)
}
