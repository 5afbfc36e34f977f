package bench_test

import (
	"math/bits"
	"time"
)

// A histogram counts latencies in steps of 3 %, like HdrHistogram's: 32 steps in each power of two of nanoseconds.
type histogram struct {
	count [64 * histogramSteps]uint32
	total int
	worst time.Duration
}

const (
	histogramBits  = 5
	histogramSteps = 1 << histogramBits
)

func (h *histogram) add(d time.Duration, times int) {
	h.count[histogramIndex(uint64(max(d, 0)))] += uint32(times)
	h.total += times
	h.worst = max(h.worst, d)
}

func histogramIndex(v uint64) int {
	if v < histogramSteps {
		return int(v)
	}
	shift := bits.Len64(v) - histogramBits - 1
	return (shift+1)*histogramSteps + int(v>>shift) - histogramSteps
}

// histogramValue returns the middle of a step.
func histogramValue(i int) time.Duration {
	if i < histogramSteps {
		return time.Duration(i)
	}
	shift := i/histogramSteps - 1
	low := uint64(i%histogramSteps+histogramSteps) << shift
	return time.Duration(low + 1<<shift/2)
}

// quantile returns the latency that a share q of all didn't exceed, in microseconds.
func (h *histogram) quantile(q float64) float64 {
	left := int(q * float64(h.total))
	for i, n := range h.count {
		if left -= int(n); left < 0 {
			return micros(min(histogramValue(i), h.worst))
		}
	}
	return micros(h.worst)
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
