package daemon

import (
	"fmt"
	"testing"
	"time"
)

// TestShare floods a share on a clock of its own, with questions of a millisecond.
func TestShare(t *testing.T) {
	const question = time.Millisecond
	run := func(seconds int, owners ...string) map[string]time.Duration {
		s := newShare()
		now := time.Unix(1e9, 0)
		s.now = func() time.Time { return now }
		spent := make(map[string]time.Duration)
		for end := now.Add(time.Duration(seconds) * time.Second); now.Before(end); now = now.Add(time.Millisecond) {
			for _, o := range owners {
				s.spend(o, func() { now = now.Add(question); spent[o] += question })
			}
		}
		return spent
	}
	if got := run(10, "1000")["1000"]; got > 10*time.Second/ownerPart+ownerBurst+question || got < 10*time.Second/ownerPart {
		t.Errorf("one owner took %v of 10 s", got)
	}
	all := make([]string, 100)
	for i := range all {
		all[i] = fmt.Sprint(i)
	}
	total := time.Duration(0)
	for _, d := range run(10, all...) {
		total += d
	}
	if total > 10*time.Second/allPart+allBurst+question {
		t.Errorf("a hundred owners took %v of 10 s", total)
	}
	if got := run(1, "superuser")["superuser"]; got < 400*time.Millisecond {
		t.Errorf("root had %v of a second", got)
	}
	s := newShare()
	now := time.Unix(1e9, 0)
	s.now = func() time.Time { return now }
	for range 10 * ownerBurst / question {
		s.spend("1000", func() { now = now.Add(question) })
	}
	if s.spend("1000", func() {}) || !s.spend("1001", func() {}) {
		t.Error("a flood of one owner stops others, or isn't stopped")
	}
	for i := range 10 * ownersKept {
		s.spend(fmt.Sprint(i), func() {})
	}
	if len(s.owners) > ownersKept {
		t.Errorf("%d owners are kept", len(s.owners))
	}
}
