package bed_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// inContainer runs a command line as root does in a container: without CAP_SYS_PTRACE nobody may look at the program of
// another user's process.
const inContainer = "setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace "

// linkRpcbind makes the name by which entry points of containers call gportmap, and returns its directory.
func linkRpcbind(t *testing.T) string {
	t.Helper()
	binary, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	const dir = "/run/bin"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "rpcbind")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestClassicImage: in a container whose process 1 is a shell that calls `rpcbind -w`, which is gportmap by a link, the commands
// know the daemon although they may not look at its program.
func TestClassicImage(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		start := inContainer + linkRpcbind(t) + "/rpcbind -w"
		shell(t, start).want(t, 0)
		seedRegistrations(t)
		shell(t, inContainer+"sh -c 'readlink /proc/$(cat /run/gportmap.pid)/exe'").want(t, 1)
		shell(t, inContainer+"gportmap status").want(t, 0, "running (pid ", "registrations: 7")
		shell(t, inContainer+"gportmap doctor").want(t, 0, "gportmap runs", "nothing is wrong")
		shell(t, inContainer+"gportmap reload").want(t, 0)
		// A takeover copies sockets, for which the kernel wants that capability. It fails without harm and says so.
		shell(t, inContainer+"gportmap takeover").want(t, 69, "CAP_SYS_PTRACE")
		seedIntact(t)
		shell(t, inContainer+"gportmap status").want(t, 0, "running (pid ", "registrations: 7")
		shell(t, inContainer+"gportmap stop").want(t, 0)
		shell(t, inContainer+"gportmap status").want(t, 3, "stopped\n")
		shell(t, start).want(t, 0)
		seedIntact(t)
		shell(t, inContainer+"gportmap stop").want(t, 0)
	})
}

// TestContainerStartedAgain: a container that is stopped and started again keeps /run and the boot, and none of its processes.
func TestContainerStartedAgain(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		// That of another container of the pod, which shares the network.
		ns.Hold(t, "udp4", ":51201")
		// container runs a script as process 1 of a container.
		container := func(script string) seen {
			t.Helper()
			return shell(t, "unshare --pid --fork --kill-child --mount-proc sh -c '"+script+"'")
		}
		register := "for p in 1 2 3; do gportmap set 10000$p 1 udp 0.0.0.0.3.10$p; done; gportmap set 300100 1 udp 0.0.0.0.200.1; " +
			"gportmap set 300100 1 local /run/nobody.sock; "
		killed := "kill -9 $(cat /run/gportmap.pid); "
		container("gportmap && "+register+killed+"gportmap && gportmap list").want(t, 0, "100001", "100002", "100003", "300100",
			"/run/nobody.sock")
		again := container("gportmap -f 2>/run/log & until gportmap list 2>/dev/null; do sleep .02; done; cat /run/log; gportmap stop").
			want(t, 0, "300100   1     udp ", "gone are left out dir=/run/rpcbind count=4")
		for _, gone := range []string{"100001", "100002", "100003", "/run/nobody.sock"} {
			if strings.Contains(again.stdout, gone) {
				t.Errorf("%s is restored, whose server ended with the container:\n%s", gone, again)
			}
		}
	})
}
