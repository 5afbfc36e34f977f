package logging

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// sent returns what a native journal is sent for what is logged, a line each: priority, text, fields in order.
func sent(t *testing.T, log func(*slog.Logger), fails error) (native []string, stream string) {
	t.Helper()
	var b strings.Builder
	sink := NativeJournal("tag", Journal(&b)).(*nativeJournal)
	sink.send = func(message string, priority int, fields map[string]string) error {
		if fails != nil {
			return fails
		}
		text := fmt.Sprintf("<%d>%s", priority, message)
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			text += " " + name + "=" + fields[name]
		}
		native = append(native, text)
		return nil
	}
	h := New(sink, slog.LevelInfo)
	log(slog.New(h))
	h.Close()
	return native, b.String()
}

func TestFields(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"none", func(l *slog.Logger) { l.Info("x", "n", 1) }, "<6>x n=1 SYSLOG_IDENTIFIER=tag"},
		{"of a call", func(l *slog.Logger) {
			l.Warn("registration refused", "from", "udp 10.0.0.1:9", "program", 100003, "version", 3, "answer", "no", "RPC_PROC", "SET", MessageID, IDRefused)
		}, `<4>registration refused from="udp 10.0.0.1:9" program=100003 version=3 answer=no MESSAGE_ID=` + IDRefused +
			" PEER=udp 10.0.0.1:9 RPC_PROC=SET RPC_PROG=100003 RPC_VERS=3 SYSLOG_IDENTIFIER=tag VERDICT=no"},
		{"with", func(l *slog.Logger) { l.With("owner", "uid 7", "UNIT", "a.service").Error("x", "err", errors.New("e")) },
			`<3>x owner="uid 7" err=e ERROR=e OWNER=uid 7 SYSLOG_IDENTIFIER=tag UNIT=a.service`},
		{"a group's are no fields", func(l *slog.Logger) { l.WithGroup("g").Info("x", "owner", "o") }, "<6>x g.owner=o SYSLOG_IDENTIFIER=tag"},
	} {
		native, stream := sent(t, c.log, nil)
		if len(native) != 1 || native[0] != c.want || stream != "" {
			t.Errorf("%s: %q and %q, want %q", c.name, native, stream, c.want)
		}
	}
}

// TestCapitalsAreForTheJournal: other sinks don't show them.
func TestCapitalsAreForTheJournal(t *testing.T) {
	got := logged(t, slog.LevelInfo, func(l *slog.Logger) { l.With("UNIT", "u").Info("x", MessageID, IDStarted, "a", 1) })
	if len(got) != 1 || got[0] != "INFO x a=1" {
		t.Errorf("%q", got)
	}
}

func TestJournalThatIsNotReached(t *testing.T) {
	native, stream := sent(t, func(l *slog.Logger) { l.Info("one", "owner", "o"); l.Warn("two") }, errors.New("no such file"))
	if native != nil || stream != "<6>one owner=o\n<4>two\n" {
		t.Errorf("%q and %q", native, stream)
	}
}

func TestMessageIDs(t *testing.T) {
	ids := []string{IDStarted, IDStopped, IDRefused, IDTaken, IDState, IDLookup, IDList, IDRemote}
	for i, id := range ids {
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || slices.Contains(ids[:i], id) {
			t.Errorf("%q", id)
		}
	}
}

// TestRepeats: of a flood of like warnings a few are written and the others counted.
func TestRepeats(t *testing.T) {
	got := logged(t, slog.LevelInfo, func(l *slog.Logger) {
		for i := range repeatBurst + 7 {
			l.Warn("refused", "i", i)
			l.Info("called", "i", i)
		}
		l.Warn("another")
	})
	warned, called := 0, 0
	for _, l := range got {
		switch {
		case strings.HasPrefix(l, "WARN refused"):
			warned++
		case strings.HasPrefix(l, "INFO called"):
			called++
		}
	}
	if warned != repeatBurst || called != repeatBurst+7 || !slices.Contains(got, "WARN another") ||
		got[len(got)-1] != "WARN 7 more like it were not logged: refused" {
		t.Errorf("%d warnings, %d calls, last %q", warned, called, got[len(got)-1])
	}
}

func TestRepeatWindows(t *testing.T) {
	var r repeats
	at := time.Unix(1000, 0)
	pass := func(level slog.Level, name string) bool { return r.pass(at, level, name) }
	for range repeatBurst {
		if !pass(slog.LevelError, "x") {
			t.Fatal("too early")
		}
	}
	if !r.enough("x") || pass(slog.LevelError, "x") || r.enough("y") {
		t.Error("beyond the bound")
	}
	if got := r.due(at.Add(repeatWindow - 1)); got != nil || r.wait() == nil {
		t.Errorf("within the window: %+v", got)
	}
	got := r.due(at.Add(repeatWindow))
	if len(got) != 1 || got[0].text != "2 more like it were not logged: x" || got[0].level != slog.LevelError || r.wait() != nil {
		t.Errorf("%+v", got)
	}
	if !pass(slog.LevelError, "x") {
		t.Error("not in the next window")
	}
	// However many messages there are, no more are remembered; the others are written.
	for i := range 3 * repeatKinds {
		if !pass(slog.LevelWarn, fmt.Sprint(i)) {
			t.Fatal(i)
		}
	}
	if len(r.kinds) != repeatKinds {
		t.Errorf("%d messages are remembered", len(r.kinds))
	}
}
