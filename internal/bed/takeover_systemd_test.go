package bed_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// fakeSystemctl stands for systemd, which these namespaces haven't: it notes what it was told, knows the units
// rpcbind.service, rpcbind.socket and, where the file "installed" is, gportmap.service, and does what starting and
// stopping these does, without sockets of its own. Its directory has the pid of rpcbind in "main".
const fakeSystemctl = `#!/bin/sh
cd "$(dirname "$0")"
shift 2 # --no-pager --no-ask-password
echo "$*" >>told
run() { setsid "$@" >/dev/null 2>&1 & echo $! >main; while ! rpcinfo -T tcp 127.0.0.1 100000 2; do sleep .01; done >/dev/null 2>&1; }
case "$*" in
show*rpcbind.service) printf 'MainPID=%s\nTriggeredBy=rpcbind.socket\nActiveState=active\nLoadState=loaded\n' "$(cat main)" ;;
show*rpcbind.socket) printf 'ActiveState=active\nLoadState=loaded\n' ;;
show*gportmap*.socket) printf 'LoadState=not-found\n' ;;
show*gportmap.service) if [ -e installed ]; then printf 'MainPID=0\nLoadState=loaded\n'; else printf 'LoadState=not-found\n'; fi ;;
stop*rpcbind.socket) ;;
stop*rpcbind.service) kill "$(cat main)"; while kill -0 "$(cat main)" 2>/dev/null; do sleep .01; done ;;
start*rpcbind.service) run RPCBIND -f -w ;;
start*gportmap.service) run "$(cat installed)" -f ;;
*) echo "unknown: $*" >&2; exit 1 ;;
esac
`

// systemd puts the fake systemctl into the path and rpcbind into the control group of a unit. It returns the directory.
func systemd(t *testing.T, old *bed.Daemon) string {
	t.Helper()
	path, err := bed.Rpcbind.Path()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"systemctl": strings.Replace(fakeSystemctl, "RPCBIND", path, 1), "main": strconv.Itoa(old.PID()), "told": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/sbin:/sbin:"+os.Getenv("PATH"))
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}

	hierarchy := t.TempDir()
	if err := syscall.Mount("none", hierarchy, "cgroup2", 0, ""); err != nil {
		t.Skipf("needs control groups version 2: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(hierarchy, syscall.MNT_DETACH) })
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, unified, _ := strings.Cut("\n"+string(own), "\n0::")
	// A name of its own: a run that was killed may have left its group behind.
	parent, err := os.MkdirTemp(filepath.Join(hierarchy, strings.TrimSpace(unified)), "gportmap-test-")
	if err != nil {
		t.Skipf("needs control groups that may be made: %v", err)
	}
	if err := os.Mkdir(filepath.Join(parent, "rpcbind.service"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{parent, filepath.Join(parent, "rpcbind.service")} {
		t.Cleanup(func() {
			// Who was in it has just been killed, or is about to be.
			waitUntil(t, "the control group is empty", func() bool { return os.Remove(group) == nil })
		})
	}
	if err := os.WriteFile(filepath.Join(parent, "rpcbind.service", "cgroup.procs"), []byte(strconv.Itoa(old.PID())), 0); err != nil {
		t.Skipf("needs control groups that may be entered: %v", err)
	}
	return dir
}

// told returns what systemctl was told to do, questions left out.
func told(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "told"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "show") })
}

const (
	stopsSocket  = "stop --job-mode=ignore-dependencies -- rpcbind.socket"
	stopsService = "stop --job-mode=ignore-dependencies -- rpcbind.service"
	startsBoth   = "start -- rpcbind.socket rpcbind.service"
)

// TestTakeoverFromUnit takes over from an rpcbind that is a unit. Systemd isn't real here; that the commands do what they
// are meant to do is for a test with a real one to show.
func TestTakeoverFromUnit(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		from := startOld(t, ns, bed.Rpcbind)
		dir := systemd(t, from)
		regs := registerSome(t, ns)
		d := takeOver(t, ns)
		sayings := []string{
			fmt.Sprintf("taken over from rpcbind (pid %d, unit rpcbind.service): 6 registrations", from.PID()),
			"systemctl disable rpcbind.socket rpcbind.service",
		}
		for _, want := range sayings {
			if logLine(d, want) == "" {
				t.Errorf("it doesn't say %q:\n%s", want, d.Log())
			}
		}
		sameListed(t, "after the takeover", regs)
		if got, want := told(t, dir), []string{stopsSocket, stopsService}; !slices.Equal(got, want) {
			t.Errorf("systemctl was told %q, want %q", got, want)
		}
	})
}

// TestTakeoverFromUnitPutBack is TestTakeoverPutBack for a unit.
func TestTakeoverFromUnitPutBack(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		from := startOld(t, ns, bed.Rpcbind)
		dir := systemd(t, from)
		regs := registerSome(t, ns)
		addNeeded(t)
		release := holdUp(t)
		d := ns.StartBare(t, bed.Gportmap, "--takeover", "-h", needed)
		release()
		if err := d.Wait(); err == nil {
			t.Error("it succeeded")
		}
		if logLine(d, "rpcbind.service) was put back with all registrations") == "" {
			t.Errorf("it says:\n%s", d.Log())
		}
		sameListed(t, "after rpcbind was put back", regs)
		if got, want := told(t, dir), []string{stopsSocket, stopsService, startsBoth}; !slices.Equal(got, want) {
			t.Errorf("systemctl was told %q, want %q", got, want)
		}
	})
}

// TestTakeoverByUnit runs the command where gportmap is a unit, too.
func TestTakeoverByUnit(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		from := startOld(t, ns, bed.Rpcbind)
		dir := systemd(t, from)
		regs := registerSome(t, ns)
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "installed"), []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(path, "takeover", "-l").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("has flags of its own")) {
			t.Errorf("with flags: %v, %s", err, out)
		}
		out, err := exec.Command(path, "takeover").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("unit rpcbind.service): 6 registrations; at most ")) {
			t.Errorf("%v, %s", err, out)
		}
		t.Logf("%s", out)
		sameListed(t, "after the command", regs)
		want := []string{stopsSocket, stopsService, "start --job-mode=ignore-dependencies -- gportmap.service"}
		if got := told(t, dir); !slices.Equal(got, want) {
			t.Errorf("systemctl was told %q, want %q", got, want)
		}
	})
}

// needed is an address that gportmap is told to serve, and that holdUp takes away.
const needed = "10.1.1.1"

// addNeeded gives the host the address.
func addNeeded(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("ip", "addr", "add", needed+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// holdUp makes rpcbind wait in its end, by FIFOs in place of its state files, until the function that it returns has removed
// the address that gportmap needs then. The state isn't written.
func holdUp(t *testing.T) (release func()) {
	t.Helper()
	awaitEnd, goOn := holdEnd(t)
	return func() {
		t.Helper()
		awaitEnd()
		if out, err := exec.Command("ip", "addr", "del", needed+"/32", "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		goOn()
	}
}

// holdEnd makes rpcbind wait in its end. AwaitEnd returns when it does, and goOn lets it end.
func holdEnd(t *testing.T) (awaitEnd, goOn func()) {
	t.Helper()
	fifos := []string{"/run/rpcbind/rpcbind.xdr", "/run/rpcbind/portmap.xdr"} // in the order in which it writes them
	for _, fifo := range fifos {
		if err := syscall.Mkfifo(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// That returns when the other end is opened as well, and lets the other one go on.
	open := func(fifo string) func() {
		return func() {
			t.Helper()
			f, err := os.Open(fifo)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}
	}
	return open(fifos[0]), open(fifos[1])
}
