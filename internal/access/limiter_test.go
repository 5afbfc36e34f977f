package access

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

// A hand is a clock that tests turn.
type hand struct{ ns atomic.Int64 }

func (h *hand) now() int64 { return h.ns.Load() }

func addr4(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func taken(l *Limiter, from netip.Addr, calls int) (answered int) {
	for range calls {
		if l.take(from) {
			answered++
		}
	}
	return answered
}

func TestLimiterCountsByNetwork(t *testing.T) {
	var clock hand
	const rate, each = 10 * hostsPerNetwork, 10
	l := NewLimiter(rate, clock.now)
	if got := taken(l, netip.MustParseAddr("192.0.2.1"), 10_000); got != rate+each {
		t.Errorf("%d of 10000 at once are answered, want %d", got, rate+each)
	}
	for addr, want := range map[string]int{
		"192.0.2.1": 0, "192.0.2.254": each, "::ffff:192.0.2.3": each, "::ffff:192.0.2.1": 0, // the same /24
		"192.0.3.1": 100, "2001:db8::1": 100, "::c000:201": 100,
	} {
		if got := taken(l, netip.MustParseAddr(addr), 100); got != want {
			t.Errorf("%s: %d of 100 answered, want %d", addr, got, want)
		}
	}
	clock.ns.Add(second / 2)
	if got := taken(l, netip.MustParseAddr("192.0.2.1"), 10_000); got != (rate+each)/2 {
		t.Errorf("half a second later %d are answered, want %d", got, (rate+each)/2)
	}
	clock.ns.Add(10 * second)
	if got := taken(l, netip.MustParseAddr("192.0.2.1"), 10_000); got != rate+each {
		t.Errorf("ten quiet seconds later %d are answered, want %d", got, rate+each)
	}
}

func TestLimiterOfIPv6Networks(t *testing.T) {
	var clock hand
	l := NewLimiter(10, clock.now)
	taken(l, netip.MustParseAddr("2001:db8:1:200::1"), 100)
	for _, c := range []struct {
		addr string
		want int // of 5
	}{
		{"2001:db8:1:200::2", 0}, {"2001:db8:1:2ff:ffff::1", 1}, {"2001:db8:1:2ff::1", 0}, // the same /56
		{"2001:db8:1:300::1", 5}, {"2001:db8:1:100::1", 5},
	} {
		if got := taken(l, netip.MustParseAddr(c.addr), 5); got != c.want {
			t.Errorf("%s: %d of 5 answered, want %d", c.addr, got, c.want)
		}
	}
}

func TestLimiterRate(t *testing.T) {
	var clock hand
	l := NewLimiter(0, clock.now)
	from := netip.MustParseAddr("192.0.2.1")
	if got := taken(l, from, 100_000); got != 100_000 {
		t.Errorf("without a limit %d are answered", got)
	}
	l.SetRate(7)
	if got := taken(l, from, 100); got < 8 || got > 9 { // with the host's own one; 7 doesn't divide a second
		t.Errorf("with 7 a second %d are answered at once", got)
	}
	l.SetRate(-1)
	if got := taken(l, from, 100); got != 100 {
		t.Errorf("without a limit again %d are answered", got)
	}
}

// TestAFloodOfNetworksSilencesNobody sends from a million made-up networks, each of which may: whoever else asks is
// answered.
func TestAFloodOfNetworksSilencesNobody(t *testing.T) {
	var clock hand
	l := NewLimiter(DefaultAnswerRate, clock.now)
	r := rand.New(rand.NewPCG(1, 2))
	const calls = 1_000_000
	for i := range calls {
		clock.ns.Store(int64(i) * second / calls)
		l.take(addr4(r.Uint32()))
	}
	for range 1000 {
		if from := addr4(r.Uint32()); !l.take(from) {
			t.Fatalf("%v gets no answer", from)
		}
	}
}

// TestAnInnocentSharesNoFate lets a hundred networks flood far beyond the limit; of a thousand others hardly one may be
// unlucky in both rows.
func TestAnInnocentSharesNoFate(t *testing.T) {
	var clock hand
	l := NewLimiter(10, clock.now)
	for i := range uint32(100) {
		taken(l, addr4(i<<8), 100)
	}
	silent := 0
	for i := range uint32(1000) {
		if !l.take(addr4(0x0a000000 + i<<8)) {
			silent++
		}
	}
	if silent > 5 {
		t.Errorf("%d of 1000 innocent networks get no answer", silent)
	}
}

func TestLimiterTogether(t *testing.T) {
	var clock hand
	l := NewLimiter(1000, clock.now)
	var answered atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { answered.Add(int64(taken(l, netip.MustParseAddr("192.0.2.1"), 5000))) })
	}
	all.Wait()
	// Those that looked at the same time may have passed together. Three more are the host's own.
	if got := answered.Load(); got < 1003 || got > 1013 {
		t.Errorf("%d of 20000 are answered, want 1000", got)
	}
}

func TestLimiterAllocatesNothing(t *testing.T) {
	var clock hand
	p := &Policy{Limit: NewLimiter(10, clock.now)}
	from := caller(portmap.UDP6, "[2001:db8::1]:900", "[2001:db8::2]:111", false)
	if n := testing.AllocsPerRun(100, func() { p.MayAnswer(from) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMayAnswer(t *testing.T) {
	var clock hand
	own := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.5") }
	p := &Policy{Limit: NewLimiter(1, clock.now), OwnAddress: own}
	for _, c := range []struct {
		name string
		from portmap.Caller
		want bool // for the third datagram
	}{
		{"neighbour", caller(portmap.UDP, "192.0.2.9:900", "10.0.0.5:111", false), false},
		{"another of its network", caller(portmap.UDP, "192.0.2.10:900", "10.0.0.5:111", false), false},
		{"loopback", caller(portmap.UDP, "127.0.0.1:900", "127.0.0.1:111", true), true},
		{"our own address", caller(portmap.UDP, "10.0.0.5:900", "10.0.0.5:111", false), true},
	} {
		p.MayAnswer(c.from)
		p.MayAnswer(c.from)
		if got := p.MayAnswer(c.from); got != c.want {
			t.Errorf("%s: answered %v, want %v", c.name, got, c.want)
		}
	}
	if n := p.Limited(); n != 3 { // the neighbour's third, and two of the other
		t.Errorf("%d datagrams counted", n)
	}
	if p := new(Policy); !p.MayAnswer(caller(portmap.UDP, "192.0.2.9:900", "10.0.0.5:111", false)) {
		t.Error("without a limiter a datagram gets no answer")
	}
}

func BenchmarkLimiter(b *testing.B) {
	var clock hand
	l := NewLimiter(DefaultAnswerRate, clock.now)
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		l.take(addr4(i << 8))
	}
}
