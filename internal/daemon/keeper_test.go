package daemon

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
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

// TestKeeperAdopts gives a keeper the connections of another portmapper: those that there is room for go to the store, and of
// the others clients see the end.
func TestKeeperAdopts(t *testing.T) {
	m := manager(t)
	t.Setenv("FDSTORE", "4")
	k := newKeeper(slog.New(slog.DiscardHandler))
	room := 4 / othersShare
	if os.Geteuid() == 0 {
		room = 4 / rootsShare
	}
	pairs := make([][2]int, room+1)
	var conns []*sys.Connection
	for i := range pairs {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		pairs[i] = pair
		t.Cleanup(func() { syscall.Close(pair[0]) })
		conns = append(conns, sys.ConnectionOf(pair[1]))
	}
	k.adopt(conns, room+1)
	if len(k.connections) != room || len(k.kept) != room {
		t.Errorf("adopted are %d and kept %d, want %d", len(k.connections), len(k.kept), room)
	}
	for i, pair := range pairs {
		if told := heard(t, m); strings.HasPrefix(told, "FDSTORE=1\n") != (i < room) {
			t.Errorf("connection %d: %q", i, told)
		}
		syscall.SetNonblock(pair[0], true)
		n, err := syscall.Read(pair[0], make([]byte, 1))
		if open := err == syscall.EAGAIN; open != (i < room) {
			t.Errorf("connection %d: read %d, %v", i, n, err)
		}
	}
	for _, conn := range k.connections {
		conn.Close()
	}
}

// TestKeeperAdoptsOfEach keeps to the bound of one user, which is none of root's, where nothing is kept.
func TestKeeperAdoptsOfEach(t *testing.T) {
	k := newKeeper(slog.New(slog.DiscardHandler))
	want := 1
	if os.Geteuid() == 0 {
		want = 3
	}
	var conns []*sys.Connection
	for range 3 {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(pair[0]) })
		conns = append(conns, sys.ConnectionOf(pair[1]))
	}
	k.adopt(conns, 1)
	if len(k.connections) != want {
		t.Errorf("adopted are %d, want %d", len(k.connections), want)
	}
	for _, conn := range k.connections {
		conn.Close()
	}
}

// TestPace lets as many pass at once as in a second, and then no more than the rate, whenever they come.
func TestPace(t *testing.T) {
	p, now := pace{rate: 8}, time.Unix(1000, 0)
	passed := 0
	for range 10 * 1000 { // ten seconds
		if p.pass(now) {
			passed++
		}
		now = now.Add(time.Millisecond)
	}
	if passed < 80 || passed > 90 {
		t.Errorf("%d passed in ten seconds, want 8 in each and 9 at the start", passed)
	}
	now = now.Add(time.Hour)
	passed = 0
	for range 100 {
		if p.pass(now) {
			passed++
		}
	}
	if passed < 8 || passed > 9 {
		t.Errorf("%d passed at once, want 8 or 9", passed)
	}
}

// TestKeeperIsInNoHurry has a service manager that takes nothing: it is left alone for a while.
func TestKeeperIsInNoHurry(t *testing.T) {
	m := manager(t)
	t.Setenv("FDSTORE", "1000")
	k := newKeeper(slog.New(slog.DiscardHandler))
	user := &portmap.Caller{Transport: portmap.Local, HasUID: true, UID: 1000}
	conns := connections(t, 20)
	for _, c := range conns {
		k.Keep(c, user, false)
	}
	if len(k.kept) < othersRate || len(k.kept) > othersRate+1 {
		t.Errorf("%d were kept at once, want %d", len(k.kept), othersRate)
	}
	for heard(t, m) != "" {
	}
	k.stalled = time.Now()
	if k.Keep(conns[19], &portmap.Caller{Transport: portmap.Local, HasUID: true}, false) {
		t.Error("kept by a service manager that has just taken nothing")
	}
	if told := heard(t, m); told != "" {
		t.Errorf("%q", told)
	}
}
