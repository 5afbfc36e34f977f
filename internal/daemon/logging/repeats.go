package logging

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// repeatBurst is how many warnings and errors with the same message are written in a repeatWindow, whatever their
	// attributes are; the others are counted.
	repeatBurst  = 10
	repeatWindow = time.Minute
	// repeatKinds bounds how many messages are told apart: some have the text of an error in them.
	repeatKinds = 64
)

// repeats keeps a flood of like lines from filling the log: whoever brings one about, by calls that are refused say, is not
// to decide how much is written.
type repeats struct {
	mu    sync.Mutex
	kinds map[string]*kind
}

type kind struct {
	began   time.Time // of the window
	level   slog.Level
	written int
	left    int
}

// enough tells whether one more line of a kind would be left out, and then counts it.
func (r *repeats) enough(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[name]
	if k == nil || k.written < repeatBurst {
		return false
	}
	k.left++
	return true
}

// pass tells whether a line is to be written.
func (r *repeats) pass(at time.Time, level slog.Level, name string) bool {
	if level < slog.LevelWarn {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[name]
	if k == nil {
		if len(r.kinds) >= repeatKinds {
			return true
		}
		if r.kinds == nil {
			r.kinds = make(map[string]*kind)
		}
		k = &kind{began: at, level: level}
		r.kinds[name] = k
	}
	if k.written < repeatBurst {
		k.written++
		return true
	}
	k.left++
	return false
}

// due returns what is to be told of windows that are over, all if now is the zero time, and forgets them.
func (r *repeats) due(now time.Time) []line {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []line
	for message, k := range r.kinds {
		if !now.IsZero() && now.Sub(k.began) < repeatWindow {
			continue
		}
		if k.left > 0 {
			lines = append(lines, line{at: time.Now(), level: k.level, text: fmt.Sprintf("%d more like it were not logged: %s", k.left, Escape(message))})
		}
		delete(r.kinds, message)
	}
	return lines
}

// wait returns a channel that brings something when a window is over, nil while there is none.
func (r *repeats) wait() <-chan time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kinds) == 0 {
		return nil
	}
	return time.After(repeatWindow)
}
