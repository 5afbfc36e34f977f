package bed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Subject is a daemon under test.
type Subject int

const (
	// Rpcbind is Linux's rpcbind as the distribution ships it: the oracle.
	Rpcbind Subject = iota
	// Gportmap is this repository's daemon.
	Gportmap
)

// String returns "rpcbind" or "gportmap".
func (s Subject) String() string {
	if s == Rpcbind {
		return "rpcbind"
	}
	return "gportmap"
}

// Subjects returns what there is to test: gportmap always, rpcbind before it
// where it is installed. Where it is not, a log line says so.
func Subjects(t *testing.T) []Subject {
	t.Helper()
	if _, err := rpcbindPath(); err != nil {
		t.Logf("without rpcbind, so gportmap only: apt-get install rpcbind (%v)", err)
		return []Subject{Gportmap}
	}
	return []Subject{Rpcbind, Gportmap}
}

// NeedRpcbind skips the test where the oracle is not installed.
func NeedRpcbind(t *testing.T) {
	t.Helper()
	if _, err := rpcbindPath(); err != nil {
		t.Skipf("needs rpcbind as the oracle: apt-get install rpcbind (%v)", err)
	}
}

func rpcbindPath() (string, error) {
	// Where PATH is a user's it lacks the directories of daemons.
	for _, path := range []string{"/usr/sbin/rpcbind", "/sbin/rpcbind"} {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return exec.LookPath("rpcbind")
}

// Path returns the program file of the subject, or an error that says how to
// get one.
func (s Subject) Path() (string, error) {
	if s == Rpcbind {
		return rpcbindPath()
	}
	if path := os.Getenv(envBinary); path != "" {
		return path, nil
	}
	if why := os.Getenv(envBuildError); why != "" {
		return "", errors.New(why)
	}
	return "", errors.New("gportmap was not built: TestMain does not call bed.Main")
}

// Daemon is a running subject.
type Daemon struct {
	Subject Subject
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended; waitErr is set before
	waitErr error
	// signalled tells that the test itself may have ended the process.
	signalled atomic.Bool
	log       lockedBuffer
}

// Start runs the subject in the foreground as root with the given further
// arguments (rpcbind's flags, which both understand) and returns when it answers
// on /run/rpcbind.sock. rpcbind always gets -f -w, as Debian runs it, gportmap
// -f. It is killed at the end of the test, which fails if the subject ended by
// itself before that; if the test failed its output is logged. What an earlier
// daemon of the same namespaces has saved in /run/rpcbind is registered again;
// see ForgetRegistrations.
func (ns *NS) Start(t *testing.T, s Subject, args ...string) *Daemon {
	t.Helper()
	d := ns.StartBare(t, s, args...)
	t.Cleanup(func() {
		select {
		case <-d.exited:
			if !d.signalled.Load() {
				t.Errorf("%v ended by itself: %v", s, d.waitErr)
			}
		default:
		}
	})
	if err := d.waitReady(); err != nil {
		t.Fatalf("bed: %v\n%s", err, quote(d.Log()))
	}
	return d
}

// StartBare is Start without waiting for an answer: for arguments with which
// the subject ends at once, or listens elsewhere.
func (ns *NS) StartBare(t *testing.T, s Subject, args ...string) *Daemon {
	t.Helper()
	path, err := s.Path()
	if err != nil {
		t.Fatalf("bed: no %v to start: %v", s, err)
	}
	own := []string{"-f"}
	if s == Rpcbind {
		own = []string{"-f", "-w"}
	}
	d := &Daemon{Subject: s, cmd: exec.Command(path, append(own, args...)...), exited: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	// A daemon in the background would keep the pipe of its output open.
	d.cmd.WaitDelay = time.Second
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("bed: start %v: %v", s, err)
	}
	go func() {
		d.waitErr = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.exited
		if strings.Contains(d.Log(), "WARNING: DATA RACE") {
			t.Errorf("%v has a data race", s)
		}
		if t.Failed() && d.Log() != "" {
			t.Logf("%v said:\n%s", s, quote(d.Log()))
		}
	})
	return d
}

// readyTimeout bounds how long a daemon may take to start; it is generous
// because a race-built daemon on a busy machine is slow.
const readyTimeout = 20 * time.Second

// waitReady polls until the daemon answers a NULL call on the local socket.
// Both subjects bind every socket before they serve the first one.
func (d *Daemon) waitReady() error {
	deadline := time.Now().Add(readyTimeout)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	var last error
	for time.Now().Before(deadline) {
		select {
		case <-d.exited:
			return fmt.Errorf("%v ended before it answered: %v", d.Subject, d.waitErr)
		case <-poll.C:
		}
		if last = ping(Unix); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%v did not answer on %s within %v: %v", d.Subject, SocketPath, readyTimeout, last)
}

// PID returns the process id of the daemon, in the test's process namespace.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends the daemon a signal.
func (d *Daemon) Signal(sig os.Signal) error {
	d.signalled.Store(true)
	return d.cmd.Process.Signal(sig)
}

// Stop sends SIGTERM and returns how the process ended, as exec.Cmd.Wait does.
func (d *Daemon) Stop() error {
	if err := d.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return d.Wait()
}

// Wait waits for the end of the process and returns what exec.Cmd.Wait does; it
// gives up with an error after twenty seconds.
func (d *Daemon) Wait() error {
	select {
	case <-d.exited:
		return d.waitErr
	case <-time.After(readyTimeout):
		return fmt.Errorf("%v is still running after %v", d.Subject, readyTimeout)
	}
}

// Log returns what the daemon wrote to standard output and standard error.
func (d *Daemon) Log() string { return d.log.String() }

// lockedBuffer collects output while it is being read.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Exited is closed when the process has ended.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }
