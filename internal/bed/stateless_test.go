package bed_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// readOnlyRun makes /run a directory in which nobody can write.
func readOnlyRun(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/run", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

// TestStartOnReadOnlyRun: the start's one line says what to do.
func TestStartOnReadOnlyRun(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		readOnlyRun(t)
		d := ns.StartBare(t, bed.Gportmap)
		err := d.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 73 || strings.Count(d.Log(), "ERROR") != 1 || !strings.Contains(d.Log(), "--state-dir none") {
			t.Errorf("%v:\n%s", err, d.Log())
		}
	})
}

// TestStateDirNone serves without a directory that can be written, and says so.
func TestStateDirNone(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		readOnlyRun(t)
		d := ns.StartBare(t, bed.Gportmap, "--state-dir", "none")
		const program = 0x30330001
		if !eventually(func() bool { return strings.Contains(d.Log(), "started: serving") }) {
			t.Fatalf("it doesn't serve: %s", d.Log())
		}
		for i, tr := range []bed.Transport{bed.TCP, bed.UDP, bed.Abstract} {
			if got := must(t, ns, tr, root, setAddr(4, program, uint32(i), "udp", "0.0.0.0.8.1")); !bytes.Equal(got, boolean(true)) {
				t.Errorf("SET over %s: %x", tr, got)
			}
		}
		if got := must(t, ns, bed.UDP, bed.From{Remote: true}, getPort(program, 1, rpcbind.ProtUDP)); !bytes.Equal(got, words(2049)) {
			t.Errorf("GETPORT from another host: %x", got)
		}
		if n := strings.Count(d.Log(), "no state directory"); n != 1 {
			t.Errorf("the log says %d times that there is no state directory:\n%s", n, d.Log())
		}
		if n := strings.Count(d.Log(), "WARN"); n > 2 { // that, and the local socket
			t.Errorf("%d warnings:\n%s", n, d.Log())
		}
		for _, args := range [][]string{{"status", "--state-dir", "none"}, {"doctor", "--state-dir", "none"}} {
			code, out := control(t, args...)
			if !strings.Contains(out, "no state directory") || strings.Contains(out, "error") || args[0] == "status" && (code != 0 || !strings.HasPrefix(out, "running (pid ")) {
				t.Errorf("%v: %d: %s", args, code, out)
			}
		}
		if code, out := control(t, "-f", "--state-dir", "none"); code != 69 {
			t.Errorf("a second one: %d: %s", code, out)
		}
		if code, out := control(t, "--takeover", "--state-dir", "none"); code != 64 || !strings.Contains(out, "needs a state directory") {
			t.Errorf("a takeover: %d: %s", code, out)
		}
		if _, err := os.Stat("none"); err == nil {
			t.Error("a directory of that name was made")
		}
		began := time.Now()
		if err := d.Stop(); err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("stop: %v after %v\n%s", err, time.Since(began), d.Log())
		}
	})
}
