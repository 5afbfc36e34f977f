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

// Without a descriptor, and with no connection to close for one, listeners rest until one is closed, and one line in the log
// tells of it.
func TestShortageRests(t *testing.T) {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		var log logged
		r := newStreamRig(t, Config{Portmapper: &fake{}, Log: log.logger()}, listenLocal(t))
		c := r.dial()
		if !ofHost(os.NewSyscallError("accept4", shortage)) || ofConnection(shortage) {
			t.Errorf("%v is no shortage of the host", shortage)
		}
		for range 3 {
			if r.shortage(r.listeners[0], shortage) {
				t.Error("a local connection was closed")
			}
			if !r.resting || r.timeout() <= 0 || r.timeout() > shortagePause {
				t.Errorf("%v: resting %v, timeout %v", shortage, r.resting, r.timeout())
			}
		}
		late := dial(t, r.socket)
		c.Close()
		for r.resting {
			r.step()
		}
		for r.open == 0 {
			r.step()
		}
		late.send(record("a"))
		r.step()
		late.expect("re:a")
		if n := log.count("short of"); n != 1 {
			t.Errorf("%v: %d lines, want 1", shortage, n)
		}
	}
}

// Errors of accept(2) about a connection end nothing and wait for nothing; those about the listener are the end.
func TestAcceptErrors(t *testing.T) {
	for _, err := range []error{syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.EHOSTUNREACH} {
		if !ofConnection(os.NewSyscallError("accept4", err)) || ofHost(err) {
			t.Errorf("%v isn't about a connection", err)
		}
	}
	for _, err := range []error{syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, net.ErrClosed, os.ErrClosed} {
		if ofConnection(err) || ofHost(err) || !isBroken(err) {
			t.Errorf("%v isn't about the listener", err)
		}
	}
	if err := syscall.EIO; ofConnection(err) || ofHost(err) || isBroken(err) {
		t.Errorf("%v is known", err)
	}
	r := newStreamRig(t, Config{Portmapper: &fake{}}, listenTCP(t))
	fd := r.listeners[0].fd
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := syscall.Dup3(int(null.Fd()), fd, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := r.accept(r.listeners[0]); !errors.Is(err, syscall.ENOTSOCK) || !strings.Contains(err.Error(), "tcp") {
		t.Errorf("the loop ends with %v", err)
	}
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

// TestWhoLosesAtABound fills a loop with each kind of caller: one peer's newest connection loses, callers on this host lose
// nothing to others, and root's have a reserve.
func TestWhoLosesAtABound(t *testing.T) {
	remote := func(n byte) portmap.Caller {
		return portmap.Caller{Transport: portmap.TCP, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 900)}
	}
	loopback := portmap.Caller{Transport: portmap.TCP, Remote: netip.MustParseAddrPort("127.0.0.1:900"), Loopback: true}
	user := func(uid uint32) portmap.Caller {
		return portmap.Caller{Transport: portmap.Local, Loopback: true, UID: uid, HasUID: true}
	}
	r := newStreamRig(t, Config{Portmapper: &fake{}, MaxConnections: 4, MaxConnectionsEach: 2, Descriptors: 6}, listenLocal(t))
	enter := func(from portmap.Caller, want bool) *streamConnection {
		t.Helper()
		_, _, before := r.server.Connections()
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(pair[1]) })
		r.now++
		r.enter(pair[0], from)
		if _, _, after := r.server.Connections(); after != before+1 == want {
			t.Errorf("%+v is taken %v, want %v", from, !want, want)
		}
		for _, c := range r.table {
			if c != nil && c.fd == pair[0] {
				return c
			}
		}
		return nil
	}
	there := func(c *streamConnection, want bool) {
		t.Helper()
		if got := r.table[c.slot] == c; got != want {
			t.Errorf("%+v is there %v, want %v", c.stream.from, got, want)
		}
	}
	first, second := enter(remote(1), true), enter(remote(1), true)
	enter(remote(1), false) // too many of one address
	ours := []*streamConnection{enter(loopback, true), enter(loopback, true)}
	enter(loopback, true) // the fifth: the idlest of another host goes
	there(first, false)
	enter(remote(2), true)
	there(second, false)
	for range 2 {
		enter(user(1000), true) // 6 in all
	}
	enter(user(1000), false) // too many of one user
	enter(user(1001), true)  // for a connection of this host by TCP, which has its share
	enter(user(1001), true)  // and for another
	enter(user(1002), true)
	enter(user(1003), false) // none of this host is left to be closed, and the rest is for other hosts
	enter(remote(3), true)   // for the other one of them
	for range 10 {
		enter(user(0), true)
	}
	for _, c := range ours {
		there(c, false)
	}
	if tcp, locals, _ := r.server.Connections(); tcp != 1 || locals != 15 {
		t.Errorf("%d TCP and %d local connections", tcp, locals)
	}
	for _, c := range r.table {
		if c != nil {
			r.drop(c)
		}
	}
	if n := &r.server.connections; len(n.each) != 0 || n.root != 0 || n.count != 0 {
		t.Errorf("an empty loop counts %v and %d of root", n.each, n.root)
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
