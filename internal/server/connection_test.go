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

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// eachStream runs a test on a TCP and on a local socket.
func eachStream(t *testing.T, test func(t *testing.T, s *sys.Socket)) {
	t.Run("tcp", func(t *testing.T) { test(t, listenTCP(t)) })
	t.Run("local", func(t *testing.T) { test(t, listenLocal(t)) })
}

func TestConnectionAnswersInOrder(t *testing.T) {
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		start(t, Config{Portmapper: &fake{}}, s)
		c := dial(t, s)
		c.send(record("a", "b", "c"))
		c.expect("re:a", "re:b", "re:c")
		var calls, replies []string
		for i := range 2000 {
			calls = append(calls, fmt.Sprint("call ", i))
			replies = append(replies, fmt.Sprint("re:call ", i))
		}
		go c.Write(record(calls...)) // an error of it makes expect fail
		c.expect(replies...)
	})
}

func TestConnectionAnySegmentation(t *testing.T) {
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		start(t, Config{Portmapper: &fake{}}, s)
		in := slices.Concat(fragment(false, "ab"), fragment(false, "c"), fragment(true, "d"), record("e", "f"))
		c := dial(t, s)
		for _, octet := range in {
			c.send([]byte{octet})
		}
		c.expect("re:abcd", "re:e", "re:f")
	})
}

func TestConnectionHalfClosed(t *testing.T) {
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		g := newGate()
		start(t, Config{Portmapper: &fake{observe: g.observe}}, s)
		c := dial(t, s)
		c.send(record("a", "b"))
		g.wait(t, "a")
		c.send(append(record("c"), 0x80, 0)) // the last record never becomes whole
		if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		close(g.let)
		c.expect("re:a", "re:b", "re:c")
		c.expectEnd()
	})
}

// What came before a mistake is answered, and not lost to a reset although more is sent after it.
func TestConnectionClosesAfterAMistake(t *testing.T) {
	for name, bad := range map[string][]byte{
		"no call":         record("!"),
		"too long":        fragment(true, strings.Repeat("x", DefaultMaxRecord+1)),
		"empty fragment":  fragment(false, ""),
		"endless lengths": {0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			eachStream(t, func(t *testing.T, s *sys.Socket) {
				start(t, Config{Portmapper: &fake{}}, s)
				c := dial(t, s)
				c.send(slices.Concat(record("a", "b"), bad, make([]byte, 100<<10)))
				c.expect("re:a", "re:b")
				c.expectEnd()
			})
		})
	}
}

func TestHalfARecordStallsNobody(t *testing.T) {
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		start(t, Config{Portmapper: &fake{}}, s)
		whole := record("half")
		var half []*client
		for i := range whole {
			c := dial(t, s)
			c.send(whole[:i])
			half = append(half, c)
		}
		other := dial(t, s)
		other.send(record("a"))
		other.expect("re:a")
		for i, c := range half {
			c.send(whole[i:])
			c.expect("re:half")
		}
	})
}

// A client that sends calls and reads no reply is not read from any more, hinders nobody, and is closed.
func TestClientThatDoesNotRead(t *testing.T) {
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		reply := strings.Repeat("r", 50<<10)
		big := portmapperFunc(func(dst, call []byte, _ portmap.Caller) []byte {
			if string(call) == "big" {
				return append(dst, reply...)
			}
			return append(dst, call...)
		})
		start(t, Config{Portmapper: big, WriteTimeout: 250 * time.Millisecond}, s)
		greedy := dial(t, s)
		failed := make(chan error, 1)
		go func() {
			calls := record(slices.Repeat([]string{"big"}, 1000)...)
			for {
				if _, err := greedy.Write(calls); err != nil {
					failed <- err
					return
				}
			}
		}()
		other := dial(t, s)
		for range 100 {
			other.send(record("a"))
			other.expect("a")
		}
		if err := <-failed; os.IsTimeout(err) {
			t.Error("the connection of a client that doesn't read isn't closed")
		}
		other.send(record("b"))
		other.expect("b")
	})
}

func TestIdleConnections(t *testing.T) {
	tcp, local := listenTCP(t), listenLocal(t)
	const short = 10 * time.Millisecond
	start(t, Config{Portmapper: &fake{}, IdleTimeout: short, RecordTimeout: short}, tcp, local)
	quiet, halfway := dial(t, local), dial(t, local)
	whole := record("half")
	halfway.send(whole[:6])
	dial(t, tcp).expectEnd()
	// The local ones have been idle for longer than a TCP connection may.
	quiet.send(record("a"))
	quiet.expect("re:a")
	halfway.send(whole[6:])
	halfway.expect("re:half")
}

func TestRecordTimeout(t *testing.T) {
	tcp := listenTCP(t)
	start(t, Config{Portmapper: &fake{}, IdleTimeout: time.Hour, RecordTimeout: 10 * time.Millisecond}, tcp)
	c := dial(t, tcp)
	c.send(append(record("a"), 0x80, 0))
	c.expect("re:a")
	c.expectEnd()
}

