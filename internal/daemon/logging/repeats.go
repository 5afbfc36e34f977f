package logging

import (
	"fmt"
	"log/slog"
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
// to decide how much is written. Only the goroutine that writes uses it.
type repeats struct {
	kinds map[string]*kind
}

type kind struct {
	began   time.Time // of the window
	level   slog.Level
	written int
	left    int
}

// pass tells whether a line is to be written.
func (r *repeats) pass(l line) bool {
	if l.level < slog.LevelWarn {
		return true
	}
	k := r.kinds[l.kind]
	if k == nil {
		if len(r.kinds) >= repeatKinds {
			return true
		}
		if r.kinds == nil {
			r.kinds = make(map[string]*kind)
		}
		k = &kind{began: l.at, level: l.level}
		r.kinds[l.kind] = k
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
	var lines []line
	for message, k := range r.kinds {
		if !now.IsZero() && now.Sub(k.began) < repeatWindow {
			continue
		}
		if k.left > 0 {
			lines = append(lines, line{at: time.Now(), level: k.level, text: fmt.Sprintf("%d more like it were not logged: %s", k.left, message)})
		}
		delete(r.kinds, message)
	}
	return lines
}

// wait returns a channel that brings something when a window is over, nil while there is none.
func (r *repeats) wait() <-chan time.Time {
	if len(r.kinds) == 0 {
		return nil
	}
	return time.After(repeatWindow)
}
