package access

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestLimiterOverRandomClocks floods a network for a while by clocks that go on in steps of all sizes, from 1 ns, as a
// real clock under load, to seconds. In each span of time a source is answered its rate and one second's burst at most;
// and while it asks more often than that, no less.
func TestLimiterOverRandomClocks(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		rate := int64(1 + r.IntN(20_000))
		interval := second / rate
		longest := int64(1) << r.IntN(31) // up to a second
		begin := r.Int64N(1 << 40)        // the clock needn't begin at zero
		clock := hand{}
		clock.ns.Store(begin)
		var table meterTable
		hash := r.Uint64()
		var answered []int64 // when
		full := true         // each step brought a datagram at least as often as the rate
		now := begin
		for range 20_000 {
			step := 1 + r.Int64N(longest)
			full = full && step <= interval
			now += step
			if table.take(hash, now, interval) {
				answered = append(answered, now)
			}
		}
		// The n-th answer from any begin comes no earlier than (n - burst) intervals later.
		burst := second / interval
		for from := 0; from < len(answered); from += 1 + r.IntN(50) {
			for to := from; to < len(answered); to += 1 + r.IntN(500) {
				if n := int64(to - from + 1); (n-burst-1)*interval > answered[to]-answered[from] {
					t.Fatalf("seed %d, rate %d: %d answers in %d ns", seed, rate, n, answered[to]-answered[from])
				}
			}
		}
		if want := min(20_000, burst+(now-begin)/interval); full && int64(len(answered)) < want-1 {
			t.Fatalf("seed %d, rate %d: %d answers in %d ns, want %d", seed, rate, len(answered), now-begin, want)
		}
	}
}

// TestAForgerOfANetwork sends 100,000 datagrams a second in the name of every address of a /24 for ten seconds. The network
// gets twice its rate at most, and one host that floods leaves its neighbours theirs.
func TestAForgerOfANetwork(t *testing.T) {
	const rate, calls, seconds = 10_000, 100_000, 10
	flood := func(hosts uint32) (answered int, l *Limiter) {
		var clock hand
		clock.ns.Store(second)
		l = NewLimiter(rate, clock.now)
		for i := range uint32(calls * seconds) {
			clock.ns.Add(second / calls)
			if l.take(addr4(0xc0000200 + i%hosts)) {
				answered++
			}
		}
		return answered, l
	}
	if got, _ := flood(256); got > 2*rate*(seconds+1) {
		t.Errorf("%d answers to a network in %d s, want %d at most", got, seconds, 2*rate*(seconds+1))
	}
	got, l := flood(1)
	if most := (rate + rate/hostsPerNetwork + 1) * (seconds + 1); got > most {
		t.Errorf("%d answers to one host in %d s, want %d at most", got, seconds, most)
	}
	if n := taken(l, netip.MustParseAddr("192.0.2.77"), 30); n != 30 {
		t.Errorf("a neighbour of the flood has %d of 30 lookups answered", n)
	}
}
