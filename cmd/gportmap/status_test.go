package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/daemon"
)

// has fails unless a command had that exit code and said every text.
func has(t *testing.T, what string, code, want int, said string, texts ...string) {
	t.Helper()
	if code != want {
		t.Errorf("%s: exit code %d, want %d: %s", what, code, want, said)
	}
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%s: %q lacks %q", what, said, text)
		}
	}
}

// TestLifeOfAnInstance asks for the status at each step of an instance's life.
func TestLifeOfAnInstance(t *testing.T) {
	a := instanceFor(t)
	do := func(command string, want int, texts ...string) string {
		t.Helper()
		code, stdout, stderr := execute(t, append([]string{command}, a.args()...)...)
		has(t, command, code, want, stdout+stderr, texts...)
		return stdout
	}
	do("status", daemon.StatusStopped, "stopped\n")
	do("doctor", 0, "nothing is wrong")
	if _, err := os.Stat(a.dir); err == nil {
		t.Errorf("to look made %s", a.dir)
	}
	do("stop", 0, "not running")
	do("reload", exitNotRunning, "not running")

	r := start(t, a.args()...)
	pid := fmt.Sprintf("running (pid %d, ", r.cmd.Process.Pid)
	do("status", 0, pid, fmt.Sprintf("tcp 0.0.0.0:%d", a.port), "registrations: 0\n")
	do("doctor", 0, "runs", "nothing is wrong")
	if code, _, stderr := execute(t, "set", "--socket", a.socket(), "300000", "1", "tcp", "192.0.2.1.8.1"); code != 0 {
		t.Fatal(stderr)
	}
	do("status", 0, "registrations: 1\n", "state: all in "+filepath.Join(a.dir, "rpcbind.xdr"))
	do("reload", 0)
	r.until(t, "SIGHUP")

	// Killed, it leaves its files. Status removes them, and tells so once.
	pidFile := filepath.Join(a.dir, "gportmap.pid")
	r.end(t, syscall.SIGKILL)
	if _, err := os.Stat(pidFile); err != nil {
		t.Fatal(err)
	}
	do("doctor", 1, pidFile+" is stale", "--fix")
	do("status", daemon.StatusStopped, "stopped (stale lock removed: ", pidFile, a.lock())
	do("status", daemon.StatusStopped, "stopped\n")
	a.gone(t)

	// So does a start, and has what was registered.
	r = start(t, a.args()...)
	do("status", 0, "registrations: 1\n")
	r.end(t, syscall.SIGKILL)
	r = start(t, a.args()...)
	do("status", 0, "registrations: 1\n")

	// The file is behind the table when it can't be written.
	if err := os.WriteFile(filepath.Join(a.dir, "rpcbind.xdr"), make([]byte, 4), 0o600); err != nil {
		t.Fatal(err)
	}
	do("status", 0, "1 registrations are not in", "note: ")

	ended := make(chan struct{})
	go func() {
		r.cmd.Wait() // else it stays a zombie
		close(ended)
	}()
	do("stop", 0)
	<-ended
	do("status", daemon.StatusStopped, "stopped\n")
	a.gone(t)
}

func TestStatusInJSON(t *testing.T) {
	a := instanceFor(t)
	status := func(want int) daemon.Status {
		t.Helper()
		code, stdout, stderr := execute(t, append([]string{"status", "--json"}, a.args()...)...)
		var s daemon.Status
		if err := json.Unmarshal([]byte(stdout), &s); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		if code != want || s.ExitCode != code {
			t.Errorf("exit code %d and %d, want %d", code, s.ExitCode, want)
		}
		return s
	}
	if s := status(3); s.State != daemon.StateStopped || s.Process != nil || s.Registrations != nil {
		t.Errorf("%+v", s)
	}
	r := start(t, a.args()...)
	s := status(0)
	_, version, _ := execute(t, "-v")
	if s.State != daemon.StateRunning || s.Process == nil || s.Process.PID != r.cmd.Process.Pid || !s.Process.Gportmap || !s.Process.Same ||
		!strings.HasPrefix(version, "gportmap "+s.Process.Version+"\n") || s.Registrations == nil || *s.Registrations != 0 || s.Saved == nil || len(s.Serves) < 3 {
		t.Errorf("%+v %+v", s, s.Process)
	}
	r.end(t, syscall.SIGKILL)
	if s := status(3); s.State != daemon.StateStopped || len(s.Removed) < 2 || len(s.Stale) != 0 {
		t.Errorf("%+v", s)
	}

	var d daemon.Diagnosis
	_, stdout, _ := execute(t, append([]string{"doctor", "--json"}, a.args()...)...)
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || !d.OK || len(d.Findings) == 0 {
		t.Errorf("%v: %s", err, stdout)
	}
}

func TestControlsExitCodes(t *testing.T) {
	a := instanceFor(t)
	for _, c := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"status", "--help"}, 0, "status [--json]"},
		{[]string{"doctor", "--help"}, 0, "doctor [--fix] [--json]"},
		{[]string{"status", "--fix"}, 64, "--fix"},
		{[]string{"doctor", "extra"}, 64, "extra"},
		{[]string{"stop", "--json"}, 64, "--json"},
		{[]string{"status", "--port", "0"}, 64, "--port"},
		// A script gives the very options that it starts the daemon with.
		{append([]string{"status", "-w", "-l", "-h", "127.0.0.1"}, a.args()...), 3, "stopped"},
		{append([]string{"doctor", "-h", "192.0.2.77"}, a.args()...), 1, "192.0.2.77"},
	} {
		code, stdout, stderr := execute(t, c.args...)
		has(t, strings.Join(c.args, " "), code, c.code, stdout+stderr, c.said)
	}
}

// TestTwoStartsAtTheSameTime, a hundred times: one of them serves, and the other one says who won. In between the winner
// is killed as often as it is stopped, so that half of the starts find stale files.
func TestTwoStartsAtTheSameTime(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	const sideBySide = 4
	var group sync.WaitGroup
	defer group.Wait()
	for n := range sideBySide {
		a := instanceFor(t)
		group.Go(func() {
			for round := n; round < rounds && !t.Failed(); round += sideBySide {
				if err := a.race(round/sideBySide%2 == 0); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
		})
	}
}

// A contender is one of two that start at the same time.
type contender struct {
	cmd    *exec.Cmd
	stderr strings.Builder
	lines  chan string // what it says; closed at its end
}

// race starts two, and kills or stops the winner.
func (a an) race(kill bool) error {
	both := [2]*contender{}
	for i := range both {
		c := &contender{cmd: exec.Command(os.Getenv(binaryEnv), a.args("-f")...), lines: make(chan string, 1)}
		pipe, err := c.cmd.StderrPipe()
		if err != nil {
			return err
		}
		if err := c.cmd.Start(); err != nil {
			return err
		}
		defer c.cmd.Wait()
		defer c.cmd.Process.Kill()
		both[i] = c
		go func() {
			var b [4096]byte
			for {
				n, err := pipe.Read(b[:])
				c.stderr.Write(b[:n])
				if strings.Contains(c.stderr.String(), "started: ") {
					c.lines <- "started"
					return
				}
				if err != nil {
					c.lines <- "ended"
					return
				}
			}
		}()
	}
	first, second := <-both[0].lines, <-both[1].lines
	winner, loser := both[0], both[1]
	if second == "started" {
		winner, loser = both[1], both[0]
	}
	if first == second {
		return fmt.Errorf("both %s:\n%s%s", first, &winner.stderr, &loser.stderr)
	}
	loser.cmd.Wait()
	said := loser.stderr.String()
	want := fmt.Sprintf("pid %d", winner.cmd.Process.Pid)
	if code := loser.cmd.ProcessState.ExitCode(); code != daemon.ExitRunning || !strings.Contains(said, want) || strings.Count(said, "\n") != 1 {
		return fmt.Errorf("the loser's exit code is %d, want %d, and one line with %q: %s", code, daemon.ExitRunning, want, said)
	}
	signal := syscall.SIGTERM
	if kill {
		signal = syscall.SIGKILL
	}
	if err := winner.cmd.Process.Signal(signal); err != nil {
		return err
	}
	winner.cmd.Wait()
	return nil
}
