package bed_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestHostsDenyThatTheServiceCantRead has a hosts.deny that root alone reads. Who asks as root whether all is well is told, and
// so is who starts a daemon that reads it as another user.
func TestHostsDenyThatTheServiceCantRead(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ownEtc(t)
		accessLists(t, "", "rpcbind: 192.0.2.1\n")
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) (code int, out string) {
			cmd := exec.Command(path, args...)
			b, _ := cmd.CombinedOutput()
			return cmd.ProcessState.ExitCode(), string(b)
		}
		for _, mode := range []os.FileMode{0o644, 0o600} {
			if err := os.Chmod("/etc/hosts.deny", mode); err != nil {
				t.Fatal(err)
			}
			wrong := mode == 0o600
			for _, args := range []string{"check-config -s", "doctor -s"} {
				code, out := run(strings.Fields(args)...)
				if told := strings.Contains(out, "/etc/hosts.deny") && strings.Contains(out, "chmod o+r"); told != wrong || wrong && code == 0 {
					t.Errorf("mode %o: %s: exit code %d, %s", mode, args, code, out)
				}
			}
		}
		d := ns.StartBare(t, bed.Gportmap, "-s")
		if err := d.Wait(); err == nil || !strings.Contains(d.Log(), "chmod o+r /etc/hosts.deny") {
			t.Errorf("a daemon that can't read hosts.deny: %v, %s", err, d.Log())
		}
	})
}
