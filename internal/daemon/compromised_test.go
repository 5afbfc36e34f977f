package daemon_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// staticEnv is set for the process that is built without cgo, as the released program is: only so it can confine itself.
const staticEnv = "GPORTMAP_TEST_STATIC"

// TestCompromised is an attacker who has the process of the system's daemon, as root started it outside of any unit: what runs in
// that process is no more than the service's user in the service's directory.
func TestCompromised(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: starts the system's daemon")
	}
	if os.Getenv(staticEnv) == "" {
		cmd := exec.Command("go", "test", "-count=1", "-run", "^TestCompromised$", "-v", ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", staticEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		} else if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		return
	}
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		own := []string{"/run/other"} // of the service's user, and not the service's
		roots := []string{"/run/udev/rules.d", "/run/systemd/system", "/run/lock/subsys", "/run/cron"}
		for _, dir := range append(own, roots...) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- daemon.Run(ctx, daemon.Config{}) }()
		eventually(t, "it is confined", func() bool {
			f := processStatus(t, os.Getpid())
			return f["NoNewPrivs"] == "1" && f["Seccomp"] == "0"
		})
		if os.Geteuid() == 0 {
			t.Skip("needs one of the users _rpc, rpc and daemon: else it stays root")
		}
		if f := processStatus(t, os.Getpid()); strings.Trim(f["CapPrm"]+f["CapEff"]+f["CapInh"]+f["CapAmb"], "0") != "" {
			t.Errorf("capabilities: %s, %s, %s, %s", f["CapPrm"], f["CapEff"], f["CapInh"], f["CapAmb"])
		}
		register(t, rpcbind.RPCB{Program: 400000, Version: rpcbind.RPCBVers4, Netid: "local", Addr: "/run/some.sock"})
		attempts := map[string]func() error{
			"run a program":        func() error { return exec.Command("/bin/true").Run() },
			"become root":          func() error { return syscall.Setuid(0) },
			"remove the lock":      func() error { return os.Remove("/run/rpcbind.lock") },
			"replace the socket":   func() error { return os.Rename("/run/rpcbind.sock", "/run/rpcbind/sock") },
			"replace the pid file": func() error { return os.WriteFile("/run/gportmap.pid", []byte("1\n"), 0o644) },
			"remove the directory": func() error { return os.Rename("/run/rpcbind", "/run/rpcbind.old") },
			"link a device":        func() error { return syscall.Mknod("/run/rpcbind/mem", syscall.S_IFCHR|0o600, 1<<8|1) },
		}
		for _, dir := range append(append([]string{"/run", "/etc", "/tmp", "/dev/shm"}, own...), roots...) {
			path := filepath.Join(dir, "gportmap-test")
			attempts["make "+path] = func() error { return os.WriteFile(path, nil, 0o644) }
			attempts["link "+path] = func() error { return os.Symlink("/etc/passwd", path) }
		}
		for what, attempt := range attempts {
			if err := attempt(); err == nil || !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EXDEV) {
				t.Errorf("%s: %v, want it refused", what, err)
			}
		}
		if err := os.WriteFile("/run/rpcbind/x", nil, 0o600); err != nil {
			t.Errorf("in its own directory: %v", err)
		}
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
