package logging

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// rate bounds how many lines are logged in a second. What is more is counted.
type rate struct {
	limit      atomic.Int64 // 0: none
	suppressed atomic.Uint64
	over       chan struct{} // brings something a second after the first line was suppressed

	mu    sync.Mutex
	began time.Time // of the second that is counted
	lines int64
}

// SetRate bounds the lines in a second; errors are always logged. 0 is no bound.
func (h *Handler) SetRate(lines int) { h.queue.rate.limit.Store(int64(max(lines, 0))) }

// take tells whether one more line is to be logged.
func (r *rate) take(now time.Time) bool {
	limit := r.limit.Load()
	if limit == 0 {
		return true
	}
	r.mu.Lock()
	if since := now.Sub(r.began); since < 0 || since >= time.Second {
		r.began, r.lines = now, 0
	}
	r.lines++
	allowed := r.lines <= limit
	r.mu.Unlock()
	if !allowed && r.suppressed.Add(1) == 1 {
		time.AfterFunc(time.Second, func() {
			select {
			case r.over <- struct{}{}:
			default:
			}
		})
	}
	return allowed
}

func (q *queue) reportSuppressed() {
	if n := q.rate.suppressed.Swap(0); n > 0 {
		text := fmt.Sprintf("%d log lines were suppressed because more came in a second than are allowed", n)
		_ = q.sink.WriteLine(time.Now(), slog.LevelWarn, text)
	}
}
