package metrics

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of a Histogram's buckets: a call takes microseconds, and one that takes a second is an
// accident.
var bounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, time.Second,
}

// Histogram counts durations. The zero value is ready.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64 // the last has no end
	sum     atomic.Int64                   // nanoseconds
}

// Observe counts n events that took d each.
func (h *Histogram) Observe(d time.Duration, n int) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(uint64(n))
	h.sum.Add(int64(d) * int64(n))
}

// Latency is a Histogram for each transport, by the number of a portmap.Transport.
type Latency [transports]Histogram

// Observe counts n calls of a transport that took d each.
func (l *Latency) Observe(transport uint8, d time.Duration, n int) {
	if transport < transports {
		l[transport].Observe(d, n)
	}
}
