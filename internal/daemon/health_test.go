package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// manager is a service manager that reads what it is told.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// heard returns what is told within a moment, "" for nothing.
func heard(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestHealthOfAHungDaemon has the probe fail: no sign of life until it succeeds again, and a line in the log for each
// change.
func TestHealthOfAHungDaemon(t *testing.T) {
	m := manager(t)
	t.Setenv("WATCHDOG_USEC", "1000000")
	var log bytes.Buffer
	hangs, status := error(nil), "fine"
	h := &health{
		log: slog.New(slog.NewTextHandler(&log, nil)), notifier: sys.NewNotifier(), told: status,
		probe:  func(context.Context) error { return hangs },
		status: func() string { return status },
	}
	for _, step := range []struct {
		hangs        error
		status, want string
	}{
		{nil, "fine", "WATCHDOG=1"},
		{errors.New("udp 0.0.0.0:111\nholds calls"), "fine", ""},
		{errors.New("udp 0.0.0.0:111\nholds calls"), "changed", "STATUS=changed"},
		{nil, "changed", "WATCHDOG=1"},
	} {
		hangs, status = step.hangs, step.status
		h.beat(t.Context(), time.Second)
		if got := heard(t, m); got != step.want {
			t.Errorf("%v, %s: %q, want %q", step.hangs, step.status, got, step.want)
		}
	}
	if text := log.String(); strings.Count(text, "the watchdog ends the process") != 2 || strings.Count(text, "served again") != 1 ||
		strings.Count(text, "\n") != 3 {
		t.Errorf("log:\n%s", text)
	}
}

// TestHealthWithoutAServiceManager only reloads.
func TestHealthWithoutAServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000000")
	hungup := make(chan struct{})
	h := &health{
		log: slog.New(slog.DiscardHandler), notifier: sys.NewNotifier(),
		probe:  func(context.Context) error { t.Error("probed for nobody"); return nil },
		status: func() string { return "" },
		reload: func() ([]string, error) {
			hungup <- struct{}{}
			return nil, errors.New("and it stays as it was")
		},
		reloads: new(reloads),
	}
	ctx, cancel := context.WithCancel(t.Context())
	hangups := make(chan os.Signal)
	done := make(chan struct{})
	go func() { defer close(done); h.run(ctx, hangups) }()
	for range 3 {
		hangups <- os.Interrupt
		<-hungup
	}
	cancel()
	<-done
	if last := h.reloads.document(); last.Begun != 3 || last.Ended != 3 || last.Error != "and it stays as it was" {
		t.Errorf("%+v", last)
	}
}

// TestHealthAtTheEnd doesn't take a probe that was cut short for a hang.
func TestHealthAtTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := &health{
		log:   slog.New(slog.DiscardHandler),
		probe: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() },
	}
	if !h.alive(ctx, time.Minute) || h.hung {
		t.Error("it is said to hang")
	}
	h.probe = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	if h.alive(t.Context(), time.Millisecond) || !h.hung {
		t.Error("a probe that took too long is said to be well")
	}
}
