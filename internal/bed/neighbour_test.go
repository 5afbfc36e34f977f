package bed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// mallory needs no entry in /etc/passwd.
const mallory = 54321

// A hostileNeighbour is the program of that name, of an unprivileged user.
type hostileNeighbour struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (n *hostileNeighbour) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out.Write(b)
}

func (n *hostileNeighbour) has(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(n.out.String(), "got "+what+"\n")
}

// buildNeighbour is called outside of the namespaces, where the go command has its files.
func buildNeighbour(t *testing.T) string {
	t.Helper()
	const env = "GPORTMAP_TEST_NEIGHBOUR"
	if bed.Inside() {
		return os.Getenv(env)
	}
	dir, err := os.MkdirTemp("", "gportmap-neighbour-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "neighbour")
	if out, err := exec.Command("go", "build", "-o", path, "./neighbour").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Setenv(env, path)
	return path
}

func startNeighbour(t *testing.T, path string) *hostileNeighbour {
	t.Helper()
	n := &hostileNeighbour{}
	cmd := exec.Command(path)
	cmd.Stdout, cmd.Stderr = n, n
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: mallory, Gid: mallory}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the neighbour: %s", n.out.String())
		}
	})
	return n
}

// control runs a command of gportmap for the system's instance and returns its exit code.
func control(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	path, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	// Not a pipe: a daemon in the background would keep it open.
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	b, _ := os.ReadFile(f.Name())
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// servedByUs fails the test unless gportmap serves, as status and an answer over UDP tell, with exactly the registrations of
// these programs.
func servedByUs(t *testing.T, ns *bed.NS, when string, programs ...uint32) {
	t.Helper()
	if code, out := control(t, "status"); code != 0 || !strings.HasPrefix(out, "running (pid ") {
		t.Errorf("%s: status %d: %s", when, code, out)
	}
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.Unix} {
		for _, program := range programs {
			want := words(2000 + program%1000)
			if got := must(t, ns, tr, root, getPort(program, 1, rpcbind.ProtUDP)); !bytes.Equal(got, want) {
				t.Errorf("%s: %s: program %d: %x, want %x", when, tr, program, got, want)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "tcp", "127.0.0.1")
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	others := 0
	for _, b := range all {
		if b.Program != rpcbind.Program {
			others++
			if b.Owner != rpcbind.OwnerSuperuser {
				t.Errorf("%s: %v", when, b)
			}
		}
	}
	if others != len(programs) {
		t.Errorf("%s: %d registrations, want %d: %v", when, others, len(programs), all)
	}
}

// registerService registers a program as root, with a port by which servedByUs knows it.
func registerService(t *testing.T, ns *bed.NS, program uint32) {
	t.Helper()
	port := 2000 + program%1000
	addr := fmt.Sprintf("0.0.0.0.%d.%d", port>>8, port&255)
	if got := must(t, ns, bed.Unix, root, setAddr(4, program, 1, "udp", addr)); !bytes.Equal(got, boolean(true)) {
		t.Fatalf("SET %d: %x", program, got)
	}
}

// TestHostileNeighbours starts, restarts, kills, takes over and stops beside a user who holds every lock, name, path and
// socket that an unprivileged user can hold, before and after each of it.
func TestHostileNeighbours(t *testing.T) {
	program := buildNeighbour(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		// Everybody may make /var/lock/subsys on Debian.
		if err := os.Chmod("/run/lock", 0o1777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		// As an rpcbind leaves it that was killed.
		if err := os.WriteFile("/run/rpcbind.lock", nil, 0o444); err != nil {
			t.Fatal(err)
		}
		n := startNeighbour(t, program)
		for _, what := range []string{"lock /run/rpcbind.lock", "@/run/rpcbind.sock", "/run/lock/subsys", "/run/rpcbind.sock in a mount namespace"} {
			if !eventually(func() bool { return n.has(what) }) {
				t.Fatalf("the neighbour has no %s: %s", what, n.out.String())
			}
		}
		if code, out := control(t, "status"); code == 0 {
			t.Errorf("nothing runs, and status is %d: %s", code, out)
		}
		step := func(what string, args ...string) {
			t.Helper()
			if code, out := control(t, args...); code != 0 {
				t.Fatalf("%s: %d: %s", what, code, out)
			}
		}
		step("start")
		servedByUs(t, ns, "after the start")
		if _, out := control(t, "status"); !strings.Contains(out, "local @/run/rpcbind.sock") || !strings.Contains(out, "user 54321") {
			t.Errorf("status doesn't tell who has the abstract name: %s", out)
		}
		registerService(t, ns, 400001)
		registerService(t, ns, 400002)
		step("stop", "stop")
		if code, _ := control(t, "status"); code == 0 {
			t.Error("status says running after a stop")
		}
		step("start again")
		servedByUs(t, ns, "after a restart", 400001, 400002)
		if code, out := control(t); code != 75 && code != 69 {
			t.Errorf("a second one: %d: %s", code, out)
		}
		servedByUs(t, ns, "after a second start", 400001, 400002)
		kill(t)
		step("start after SIGKILL")
		servedByUs(t, ns, "after SIGKILL", 400001, 400002)
		step("stop", "stop")

		if _, err := bed.Rpcbind.Path(); err == nil {
			r := ns.StartBare(t, bed.Rpcbind)
			if !eventually(func() bool { return lookup(t, ns, 400002) == 2002 }) {
				t.Fatalf("rpcbind doesn't serve: %s", r.Log())
			}
			step("takeover", "--takeover")
			<-r.Exited()
			servedByUs(t, ns, "after a takeover from rpcbind", 400001, 400002)
			step("takeover", "--takeover")
			servedByUs(t, ns, "after a takeover from gportmap", 400001, 400002)
			step("stop", "stop")
		}
		step("start")
		servedByUs(t, ns, "at the end", 400001, 400002)
		step("stop", "stop")
	})
}

// lookup asks for a program's port over UDP, 0 if there is none or no answer.
func lookup(t *testing.T, ns *bed.NS, program uint32) uint32 {
	reply, err := ns.Call(t, bed.UDP, root, getPort(program, 1, rpcbind.ProtUDP))
	if err != nil || len(reply) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(reply[len(reply)-4:])
}

// kill ends the daemon as the kernel does that is out of memory.
func kill(t *testing.T) {
	t.Helper()
	_, out := control(t, "status")
	var pid int
	if _, err := fmt.Sscanf(out, "running (pid %d", &pid); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// It is process 1 of the namespace, this test, whose child it has become.
	if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
}
