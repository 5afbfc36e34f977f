package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/admin"
)

// A pane is a terminal: tmux's, in a server of its own.
type pane struct {
	t    *testing.T
	tmux string
	sock string
}

func newPane(t *testing.T, width, height int, command ...string) pane {
	t.Helper()
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
			t.Fatal("needs tmux")
		}
		t.Skip("needs tmux")
	}
	dir, err := os.MkdirTemp("", "gp") // the path of a local socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := pane{t, tmux, filepath.Join(dir, "tmux")}
	// The shell stays, so that what the command leaves of the screen can be seen.
	p.do("new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), "sh -c 'echo before; "+strings.Join(command, " ")+"; echo code $?; sleep 60'")
	t.Cleanup(func() { exec.Command(tmux, "-S", p.sock, "kill-server").Run() })
	return p
}

func (p pane) do(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(p.tmux, append([]string{"-f", "/dev/null", "-S", p.sock}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm", "LC_ALL=C.UTF-8", "SHELL=/bin/sh")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// until returns the screen when it matches.
func (p pane) until(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	screen := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if screen = p.do("capture-pane", "-p"); re.MatchString(screen) {
			return screen
		}
	}
	p.t.Fatalf("the screen doesn't become %s:\n%s", pattern, screen)
	return ""
}

// TestWatchOnATerminal drives the view: calls, a screen of another size, a pause, the end.
func TestWatchOnATerminal(t *testing.T) {
	a, _, _ := populated(t)
	p := newPane(t, 90, 24, os.Getenv(binaryEnv), "watch", "--interval", "100ms", "--state-dir", a.dir, "--port", fmt.Sprint(a.port))
	p.until(`(?s)^gportmap .* pid \d+ .*\nhealth: 1 registration whose server is gone\n.*CALLS/S.*\d+  SET v4 +local ok 3\nLATEST CHANGES\n` +
		`\d\d:\d\d:\d\d SET v4 300001 3 tcp 192\.0\.2\.77\.8\.1 by uid \d+\n.*CLIENTS.*uid \d+ +\d+ +0 +\d+s`)
	a.ask(t)
	p.until(`NULL v4 +udp ok 1`)
	coloured := p.do("capture-pane", "-p", "-e")
	if !strings.Contains(coloured, "\x1b[7m") {
		t.Errorf("no colour on a terminal: %q", coloured)
	}
	p.do("resize-window", "-x", "40", "-y", "12")
	p.until(`(?s)^gportmap [^\n]{22} \d\d:\d\d:\d\d\n.*CLIENTS`)
	p.do("send-keys", "Space")
	p.until(`PAUSED`)
	p.do("send-keys", "Space")
	p.until(`(?m)^gportmap [^P]*$`)
	p.do("send-keys", "q")
	screen := p.until(`code 0`)
	if !strings.HasPrefix(screen, "before\ncode 0\n") {
		t.Errorf("the screen isn't given back:\n%s", screen)
	}
}

func TestWatchRefusesToStart(t *testing.T) {
	a := instanceFor(t)
	if code, _, stderr := execute(t, append([]string{"watch"}, a.args()...)...); code != 69 || !strings.Contains(stderr, "is gportmap running?") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr := execute(t, append([]string{"watch", "--interval", "1ms"}, a.args()...)...); code != 64 || !strings.Contains(stderr, "100ms") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestWatchWithoutATerminal(t *testing.T) {
	a, _, _ := populated(t)
	args := a.args("--interval", "100ms", "--count", "2")
	code, stdout, stderr := execute(t, append([]string{"watch"}, args...)...)
	if code != 0 || strings.Count(stdout, "health: ") != 2 || strings.ContainsRune(stdout, 0x1b) || !strings.HasPrefix(stdout, "gportmap ") {
		t.Errorf("exit code %d, %s\n%s", code, stderr, stdout)
	}
	code, stdout, stderr = execute(t, append([]string{"watch", "--json"}, args...)...)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var s admin.Status
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); code != 0 || len(lines) != 2 || err != nil || s.Registrations.Total() != 3 {
		t.Errorf("exit code %d, %v, %s\n%s", code, err, stderr, stdout)
	}
}

func TestStatusOfRegistrations(t *testing.T) {
	a, _, alive := populated(t)
	code, stdout, _ := execute(t, append([]string{"status"}, a.args()...)...)
	has(t, "status", code, 0, stdout, "\nhealth: 1 registration whose server is gone\n", "\nprogram  service  vers  netid  port",
		fmt.Sprintf("%d", alive.Addr().(*net.TCPAddr).Port), fmt.Sprintf("/%d ", os.Getpid()), "  dead\n", "  unknown\n")
	code, stdout, _ = execute(t, append([]string{"status", "--json"}, a.args()...)...)
	var s struct {
		Report struct {
			admin.Status
			Table []admin.Registration
		}
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 || s.Report.Registrations.Dead != 1 || len(s.Report.Table) < 4 {
		t.Errorf("exit code %d, %v: %s", code, err, stdout)
	}
	code, stdout, _ = execute(t, "list", "--json", "--socket", a.socket())
	var list []listed
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, stdout)
	}
	if last := list[len(list)-1]; last != (listed{300001, 3, "tcp", "192.0.2.77.8.1", 2049, last.Owner, ""}) || list[0].Service != "portmapper" {
		t.Errorf("%+v", list)
	}
	if code, _, stderr := execute(t, "getaddr", "--json", "1", "1", "tcp"); code != 64 {
		t.Errorf("--json of another command: exit code %d: %s", code, stderr)
	}
}
