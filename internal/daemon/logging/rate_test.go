package logging

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	lines := logged(t, slog.LevelInfo, func(l *slog.Logger) {
		l.Handler().(*Handler).SetRate(3)
		for range 10 {
			l.Info("flood")
		}
		l.Error("error")
	})
	if n := strings.Count(strings.Join(lines, "\n"), "INFO flood"); n < 3 || n > 6 { // a second may have begun meanwhile
		t.Errorf("%d lines of 10 were logged, want 3", n)
	}
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, "ERROR error") || !strings.Contains(text, "log lines were suppressed") {
		t.Errorf("logged:\n%s", text)
	}
}

// TestSuppressedLinesAreTold holds that they are also if no line follows.
func TestSuppressedLinesAreTold(t *testing.T) {
	told := make(chan string, 10)
	h := New(sinkFunc(func(text string) { told <- text }), slog.LevelInfo)
	defer h.Close()
	h.SetRate(1)
	log := slog.New(h)
	log.Info("one")
	log.Info("two")
	for {
		select {
		case text := <-told:
			if strings.HasPrefix(text, "1 log lines were suppressed") {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing tells that a line was suppressed")
		}
	}
}

type sinkFunc func(text string)

func (f sinkFunc) WriteLine(_ time.Time, _ slog.Level, text string) error {
	f(text)
	return nil
}

func TestRateOfASecond(t *testing.T) {
	var r rate
	r.over = make(chan struct{}, 1)
	at := time.Unix(1000, 0)
	if !r.take(at) {
		t.Error("without a limit a line was suppressed")
	}
	r.limit.Store(2)
	for i, want := range []bool{true, true, false} {
		if got := r.take(at); got != want {
			t.Errorf("line %d: %v", i, got)
		}
	}
	if !r.take(at.Add(time.Second)) {
		t.Error("a second later a line was suppressed")
	}
}