// The time for a record counts from its first octet: octets that drip in don't prolong it. That of an idle connection counts
// from the last call.
func TestTimesCountFrom(t *testing.T) {
	r := newStreamRig(t, Config{Portmapper: &fake{}, IdleTimeout: time.Hour, RecordTimeout: time.Minute}, listenTCP(t))
	c := r.dial()
	held := r.table[0]
	step := func(b []byte) {
		t.Helper()
		c.send(b)
		r.step()
	}
	is := func(list int, since time.Duration) {
		t.Helper()
		if held.list != &r.lists[foreign][list] || held.since != since {
			t.Errorf("in %p since %v, want list %d since %v", held.list, held.since, list, since)
		}
	}
	whole := record("abcdef")
	step(whole[:3])
	begun := r.now
	is(pending, begun)
	step(whole[3:5])
	step(whole[5:7])
	is(pending, begun)
	step(append(whole[7:], 0x80)) // whole, and the next begins
	c.expect("re:abcdef")
	is(pending, r.now)
	step([]byte{0, 0, 0})
	c.expect("re:")
	is(idle, r.now)
	step(record("a"))
	c.expect("re:a")
	is(idle, r.now)
	if due, _ := r.lists[foreign][idle].due(); due != r.now+time.Hour {
		t.Errorf("due at %v", due)
	}
	r.now += time.Hour - 1
	r.expire()
	is(idle, held.since)
	r.now++
	r.expire()
	c.expectEnd()
}

func TestTCPCaller(t *testing.T) {
	lo := loopbackIndex(t)
	for _, v6 := range []bool{false, true} {
		a, transport := "127.0.0.1:0", portmap.TCP
		if v6 {
			a, transport = "[::1]:0", portmap.TCP6
		}
		t.Run(a, func(t *testing.T) {
			if v6 && !sys.IPv6Available() {
				t.Skip("this host has no IPv6")
			}
			s := opened(t)(sys.ListenTCP(addrPort(a)))
			r := newStreamRig(t, Config{Portmapper: &fake{}, Loopback: func(i uint32) bool { return i == lo }}, s)
			client := r.dial()
			want := portmap.Caller{
				Transport: transport,
				Remote:    client.LocalAddr().(*net.TCPAddr).AddrPort(),
				Local:     s.Addr,
				Ifindex:   lo,
				Loopback:  true,
			}
			if got := r.table[0].stream.from; got != want {
				t.Errorf("caller %+v\nwant   %+v", got, want)
			}
		})
	}
}

func TestLocalCaller(t *testing.T) {
	r := newStreamRig(t, Config{Portmapper: &fake{}}, listenLocal(t))
	r.dial()
	want := portmap.Caller{Transport: portmap.Local, Loopback: true, UID: uint32(os.Getuid()), HasUID: true}
	if got := r.table[0].stream.from; got != want {
		t.Errorf("caller %+v\nwant   %+v", got, want)
	}
}

// exchange sends calls, has them answered, and takes size octets of replies.
func (r *streamRig) exchange(c *client, calls, replies []byte) {
	c.send(calls)
	r.step()
	if _, err := io.ReadFull(c, replies); err != nil {
		r.t.Fatal(err)
	}
}

// streamLoads are what tests and benchmarks send: one call, and as many as one read takes.
func streamLoads(each func(name string, n int, calls []byte, size int)) {
	call := strings.Repeat("c", 56)
	for _, n := range []int{1, 64} {
		each(fmt.Sprintf("calls=%d", n), n, record(slices.Repeat([]string{call}, n)...), n*(len(call)+4+3))
	}
}

func TestStreamAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: .ci/unit runs this without it as well")
	}
	eachStream(t, func(t *testing.T, s *sys.Socket) {
		streamLoads(func(name string, _ int, calls []byte, size int) {
			r := newStreamRig(t, Config{Portmapper: &fake{}}, s)
			c, replies := r.dial(), make([]byte, size)
			if got := testing.AllocsPerRun(200, func() { r.exchange(c, calls, replies) }); got != 0 {
				t.Errorf("%s: %v allocations, want 0", name, got)
			}
		})
	})
}

// The client's system calls are part of what is measured.
func benchmarkStream(b *testing.B, s *sys.Socket) {
	streamLoads(func(name string, n int, calls []byte, size int) {
		b.Run(name, func(b *testing.B) {
			r := newStreamRig(b, Config{Portmapper: &fake{}}, s)
			c, replies := r.dial(), make([]byte, size)
			b.ReportAllocs()
			for done := 0; done < b.N; done += n {
				r.exchange(c, calls, replies)
			}
		})
	})
}

func BenchmarkTCP(b *testing.B)   { benchmarkStream(b, listenTCP(b)) }
func BenchmarkLocal(b *testing.B) { benchmarkStream(b, listenLocal(b)) }

// A connection for each call, with everything that the server does for one.
func BenchmarkTCPConnect(b *testing.B) {
	tcp := listenTCP(b)
	start(b, Config{Portmapper: &fake{}}, tcp)
	call := record("call")
	for b.Loop() {
		c, err := net.Dial("tcp", tcp.Addr.String())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Write(call); err != nil {
			b.Fatal(err)
		}
		var buf [100]byte
		if _, err := io.ReadFull(c, buf[:4+7]); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
