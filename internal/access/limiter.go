package access

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// DefaultAnswerRate is the number of datagrams from one network that are answered in a second: more than a full IPv4
// network sends when all its hosts boot at once, and too little to hurt whoever it may be aimed at.
const DefaultAnswerRate = 10_000

// Networks that are limited as one, in bits of the address: what somebody who can send from one address of it can
// usually send from.
const (
	limitBits4 = 24
	limitBits6 = 56
)

// limiterRow is the number of meters in each of a Limiter's two rows, a power of two.
const limiterRow = 8192

const second = 1_000_000_000 // ns

// A Limiter bounds how many datagrams of each source network are answered. It takes 128 KiB however many networks send,
// and no lock: a network has one meter in each of two rows, which it shares with others by chance alone, and is over the
// limit when both are. Nobody can choose addresses that share another's meters, because which they are is random. Floods
// from all the networks there are don't fill it: that takes some 80 million datagrams a second.
type Limiter struct {
	now      func() int64 // ns, of a clock that never goes back
	keys     [2]uint64
	interval atomic.Int64 // ns for each answer; 0 for no limit
	meters   [2][limiterRow]meter
}

// A meter is a bucket that drips: the time in ns when it will be empty.
type meter struct{ empty atomic.Int64 }

// NewLimiter returns a Limiter of so many answers a second for each network, which may come at once; 0 is no limit. Now
// is a clock in nanoseconds that never goes back.
func NewLimiter(rate int, now func() int64) *Limiter {
	l := &Limiter{now: now, keys: [2]uint64{rand.Uint64(), rand.Uint64() | 1}}
	l.SetRate(rate)
	return l
}

// SetRate changes the limit.
func (l *Limiter) SetRate(rate int) {
	if rate <= 0 {
		l.interval.Store(0)
		return
	}
	l.interval.Store(max(1, second/int64(rate)))
}

// take tells whether one more datagram from an address is to be answered.
func (l *Limiter) take(from netip.Addr) bool {
	interval := l.interval.Load()
	if interval == 0 {
		return true
	}
	now := l.now()
	hash := l.hash(networkOf(from))
	a, b := &l.meters[0][hash%limiterRow], &l.meters[1][hash>>32%limiterRow]
	if a.full(now) && b.full(now) {
		return false
	}
	a.add(now, interval)
	b.add(now, interval)
	return true
}

// full tells whether a second's worth of answers is in the meter.
func (m *meter) full(now int64) bool { return m.empty.Load()-now >= second }

func (m *meter) add(now, interval int64) {
	for {
		empty := m.empty.Load()
		// Not beyond full, or an innocent that shares this meter would wait for long.
		next := min(max(empty, now)+interval, now+second)
		if next <= empty || m.empty.CompareAndSwap(empty, next) {
			return
		}
	}
}

// networkOf returns a number for the network that an address is limited with.
func networkOf(a netip.Addr) uint64 {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2])
	}
	b := a.As16()
	n := uint64(1) // apart from IPv4's
	for _, octet := range b[:limitBits6/8] {
		n = n<<8 | uint64(octet)
	}
	return n
}

// hash mixes a number with the secret keys, as wyhash does.
func (l *Limiter) hash(n uint64) uint64 {
	high, low := bits.Mul64(n^l.keys[0], l.keys[1])
	high, low = bits.Mul64(high^low^l.keys[1], l.keys[0]|1)
	return high ^ low
}
