package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// endTime is how long a daemon may take to end. One that hangs does so for ever.
const endTime = 10 * time.Second

// endsSoon waits for a process that was told to end, and fails if it doesn't.
func endsSoon(t *testing.T, cmd *exec.Cmd, when string) {
	t.Helper()
	hung := time.AfterFunc(endTime, func() { cmd.Process.Signal(syscall.SIGABRT) }) // shows where each goroutine is
	defer hung.Stop()
	began := time.Now()
	_ = cmd.Wait() // the exit code is the caller's to judge
	if took := time.Since(began); took >= endTime {
		t.Fatalf("%s: the daemon was still there after %v", when, took)
	}
}

// TestSignalDuringTheStart tells a daemon to end at every moment of its start. It ends, and the next one starts.
func TestSignalDuringTheStart(t *testing.T) {
	a := instanceFor(t)
	began := time.Now()
	start(t, a.args()...).end(t, syscall.SIGTERM)
	whole := time.Since(began)
	rounds := 120
	if testing.Short() {
		rounds = 40
	}
	pidFile := filepath.Join(a.dir, "gportmap.pid")
	for n := range rounds {
		cmd := exec.Command(os.Getenv(binaryEnv), a.args("-f")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		delay := time.Duration(rand.Int64N(int64(whole)))
		when := fmt.Sprintf("%v after the start", delay)
		if n%2 == 0 {
			// From the pid file on it is told to end by scripts.
			when = "as soon as it has its pid file"
			for info, err := os.Stat(pidFile); err != nil || info.Size() == 0; info, err = os.Stat(pidFile) {
				if time.Since(began) > 5*limit {
					t.Fatal("no pid file comes")
				}
			}
		} else {
			time.Sleep(delay)
		}
		cmd.Process.Signal([]os.Signal{syscall.SIGTERM, syscall.SIGINT}[n/2%2])
		endsSoon(t, cmd, when)
		if code := cmd.ProcessState.ExitCode(); code != 0 && code != -1 { // -1: before it handles signals
			t.Errorf("%s: exit code %d", when, code)
		}
	}
	r := start(t, a.args()...)
	a.ask(t)
	if code := r.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	a.gone(t)
}

// TestSignalDuringTheStartInTheBackground: who starts a daemon that is told to end before it serves learns that it doesn't.
func TestSignalDuringTheStartInTheBackground(t *testing.T) {
	a := instanceFor(t)
	for range 20 {
		cmd := exec.Command(os.Getenv(binaryEnv), a.args()...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(30 * time.Millisecond))))
		cmd.Process.Signal(syscall.SIGTERM)
		endsSoon(t, cmd, "in the background")
		// It may have served before the signal came.
		if code, _, stderr := execute(t, append([]string{"stop"}, a.args()...)...); code != 0 {
			t.Errorf("stop: exit code %d, %s", code, stderr)
		}
	}
	if code, _, stderr := execute(t, a.args()...); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	a.ask(t)
	a.stop(t, a.holderOf(t))
}

// TestSignalUnderManyCalls tells a daemon to end that has just answered many calls of one client at once.
func TestSignalUnderManyCalls(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 40
	}
	a := instanceFor(t)
	var calls []byte
	for range 16 {
		from := len(calls)
		calls = oncrpc.AppendCall(oncrpc.BeginRecord(calls), oncrpc.Call{XID: 1, Program: rpcbind.Program, Version: 4, Procedure: 0})
		oncrpc.EndRecord(calls, from)
	}
	for range rounds {
		r := start(t, a.args()...)
		conn, err := net.Dial("unix", a.socket())
		if err != nil {
			t.Fatal(err)
		}
		const reply = 28 // octets of NULL's, with the record mark
		for range 3 {
			if _, err := conn.Write(calls); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 16*reply)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(rand.Int64N(int64(60 * time.Microsecond))))
		r.cmd.Process.Signal(syscall.SIGTERM)
		go io.Copy(io.Discard, r.stderr)
		endsSoon(t, r.cmd, "after 16 calls at once")
		conn.Close()
	}
}

// TestActivationThatIsWrong starts a daemon with variables that don't say what was passed: each ends with an error that says what
// is wrong, or serves.
func TestActivationThatIsWrong(t *testing.T) {
	a := instanceFor(t)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: a.port})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	passed := []*os.File{file(t, udp)}
	for _, c := range []struct {
		name, script string
		files        []*os.File
		code         int
		stderr       []string
	}{
		{"more than was passed", `LISTEN_FDS=9 LISTEN_PID=$$ exec "$0" "$@"`, passed, daemon.ExitConfig, []string{"LISTEN_FDS=9", "was not passed"}},
		{"none was passed", `LISTEN_FDS=2 LISTEN_PID=$$ exec "$0" "$@"`, nil, daemon.ExitConfig, []string{"LISTEN_FDS=2", "descriptor 3 was not passed"}},
		{"a wrapper that stays", `LISTEN_FDS=1 LISTEN_PID=$$ "$0" "$@"; exit $?`, passed, daemon.ExitConfig, []string{"LISTEN_PID=", "by exec", "in use"}},
	} {
		cmd := exec.Command("sh", append([]string{"-c", c.script, os.Getenv(binaryEnv)}, a.args("-f", "-h", "127.0.0.1")...)...)
		cmd.ExtraFiles = c.files
		code, _, stderr := finish(t, cmd)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, code, c.code, stderr)
		}
		for _, want := range c.stderr {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in %s", c.name, want, stderr)
			}
		}
		if strings.Contains(stderr, "goroutine") {
			t.Errorf("%s: a crash: %s", c.name, stderr)
		}
	}
	// A variable that was left over by somebody who had sockets hinders nobody.
	udp.Close()
	passed[0].Close()
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	r := start(t, a.args()...)
	a.ask(t)
	r.end(t, syscall.SIGTERM)
}

// TestProcessOne runs gportmap as process 1 of a pid namespace, without -f: it stays, reaps who loses his parent, and ends when it
// is told.
func TestProcessOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a pid namespace")
	}
	a := instanceFor(t)
	cmd := exec.Command(os.Getenv(binaryEnv), a.args()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	r := launch(t, cmd)
	r.until(t, "started")
	a.ask(t)
	// In its namespace: a child whose parent ends is the daemon's.
	enter := exec.Command("nsenter", "-t", strconv.Itoa(cmd.Process.Pid), "-p", "sh", "-c", "for i in 1 2 3 4 5; do (sleep .2 & exec sleep 0) & done; exit 0")
	if out, err := enter.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	children := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	time.Sleep(300 * time.Millisecond)
	for end := time.Now().Add(limit); children() != ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("children that nobody waits for: %s", children())
		}
	}
	a.ask(t)
	began := time.Now()
	if code := r.end(t, syscall.SIGTERM); code != 0 || time.Since(began) > endTime {
		t.Errorf("exit code %d after %v", code, time.Since(began))
	}
	a.gone(t)
}
