package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	s.connections.add(c, 1)
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
	s.connections.add(r.connection, 1)
	defer s.connections.remove(r.connection)
	if s.connections.closeIdlest() {
		t.Error("a local connection was closed")
	}
}
