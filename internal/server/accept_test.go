package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// childEnv names the environment variable by which this test program, run again, serves with few descriptors. It holds
// the path of the local socket.
const childEnv = "GPORTMAP_TEST_SERVE_WITH_FEW_DESCRIPTORS"

const fewDescriptors = 32

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := serveWithFewDescriptors(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveWithFewDescriptors serves until standard input ends. It prints its TCP address and then its log.
func serveWithFewDescriptors(path string) error {
	few := syscall.Rlimit{Cur: fewDescriptors, Max: fewDescriptors}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		return err
	}
	tcp, err := sys.ListenTCP(loopback4)
	if err != nil {
		return err
	}
	local, err := sys.ListenLocal(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	s := New(Config{Portmapper: &fake{}, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	return s.Serve(ctx, []*sys.Socket{tcp, local}, func() { fmt.Println(tcp.Addr) })
}

// child is a process that serves with few descriptors.
type child struct {
	t          *testing.T
	tcp, local *sys.Socket
	process    *exec.Cmd
	stdin      io.Closer
	stdout     *bufio.Reader
	stderr     strings.Builder
}

func startChild(t *testing.T) *child {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	c := &child{t: t, process: exec.Command(os.Args[0]), local: &sys.Socket{Netid: "local", Path: path}}
	c.process.Env = append(os.Environ(), childEnv+"="+path)
	c.process.Stderr = &c.stderr
	stdin, err := c.process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin, c.stdout = stdin, bufio.NewReader(stdout)
	if err := c.process.Start(); err != nil {
		t.Fatal(err)
	}
	c.tcp = &sys.Socket{Netid: "tcp", Addr: addrPort(c.line())}
	return c
}

// line returns the next line of the child's output.
func (c *child) line() string {
	c.t.Helper()
	line, err := c.stdout.ReadString('\n')
	if err != nil {
		c.stdin.Close()
		c.t.Fatalf("child: %v, %v\n%s", err, c.process.Wait(), c.stderr.String())
	}
	return strings.TrimSpace(line)
}

// awaitShortage waits for the line in the log that tells of the shortage.
func (c *child) awaitShortage() {
	c.t.Helper()
	if line := c.line(); !strings.Contains(line, "short of file descriptors") {
		c.t.Errorf("the log says %s", line)
	}
}

// end ends the child. Its log has to have no more to say.
func (c *child) end() {
	c.t.Helper()
	c.stdin.Close()
	rest, _ := io.ReadAll(c.stdout)
	if err := c.process.Wait(); err != nil || len(rest) > 0 {
		c.t.Errorf("child: %v\n%s%s", err, rest, c.stderr.String())
	}
}

// A storm of TCP connections that stay open takes every descriptor; each is served nevertheless, at the cost of the
// idlest, and local ones stay. One line in the log tells of it.
func TestFewDescriptorsTCP(t *testing.T) {
	child := startChild(t)
	kept := dial(t, child.local)
	kept.send(record("a"))
	kept.expect("re:a")
	for i := range 5 * fewDescriptors {
		c := dial(t, child.tcp)
		c.send(record(fmt.Sprint(i)))
		c.expect(fmt.Sprint("re:", i))
		if i%fewDescriptors == 0 {
			l := dial(t, child.local)
			l.send(record("b"))
			l.expect("re:b")
			l.Close()
		}
	}
	kept.send(record("c"))
	kept.expect("re:c")
	child.awaitShortage()
	child.end()
}

// Local connections are not closed for others. Who comes when they hold every descriptor waits for one to close.
func TestFewDescriptorsLocal(t *testing.T) {
	child := startChild(t)
	var open []*client
	for range fewDescriptors {
		c := dial(t, child.local)
		c.send(record("a"))
		open = append(open, c)
	}
	child.awaitShortage() // the last ones wait in the queue
	for i, c := range open {
		c.expect("re:a")
		if i < fewDescriptors/2 {
			c.Close()
		}
	}
	late := dial(t, child.tcp)
	late.send(record("b"))
	late.expect("re:b")
	for _, c := range open[fewDescriptors/2:] {
		c.send(record("c"))
		c.expect("re:c")
	}
	child.end()
}

// scriptedListener is a listener whose Accept returns given errors, and then net.ErrClosed.
type scriptedListener struct {
	net.Listener
	errs []error
}

func (l *scriptedListener) SetDeadline(time.Time) error { return nil }

func (l *scriptedListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return nil, net.ErrClosed
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

// A shortage that closing a connection can't help makes the loop wait before each new try, and one line in the log.
func TestShortageWaits(t *testing.T) {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		var log logged
		s := New(Config{Portmapper: &fake{}, Log: log.logger()})
		l, err := newAcceptLoop(s, &sys.Socket{
			Netid:    "tcp",
			Listener: &scriptedListener{errs: []error{shortage, shortage, shortage}},
		})
		if err != nil {
			t.Fatal(err)
		}
		waits := 0
		l.pause = func() { waits++ }
		if err := l.run(func() {}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v: the loop ended with %v", shortage, err)
		}
		if n := log.count("short of"); waits != 3 || n != 1 {
			t.Errorf("%v: %d waits and %d lines, want 3 and 1", shortage, waits, n)
		}
	}
}

// Errors of accept(2) about a connection end nothing and wait for nothing.
func TestAcceptErrorsOfAConnection(t *testing.T) {
	errs := []error{syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.EHOSTUNREACH}
	l, err := newAcceptLoop(New(Config{Portmapper: &fake{}}), &sys.Socket{Listener: &scriptedListener{errs: errs}})
	if err != nil {
		t.Fatal(err)
	}
	l.pause = func() { t.Error("the loop waits") }
	if err := l.run(func() {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the loop ended with %v", err)
	}
}

func TestAcceptErrorsOfTheListener(t *testing.T) {
	for _, err := range []error{syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK} {
		l, newErr := newAcceptLoop(New(Config{Portmapper: &fake{}}), &sys.Socket{
			Netid:    "tcp",
			Listener: &scriptedListener{errs: []error{err}},
		})
		if newErr != nil {
			t.Fatal(newErr)
		}
		if got := l.run(func() {}); !errors.Is(got, err) || !strings.Contains(got.Error(), "tcp") {
			t.Errorf("%v: the loop ended with %v", err, got)
		}
	}
}

// pause ends when a connection closes, so that its descriptor is used at once.
func TestPauseEndsWhenAConnectionCloses(t *testing.T) {
	s := New(Config{Portmapper: &fake{}})
	c := &connection{server: s}
	s.connections.add(c, bounds{tcp: 1})
	s.connections.remove(c)
	s.pause(time.Hour, s.connections.freed)
	close(s.stopped)
	s.pause(time.Hour, s.connections.freed)
}

// One connection more than allowed closes the idlest, which is the one whose last call is longest ago.
func TestMaxConnections(t *testing.T) {
	tcp, local := listenTCP(t), listenLocal(t)
	start(t, Config{Portmapper: &fake{}, MaxConnections: 3}, tcp, local)
	call := func(c *client) {
		t.Helper()
		c.send(record("a"))
		c.expect("re:a")
	}
	l, a, b, c := dial(t, local), dial(t, tcp), dial(t, tcp), dial(t, tcp)
	for _, each := range []*client{l, a, b, c, b, a} {
		call(each)
	}
	d := dial(t, tcp)
	call(d)
	c.expectEnd()
	for _, each := range []*client{l, a, b, d} {
		call(each)
	}
}

func TestCloseIdlestWithoutOne(t *testing.T) {
	s := New(Config{Portmapper: &fake{}})
	r := newRig(t, Config{Portmapper: &fake{}}, listenLocal(t))
	s.connections.add(r.connection, bounds{tcp: 1})
	defer s.connections.remove(r.connection)
	if s.connections.closeIdlest() {
		t.Error("a local connection was closed")
	}
}

// pipeFrom makes a connection of a caller for a table that closes it by itself.
func pipeFrom(t *testing.T, s *Server, from portmap.Caller) *connection {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return &connection{server: s, conn: pipeConn{ours}, local: from.Transport == portmap.Local, stream: stream{from: from}}
}

type pipeConn struct{ net.Conn }

func (pipeConn) CloseWrite() error { return nil }

func (pipeConn) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// TestWhoLosesAtABound fills a table with each kind of caller: one peer's newest connection loses, callers on this host lose
// nothing to others, and root's have a reserve.
func TestWhoLosesAtABound(t *testing.T) {
	remote := func(n byte) portmap.Caller {
		return portmap.Caller{Transport: portmap.TCP, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 900)}
	}
	loopback := portmap.Caller{Transport: portmap.TCP, Remote: netip.MustParseAddrPort("127.0.0.1:900"), Loopback: true}
	local := func(uid uint32) portmap.Caller {
		return portmap.Caller{Transport: portmap.Local, Loopback: true, UID: uid, HasUID: true}
	}
	s := New(Config{Portmapper: &fake{}})
	b := bounds{tcp: 4, each: 2, descriptors: 6}
	add := func(from portmap.Caller, want bool) *connection {
		t.Helper()
		c := pipeFrom(t, s, from)
		if got := s.connections.add(c, b); got != want {
			t.Errorf("%+v is taken %v, want %v", from, got, want)
		}
		return c
	}
	there := func(c *connection, want bool) {
		t.Helper()
		s.connections.mu.Lock()
		defer s.connections.mu.Unlock()
		if _, got := s.connections.all[c]; got != want {
			t.Errorf("%+v is there %v, want %v", c.stream.from, got, want)
		}
	}
	first := add(remote(1), true)
	first.active.Store(1)
	second := add(remote(1), true)
	second.active.Store(2)
	add(remote(1), false) // too many of one address
	own := []*connection{add(loopback, true), add(loopback, true)}
	add(loopback, true) // the fifth: the idlest of another host goes
	there(first, false)
	add(remote(2), true)
	there(second, false)
	for range 2 {
		add(local(1000), true) // 6 in all
	}
	add(local(1000), false) // too many of one user
	add(local(1001), true)  // for a connection of another host
	add(local(1001), true)  // then for one of this host by TCP
	for _, uid := range []uint32{1002, 1003} {
		add(local(uid), true)
	}
	add(local(1004), false) // none is left to be closed
	add(remote(3), false)
	for range 10 {
		add(local(0), true)
	}
	for _, c := range own {
		there(c, false)
	}
	if tcp, locals, _ := s.connections.counts(); tcp != 0 || locals != 16 {
		t.Errorf("%d TCP and %d local connections", tcp, locals)
	}
	for c := range s.connections.all {
		s.connections.remove(c)
	}
	if len(s.connections.each) != 0 || s.connections.root != 0 {
		t.Errorf("an empty table counts %v and %d of root", s.connections.each, s.connections.root)
	}
}

// TestConnectionsOfOneUser holds the bound for the local socket, and that root has none.
func TestConnectionsOfOneUser(t *testing.T) {
	local := listenLocal(t)
	start(t, Config{Portmapper: &fake{}, MaxConnectionsEach: 2}, local)
	clients := []*client{dial(t, local), dial(t, local), dial(t, local)}
	for i, c := range clients {
		if i == 2 && os.Geteuid() != 0 {
			c.expectEnd()
			continue
		}
		c.send(record("a"))
		c.expect("re:a")
	}
}

func TestSetLimits(t *testing.T) {
	s := New(Config{Portmapper: &fake{}, IdleTimeout: time.Hour})
	s.SetLimits(Config{MaxRecord: 100, MaxConnections: 7})
	if l := s.limits.Load(); l.MaxRecord != 100 || l.MaxConnections != 7 || l.IdleTimeout != DefaultIdleTimeout {
		t.Errorf("%+v", l)
	}
	r := NewRelay(0)
	r.SetLimit(1)
	if r.limit != 1 {
		t.Errorf("%d", r.limit)
	}
}
