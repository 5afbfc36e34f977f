package clients_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// patience bounds every wait for something that must come; nothing waits that
// long unless the test is about to fail.
const patience = 40 * time.Second

// command is a program to run to its end.
type command struct {
	argv   []string
	file   string // the program, unless argv[0] names it
	uid    uint32 // runs as this user and group
	remote bool   // runs on the remote host
	// netpath, unless empty, is the list of netids that libtirpc tries where
	// it has the choice.
	netpath string
}

// line makes a command of words separated by spaces.
func line(words string) command { return command{argv: strings.Fields(words)} }

// String returns the command line as a shell prompt would show it.
func (c command) String() string {
	s := "$ " + strings.Join(c.argv, " ")
	if c.netpath != "" {
		s += " (NETPATH=" + c.netpath + ")"
	}
	if c.uid != 0 {
		s += fmt.Sprintf(" (as uid %d)", c.uid)
	}
	if c.remote {
		s += " (on the remote host)"
	}
	return s
}

// outcome is what a command said and how it ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// String returns everything that must be the same for both subjects.
func (o outcome) String() string {
	s := o.stdout
	if o.stderr != "" {
		s += "standard error:\n" + o.stderr
	}
	return s + fmt.Sprintf("exit %d\n", o.code)
}

// run runs the command; it fails the test when there is no such program or when
// it does not end.
func run(t *testing.T, ns *bed.NS, c command) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := prepare(t, ctx, c)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var err error
	if c.remote {
		ns.Remote(t, func() { err = cmd.Run() })
	} else {
		err = cmd.Run()
	}
	o := outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		t.Fatalf("%s: still running after %v:\n%s", c, patience, o)
	}
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatalf("%s: %v", c, err)
	}
	return o
}

// prepare makes the exec.Cmd of a command.
func prepare(t *testing.T, ctx context.Context, c command) *exec.Cmd {
	t.Helper()
	path := c.file
	if path == "" {
		var err error
		if path, err = look(c.argv[0]); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
	cmd := exec.CommandContext(ctx, path, c.argv[1:]...)
	cmd.Args[0] = c.argv[0]
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/"}
	if c.netpath != "" {
		cmd.Env = append(cmd.Env, "NETPATH="+c.netpath)
	}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if c.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.uid, Gid: c.uid}
	}
	return cmd
}

// server is a program that runs until the test ends.
type server struct {
	name   string
	cmd    *exec.Cmd
	log    log
	exited chan struct{}
}

// log collects output while it is being read.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start starts a server. It is killed at the end of the test, and what it said is
// logged when the test failed.
func start(t *testing.T, c command) *server {
	t.Helper()
	s := &server{name: filepath.Base(c.argv[0]), cmd: prepare(t, context.Background(), c), exited: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	go func() {
		s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.exited
		if t.Failed() {
			t.Logf("%s (%v) said:\n%s", c, s.cmd.ProcessState, indent(s.log.String()))
		}
	})
	return s
}

// await waits until the server has said text.
func (s *server) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s says %q", s.name, text), func() bool {
		if strings.Contains(s.log.String(), text) {
			return true
		}
		select {
		case <-s.exited:
			// The last words may have come after the look above.
			if !strings.Contains(s.log.String(), text) {
				t.Fatalf("%s ended (%v) before it said %q", s.name, s.cmd.ProcessState, text)
			}
			return true
		default:
			return false
		}
	})
}

// terminate sends SIGTERM and waits for the end.
func (s *server) terminate(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM to %s: %v", s.name, err)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Fatalf("%s is still there %v after SIGTERM", s.name, patience)
	}
}

// eventually polls until the condition holds and fails the test when it does
// not within patience: for what happens in processes that give no other sign.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-tick.C
	}
}

// buildTirpc compiles testdata/tirpc.c, once for all tests and processes, and
// returns where the command lies.
func buildTirpc(t *testing.T) string {
	t.Helper()
	path := filepath.Join(os.Getenv(envDir), "tirpc")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if _, err := os.Stat("/usr/include/tirpc/rpc/rpc.h"); err != nil {
		missing(t, fmt.Sprintf("needs libtirpc's headers: apt-get install libtirpc-dev (%v)", err))
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		missing(t, fmt.Sprintf("needs gcc: apt-get install gcc libc6-dev (%v)", err))
	}
	// libtirpc's callbacks have looser types than what they are given.
	cmd := exec.Command("gcc", "-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type", "-O1",
		"-I/usr/include/tirpc", "-o", path, "testdata/tirpc.c", "-ltirpc")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return path
}

// tirpc makes a command of tirpc's arguments.
func tirpc(t *testing.T, uid uint32, arguments string) command {
	t.Helper()
	return command{argv: append([]string{buildTirpc(t)}, strings.Fields(arguments)...), uid: uid}
}

// serve starts a service made with libtirpc and returns when it is registered.
func serve(t *testing.T, uid uint32, arguments string) *server {
	t.Helper()
	s := start(t, tirpc(t, uid, arguments))
	s.await(t, "serving\n")
	return s
}
