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

// limiterRow is the number of meters in each row of a meterTable, a power of two.
const limiterRow = 8192

// hostsPerNetwork is the number of addresses in a /24, and of /64 networks in a /56. Each of them has that part of its
// network's rate to itself when the network is over its limit.
const hostsPerNetwork = 256

const second = 1_000_000_000 // ns

// A Limiter bounds how many datagrams of each source network are answered. It takes 256 KiB however many networks send,
// and no lock.
//
// A network that sends more than its rate, or in whose name somebody else does, isn't silenced as a whole: each of its
// addresses (/64 of IPv6) is still answered 1/256 of the rate. So one host that floods takes nothing from its neighbours
// but speed, and whoever forges every address of a network gets at most twice the rate of answers sent there.
type Limiter struct {
	now             func() int64 // ns, of a clock that never goes back
	keys            [2]uint64
	interval        atomic.Int64 // ns for each answer; 0 for no limit
	networks, hosts meterTable
	lists           meter
}

// listRate is the number of datagrams a second that may be larger than their calls and go to neighbours, to all of them
// together: more than people and their tools ask, and too few to hurt whoever is sent them.
const listRate = 1000

// A meterTable has two meters for each source, one in each row, which it shares with others by chance alone. A source is
// over its limit when both are full. Nobody can choose addresses that share another's meters, because which they are is
// random. It takes some 80 million datagrams a second from all the networks there are to fill it.
type meterTable [2][limiterRow]meter

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
	network, host := networkOf(from)
	return l.networks.take(l.hash(network), now, interval) ||
		l.hosts.take(l.hash(network<<8|host), now, interval*hostsPerNetwork)
}

// takeList tells whether one more large datagram may go to a neighbour.
func (l *Limiter) takeList() bool {
	now := l.now()
	if !l.lists.room(now, second/listRate) {
		return false
	}
	l.lists.add(now, second/listRate)
	return true
}

// take adds a datagram to the meters of a source. Both get it, so that the one that is less full counts all that the
// source was answered, and more only for what others added: the source gets its rate, never more.
func (t *meterTable) take(hash uint64, now, interval int64) bool {
	a, b := &t[0][hash%limiterRow], &t[1][hash>>32%limiterRow]
	if !a.room(now, interval) && !b.room(now, interval) {
		return false
	}
	a.add(now, interval)
	b.add(now, interval)
	return true
}

// room tells whether one more answer fits. A meter holds a second's worth, or one answer where that takes longer.
func (m *meter) room(now, interval int64) bool {
	return max(m.empty.Load(), now)+interval <= now+max(second, interval)
}

func (m *meter) add(now, interval int64) {
	for {
		empty := m.empty.Load()
		// Not beyond full, or an innocent that shares this meter would wait for long.
		next := min(max(empty, now)+interval, now+max(second, interval))
		if next <= empty || m.empty.CompareAndSwap(empty, next) {
			return
		}
	}
}

// networkOf returns a number for the network that an address is limited with, and one for its host there, below
// hostsPerNetwork.
func networkOf(a netip.Addr) (network, host uint64) {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2]), uint64(b[3])
	}
	b := a.As16()
	network = 1 // apart from IPv4's
	for _, octet := range b[:limitBits6/8] {
		network = network<<8 | uint64(octet)
	}
	return network, uint64(b[limitBits6/8])
}

// hash mixes a number with the secret keys, as wyhash does.
func (l *Limiter) hash(n uint64) uint64 {
	high, low := bits.Mul64(n^l.keys[0], l.keys[1])
	high, low = bits.Mul64(high^low^l.keys[1], l.keys[0]|1)
	return high ^ low
}
