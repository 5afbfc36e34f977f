package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon"
)

// populated returns an instance with a registration that is alive, one that is dead and one that nobody here can see.
func populated(t *testing.T, more ...string) (an, *running, net.Listener) {
	t.Helper()
	a := instanceFor(t)
	r := start(t, a.args(more...)...)
	alive, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	port := alive.Addr().(*net.TCPAddr).Port
	dead := freePort(t)
	for _, s := range [][]string{
		{"300000", "1", "tcp", fmt.Sprintf("0.0.0.0.%d.%d", port>>8, port&255)},
		{"300000", "1", "udp", fmt.Sprintf("0.0.0.0.%d.%d", dead>>8, dead&255)},
		{"300001", "3", "tcp", "192.0.2.77.8.1"},
	} {
		if code, _, stderr := execute(t, append([]string{"set", "--socket", a.socket()}, s...)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	return a, r, alive
}

func TestAdminSocket(t *testing.T) {
	a, r, _ := populated(t)
	path := filepath.Join(a.dir, admin.SocketName)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", info, err)
	}
	var s admin.Status
	if err := admin.Ask(t.Context(), path, "/v1/status", &s); err != nil {
		t.Fatal(err)
	}
	if s.Registrations != (admin.Registered{Alive: 1, Dead: 1, Unknown: 1}) || s.PID != r.cmd.Process.Pid || s.State.Dir != a.dir ||
		s.State.Writes < 3 || s.State.Error != "" || len(s.Listeners) < 4 || len(s.Changes) != 3 || s.Connections.Opened != 3 ||
		len(s.Clients) != 1 || s.Clients[0].Peer != fmt.Sprintf("uid %d", os.Getuid()) || s.MemoryBytes == 0 || s.Version == "" {
		t.Errorf("%+v", s)
	}
	var all []admin.Registration
	if err := admin.Ask(t.Context(), path, "/v1/registrations", &all); err != nil {
		t.Fatal(err)
	}
	daemon.FindServers(all) // which the daemon, confined, may not see
	got := ""
	for _, g := range all {
		if g.Own {
			continue
		}
		pid := 0
		if g.Server != nil {
			pid = g.Server.PID
		}
		if g.Since.IsZero() {
			t.Errorf("%+v has no age", g)
		}
		got += fmt.Sprintf("%d %s %s %d, ", g.Program, g.Netid, g.State, pid)
	}
	if want := fmt.Sprintf("300000 tcp alive %d, 300000 udp dead 0, 300001 tcp unknown 0, ", os.Getpid()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r.end(t, syscall.SIGKILL)
	r = start(t, a.args()...) // over the socket that stayed
	all = nil
	if err := admin.Ask(t.Context(), path, "/v1/registrations", &all); err != nil {
		t.Fatal(err)
	}
	if last := all[len(all)-1]; last.Program != 300001 || !last.Since.IsZero() {
		t.Errorf("%+v was restored and says when it was registered", last)
	}
	r.end(t, syscall.SIGTERM)
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s stays", path)
	}
}

func TestAdminGroup(t *testing.T) {
	a := instanceFor(t)
	if code, _, stderr := execute(t, append([]string{"-f", "--admin-group", "no such group"}, a.args()...)...); code != 78 ||
		!strings.Contains(stderr, `admin socket: look up group "no such group"`) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	gid := os.Getgid()
	if os.Getuid() == 0 {
		gid = 4711
	}
	start(t, a.args("--admin-group", fmt.Sprint(gid))...)
	info, err := os.Stat(filepath.Join(a.dir, admin.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Gid; int(got) != gid {
		t.Errorf("group %d, want %d", got, gid)
	}
}

// TestAdminGroupOfAnother: who isn't in the group can't give it the socket, and serves on.
func TestAdminGroupOfAnother(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and setpriv")
	}
	a := instanceFor(t)
	if err := os.Chown(filepath.Dir(a.dir), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", os.Getenv(binaryEnv), "-f", "--admin-group", "4711"}, a.args()...)
	r := launch(t, exec.Command(setpriv, args...))
	r.until(t, "SupplementaryGroups=")
	r.until(t, "started")
	var s admin.Status
	if err := admin.Ask(t.Context(), filepath.Join(a.dir, admin.SocketName), "/v1/status", &s); err != nil {
		t.Error(err)
	}
}

// TestMetrics looks at them as Prometheus gets them, and has its own checker read them.
func TestMetrics(t *testing.T) {
	port := freePort(t)
	a, r, _ := populated(t, "--metrics", fmt.Sprint(port))
	a.ask(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	get := func(path string) (int, string) {
		t.Helper()
		response, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(b)
	}
	if code, _ := get("/v1/status"); code != 404 {
		t.Errorf("the status is told over TCP: %d", code)
	}
	code, text := get("/metrics")
	for _, want := range []string{
		`gportmap_calls_total{version="4",procedure="SET",transport="local",verdict="ok"} 3`,
		`gportmap_calls_total{version="4",procedure="NULL",transport="udp",verdict="ok"} 1`,
		`gportmap_call_duration_seconds_count{transport="udp"} 1`,
		`state="dead"} 1`, "gportmap_state_behind 0", "gportmap_build_info{version=", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%d: %q is missing in\n%s", code, want, text)
		}
	}
	promtool(t, text)
	if conn, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", port)); err == nil {
		conn.Close()
		t.Error("metrics are served elsewhere than on 127.0.0.1")
	}
	// The port is no reason not to serve programs.
	other := instanceFor(t)
	o := start(t, other.args("--metrics", fmt.Sprint(port))...)
	other.ask(t)
	o.end(t, syscall.SIGTERM)
	r.end(t, syscall.SIGTERM)
}

func promtool(t *testing.T, text string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
			t.Fatal("needs promtool, of Debian's package prometheus")
		}
		t.Log("the format isn't checked: needs promtool, of Debian's package prometheus")
		return
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool: %v\n%s\n%s", err, out, text)
	}
}

func TestMetricsFlag(t *testing.T) {
	for value, want := range map[string]string{
		"9111": "127.0.0.1:9111", "0.0.0.0:9111": "0.0.0.0:9111", "[::1]:9111": "[::1]:9111",
		"": "", "0": "", "65536": "", "localhost:1": "", "127.0.0.1": "", "127.0.0.1:0": "", ":9111": "",
	} {
		o, err := parse([]string{"--metrics", value})
		if want == "" && err == nil || want != "" && (err != nil || o.Metrics.String() != want) {
			t.Errorf("--metrics %q: %v, %v, want %q", value, o.Metrics, err, want)
		}
	}
}
