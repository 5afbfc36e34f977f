package bed_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestTakeoverUndecided: whether gportmap is a unit of systemd's isn't answered. Then nothing is changed, and no daemon serves
// outside of a unit.
func TestTakeoverUndecided(t *testing.T) {
	bed.NeedRpcbind(t)
	for _, test := range []struct {
		name, show string // what systemctl show does
		signal     bool
		says       string
	}{
		{"interrupted", "touch asked; sleep 60", true, "told to end"},
		{"failed", "echo Failed to connect to bus >&2; exit 1", false, "Failed to connect to bus"},
		{"silent", "exit 0", false, "can't be told"},
		{"masked", "echo LoadState=masked", false, "gportmap.service is masked"},
		{"broken", "echo LoadState=bad-setting", false, "gportmap.service is bad-setting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				from := startOld(t, ns, bed.Rpcbind)
				regs := registerSome(t, ns)
				dir := t.TempDir()
				script := "#!/bin/sh\ncd " + dir + "\n" + test.show + "\n"
				if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
				t.Setenv("PATH", dir+":/usr/sbin:/sbin:"+os.Getenv("PATH"))
				if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
					t.Fatal(err)
				}
				path, err := bed.Gportmap.Path()
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				cmd := exec.Command(path, "takeover")
				cmd.Stdout, cmd.Stderr = &out, &out
				// As on a terminal, where ^C is for every process of the foreground.
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if test.signal {
					waitUntil(t, "systemctl is asked", func() bool { _, err := os.Stat(filepath.Join(dir, "asked")); return err == nil })
					if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
						t.Fatal(err)
					}
				}
				if err := cmd.Wait(); err == nil {
					t.Error("it succeeded")
				}
				if said := out.String(); !strings.Contains(said, test.says) || !strings.Contains(said, "nothing was changed") {
					t.Errorf("it says %q", said)
				}
				select {
				case <-from.Exited():
					t.Error("rpcbind was stopped")
				default:
				}
				if running := portmappers(t); !slices.Equal(running, []string{"rpcbind"}) {
					t.Errorf("%q run", running)
				}
				sameListed(t, "afterwards", regs)
			})
		})
	}
}
