package bed_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestRemovedWhileRunning takes away the files of a daemon that serves, as Debian's apt purge rpcbind does. Whatever the
// administrator does then, by what the commands say, keeps every registration.
func TestRemovedWhileRunning(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		run := func(want int, args ...string) string {
			t.Helper()
			code, out := control(t, args...)
			if code != want {
				t.Fatalf("gportmap %s: %d, want %d: %s", strings.Join(args, " "), code, want, out)
			}
			return out
		}
		purge := func(paths ...string) {
			t.Helper()
			for _, path := range paths {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
		}
		run(0)
		registerService(t, ns, 400001)
		registerService(t, ns, 400002)

		purge("/run/rpcbind", "/run/rpcbind.lock", "/run/rpcbind.sock")
		if out := run(0, "status"); !strings.HasPrefix(out, "running (pid ") || !strings.Contains(out, "gportmap takeover") {
			t.Errorf("status after a purge: %s", out)
		}
		if _, out := control(t, "doctor"); !strings.Contains(out, "gportmap takeover") || strings.Contains(out, "gportmap stop") {
			t.Errorf("doctor after a purge: %s", out)
		}
		if code, out := control(t); code != 75 && code != 69 {
			t.Errorf("a second start after a purge: %d: %s", code, out)
		}
		run(0, "stop")
		run(0)
		servedByUs(t, ns, "after a purge, stop and start", 400001, 400002)

		purge("/run/rpcbind", "/run/rpcbind.lock", "/run/rpcbind.sock", "/run/gportmap.pid")
		if out := run(0, "status"); !strings.HasPrefix(out, "running (pid ") {
			t.Errorf("status after a purge of everything: %s", out)
		}
		run(0, "stop")
		run(0)
		servedByUs(t, ns, "after a purge of everything, stop and start", 400001, 400002)

		purge("/run/rpcbind", "/run/rpcbind.lock", "/run/rpcbind.sock")
		run(0, "--takeover")
		servedByUs(t, ns, "after a purge and a takeover", 400001, 400002)
		kill(t)
		run(0)
		servedByUs(t, ns, "after a purge, a takeover and SIGKILL", 400001, 400002)

		// What lies in its own directory it makes anew itself.
		files, err := filepath.Glob("/run/rpcbind/*")
		if err != nil || len(files) < 4 {
			t.Fatalf("%v, %v", files, err)
		}
		purge(files...)
		for _, path := range files {
			if !eventually(func() bool { _, err := os.Lstat(path); return err == nil }) {
				t.Errorf("%s isn't made anew", path)
			}
		}
		if out := run(0, "status"); !strings.Contains(out, "health: ") {
			t.Errorf("the admin socket isn't served: %s", out)
		}
		if out := run(75); !strings.Contains(out, "/run/rpcbind") {
			t.Errorf("a second start: %s", out)
		}
		kill(t)
		run(0)
		servedByUs(t, ns, "after its files were removed, and SIGKILL", 400001, 400002)
		run(0, "stop")
	})
}

// TestStopWithoutProc stops a daemon where /proc isn't mounted.
func TestStopWithoutProc(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		if code, out := control(t); code != 0 {
			t.Fatalf("%d: %s", code, out)
		}
		if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		code, out := control(t, "stop")
		if err := unix.Unmount("/proc", unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if code != 0 {
			t.Errorf("stop: %d: %s", code, out)
		}
		if code, out := control(t, "status"); code != 3 {
			t.Errorf("status: %d: %s", code, out)
		}
	})
}

// TestReadOnlyRun starts where nothing can be written: it is not for a lack of rights.
func TestReadOnlyRun(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		if err := unix.Mount("", "/run", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"doctor"}, {"-f"}} {
			code, out := control(t, args...)
			if code == 0 || code == 77 || !strings.Contains(out, "read-only") || strings.Contains(out, "this user may not") {
				t.Errorf("%v: %d: %s", args, code, out)
			}
		}
	})
}
