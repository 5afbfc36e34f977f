package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/daemon"
)

// TestReloadIsToldItsResult: the command knows what became of the file that was there when it was called, whoever else reloads.
func TestReloadIsToldItsResult(t *testing.T) {
	a := instanceFor(t)
	path := configFile(t, "exposure = \"lan\"\n")
	start(t, a.args("--config", path)...)
	reload := append([]string{"reload"}, a.args("--config", path)...)
	for _, c := range []struct {
		text           string
		code           int
		stdout, stderr string
	}{
		{"exposure = \"local\"\n", 0, "", ""},
		{"expsure = \"local\"\n", daemon.ExitConfig, "", "the configuration stays as it was: " + path + ": line 1: unknown key"},
		{"exposure = \"local\"\nremote-calls = true\n", 0, "take a restart: remote-calls", ""},
		{"exposure = \"x\"\n", daemon.ExitConfig, "", "line 1: exposure"},
		{"", 0, "", ""},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var others sync.WaitGroup
		for range 4 {
			others.Go(func() {
				if code, _, stderr := execute(t, reload...); code != c.code {
					t.Errorf("%q: exit code %d beside others, %s", c.text, code, stderr)
				}
			})
		}
		code, stdout, stderr := execute(t, reload...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || (stderr == "") != (code == 0) {
			t.Errorf("%q: exit code %d, %q, %q; want %d, %q, %q", c.text, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
		others.Wait()
	}
	// Without the admin socket there is a signal and no result, until the daemon has made the socket anew.
	if err := os.Remove(a.dir + "/gportmap.sock"); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := execute(t, reload...)
	if code != 0 && (code != daemon.ExitUnavailable || !strings.Contains(stderr, "SIGHUP was sent")) {
		t.Errorf("without the admin socket: exit code %d, %s", code, stderr)
	}
}

// TestConfigurationFileThatIsGone keeps the rules of the system's file, which may be missing at a start alone.
func TestConfigurationFileThatIsGone(t *testing.T) {
	const inside = "GPORTMAP_TEST_ETC"
	if os.Geteuid() != 0 {
		t.Skip("needs root: has an /etc of its own in a mount namespace")
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in the mount namespace: %v\n%s", err, out)
		}
		return
	}
	err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err = errors.Join(err, syscall.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=755")); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(configPath, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o, err := parse(nil)
	if err != nil || o.fileError != nil {
		t.Fatal(err, o.fileError)
	}
	reread := func() (string, error) {
		c, _, err := o.Reread()
		return fmt.Sprint(c.Rules.RootOnly), err
	}
	if _, err := reread(); err != nil {
		t.Errorf("never there: %v", err)
	}
	write("root-only = [7]\n")
	with, err := reread()
	if err != nil {
		t.Errorf("it came: %v", err)
	}
	os.Remove(configPath)
	for range 2 {
		if _, err := reread(); err == nil || !strings.Contains(err.Error(), configPath+" is gone") {
			t.Errorf("it is gone: %v", err)
		}
	}
	write("")
	if without, err := reread(); err != nil || without == with {
		t.Errorf("it is empty: %v, %v", without, err)
	}
}
