package logging

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
)

// recorder is a Sink that keeps "LEVEL text".
type recorder struct{ lines []string }

func (r *recorder) WriteLine(_ time.Time, level slog.Level, text string) error {
	r.lines = append(r.lines, level.String()+" "+text)
	return nil
}

func logged(t *testing.T, level slog.Level, f func(*slog.Logger)) []string {
	t.Helper()
	r := &recorder{}
	h := New(r, level)
	f(slog.New(h))
	h.Close()
	return r.lines
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("started") }, `INFO started`},
		{"attributes", func(l *slog.Logger) { l.Warn("x", "n", 7, "s", "a b", "e", "") }, `WARN x n=7 s="a b" e=""`},
		{"error", func(l *slog.Logger) { l.Error("x", "err", errors.New("no such file")) }, `ERROR x err="no such file"`},
		{"with", func(l *slog.Logger) { l.With("a", 1).With("b", 2).Info("x", "c", 3) }, `INFO x a=1 b=2 c=3`},
		{"groups", func(l *slog.Logger) { l.WithGroup("g").With("a", 1).Info("x", slog.Group("h", "b", 2)) }, `INFO x g.a=1 g.h.b=2`},
		{"no group", func(l *slog.Logger) { l.WithGroup("").Info("x", slog.Group("", "b", 2)) }, `INFO x b=2`},
		{"line feed in the message", func(l *slog.Logger) { l.Info("a\nINFO forged") }, `INFO a\nINFO forged`},
		{"line feed in a value", func(l *slog.Logger) { l.Info("x", "v", "a\nb") }, `INFO x v="a\nb"`},
		{"line feed in a key", func(l *slog.Logger) { l.Info("x", "k\n", 1) }, `INFO x k\n=1`},
		{"escape sequence", func(l *slog.Logger) { l.Info("\x1b[2J", "v", "\x1b]0;t\a") }, `INFO \x1b[2J v="\x1b]0;t\a"`},
		{"C1 control", func(l *slog.Logger) { l.Info("\u009b2J") }, `INFO \u009b2J`},
		{"right-to-left override", func(l *slog.Logger) { l.Info("x", "v", "\u202eabc") }, `INFO x v="\u202eabc"`},
		{"not UTF-8", func(l *slog.Logger) { l.Info("\xff", "v", "\xfe") }, `INFO \xff v="\xfe"`},
		{"a value like two", func(l *slog.Logger) { l.Info("x", "v", "a=b") }, `INFO x v="a=b"`},
		{"letters of other languages", func(l *slog.Logger) { l.Info("größe", "v", "日本") }, `INFO größe v=日本`},
	} {
		if got := logged(t, slog.LevelInfo, c.log); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLevel(t *testing.T) {
	all := func(l *slog.Logger) { l.Debug("d"); l.Info("i"); l.Warn("w"); l.Error("e") }
	if got := strings.Join(logged(t, slog.LevelWarn, all), ","); got != "WARN w,ERROR e" {
		t.Errorf("from WARN: %s", got)
	}
	if got := strings.Join(logged(t, slog.LevelDebug, all), ","); got != "DEBUG d,INFO i,WARN w,ERROR e" {
		t.Errorf("from DEBUG: %s", got)
	}
}

// stuck is a Sink whose reader hangs until it is let go.
type stuck struct {
	recorder
	entered chan struct{}
	release chan struct{}
}

func (s *stuck) WriteLine(at time.Time, level slog.Level, text string) error {
	if s.entered != nil {
		close(s.entered)
		s.entered = nil
		<-s.release
	}
	return s.recorder.WriteLine(at, level, text)
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	s := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	entered := s.entered
	h := New(s, slog.LevelInfo)
	log := slog.New(h)
	log.Info("first")
	<-entered
	const more = 7
	for i := range queueLines + more { // returns although nobody reads
		log.Info("n", "i", i)
	}
	close(s.release)
	h.Close()
	if want := 1 + queueLines + 1; len(s.lines) != want {
		t.Fatalf("%d lines were written, want %d", len(s.lines), want)
	}
	if want := fmt.Sprintf("WARN %d log lines were dropped", more); !strings.HasPrefix(s.lines[1], want) {
		t.Errorf("second line %q, want %q", s.lines[1], want)
	}
	if want := fmt.Sprintf("INFO n i=%d", queueLines-1); s.lines[len(s.lines)-1] != want {
		t.Errorf("last line %q, want %q", s.lines[len(s.lines)-1], want)
	}
}

func TestLoggingAfterCloseIsHarmless(t *testing.T) {
	r := &recorder{}
	h := New(r, slog.LevelInfo)
	h.Close()
	h.Close()
	slog.New(h).Info("late")
	if len(r.lines) != 0 {
		t.Errorf("%q", r.lines)
	}
}

func TestSinksOfAStream(t *testing.T) {
	at := time.Date(2024, 3, 4, 5, 6, 7, 8e6, time.UTC)
	for _, c := range []struct {
		level         slog.Level
		journal, text string
	}{
		{slog.LevelDebug, "<7>x\n", "2024-03-04T05:06:07.008Z DEBUG x\n"},
		{slog.LevelInfo, "<6>x\n", "2024-03-04T05:06:07.008Z INFO  x\n"},
		{slog.LevelWarn, "<4>x\n", "2024-03-04T05:06:07.008Z WARN  x\n"},
		{slog.LevelError, "<3>x\n", "2024-03-04T05:06:07.008Z ERROR x\n"},
	} {
		var j, p strings.Builder
		if err := errors.Join(Journal(&j).WriteLine(at, c.level, "x"), Text(&p).WriteLine(at, c.level, "x")); err != nil {
			t.Fatal(err)
		}
		if j.String() != c.journal || p.String() != c.text {
			t.Errorf("%v: %q and %q, want %q and %q", c.level, j.String(), p.String(), c.journal, c.text)
		}
	}
}

func TestIsJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for _, c := range []struct {
		stream string
		want   bool
	}{
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino), true},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), false},
		{fmt.Sprintf("%d:%d", st.Dev+1, st.Ino), false},
		{fmt.Sprintf("%d", st.Dev), false},
		{"", false},
		{":", false},
		{"a:b", false},
	} {
		if got := isJournal(w, c.stream); got != c.want {
			t.Errorf("isJournal(%q) = %v, want %v", c.stream, got, c.want)
		}
		t.Setenv("JOURNAL_STREAM", c.stream)
		if _, got := Stderr(w, "x").(*nativeJournal); got != c.want {
			t.Errorf("Stderr with JOURNAL_STREAM=%q: journal %v, want %v", c.stream, got, c.want)
		}
	}
}

func TestWriteErrorsAreReturned(t *testing.T) {
	r, w := io.Pipe()
	r.CloseWithError(net.ErrClosed)
	for _, s := range []Sink{Journal(w), Text(w)} {
		if err := s.WriteLine(time.Time{}, slog.LevelInfo, "x"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%T: %v", s, err)
		}
	}
}

// FuzzEscape holds Escape to what logs and terminals need: printable text only.
func FuzzEscape(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1b[31m\x7f\xff\u2028\u202e\\\"")
	f.Fuzz(func(t *testing.T, s string) {
		got := Escape(s)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("Escape(%q) = %q", s, got)
		}
		if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) && got != s {
			t.Errorf("Escape(%q) = %q, but it was printable", s, got)
		}
	})
}

func TestSyslogLooksAgain(t *testing.T) {
	// The path of the syslog daemon's socket is compiled into log/syslog, so where there is one its log gets a line.
	if _, err := os.Stat(filepath.FromSlash("/dev/log")); err == nil {
		t.Skip("needs a host without /dev/log")
	}
	s := Syslog("gportmap-test")
	for range 2 {
		if err := s.WriteLine(time.Now(), slog.LevelInfo, "x"); err == nil {
			t.Error("no error without a syslog daemon")
		}
	}
}
