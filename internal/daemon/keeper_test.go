package daemon

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

// connections returns so many local connections, as a server has them.
func connections(t *testing.T, n int) []syscall.Conn {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all []syscall.Conn
	for range n {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); conn.Close() })
		all = append(all, conn)
	}
	return all
}

// TestKeeperIsBounded fills the store: each kind of caller has its share, and what is left over is for the end.
func TestKeeperIsBounded(t *testing.T) {
	m := manager(t)
	t.Setenv("FDSTORE", "8")
	k := newKeeper(slog.New(slog.DiscardHandler))
	if k.forServer() == nil {
		t.Fatal("nothing is kept")
	}
	root := &portmap.Caller{Transport: portmap.Local, HasUID: true}
	user := &portmap.Caller{Transport: portmap.Local, HasUID: true, UID: 1000}
	unknown := &portmap.Caller{Transport: portmap.TCP}
	conns := connections(t, 12)
	next := 0
	keep := func(from *portmap.Caller, atEnd, want bool) syscall.Conn {
		t.Helper()
		c := conns[next]
		next++
		if got := k.Keep(c, from, atEnd); got != want {
			t.Errorf("connection %d: kept %v, want %v", next, got, want)
		}
		if told := heard(t, m); strings.HasPrefix(told, "FDSTORE=1\n") != want {
			t.Errorf("connection %d: %q", next, told)
		}
		return c
	}
	keep(user, false, true)
	first := keep(unknown, false, true)
	keep(user, false, false)
	for range 4 {
		keep(root, false, true)
	}
	keep(root, false, false)
	k.Forget(first)
	if told := heard(t, m); !strings.HasPrefix(told, "FDSTOREREMOVE=1\n") {
		t.Errorf("%q", told)
	}
	k.Forget(first)
	if told := heard(t, m); told != "" {
		t.Errorf("forgotten twice: %q", told)
	}
	keep(user, false, true)
	keep(user, true, true)
	keep(user, true, true)
	keep(root, true, false) // 8 are kept
}

// TestKeeperTellsOnceThatItCannot has a service manager that is gone.
func TestKeeperTellsOnceThatItCannot(t *testing.T) {
	m := manager(t)
	t.Setenv("FDSTORE", "8")
	var log strings.Builder
	k := newKeeper(slog.New(slog.NewTextHandler(&log, nil)))
	m.Close()
	for _, c := range connections(t, 3) {
		if k.Keep(c, &portmap.Caller{Transport: portmap.Local}, true) {
			t.Error("kept by nobody")
		}
	}
	k.settle()
	if n := strings.Count(log.String(), "doesn't keep what it should"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, log.String())
	}
	t.Setenv("FDSTORE", "")
	if k := newKeeper(slog.New(slog.DiscardHandler)); k.forServer() != nil {
		t.Error("a keeper without a store")
	}
}
