package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/daemon"
)

// processStatus returns a field of /proc/PID/status.
func processStatus(t *testing.T, pid int, field string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

// TestConfinement looks at a daemon that serves: it can get no new privileges, and root has no capability. What Landlock refuses is tried in internal/sys.
func TestConfinement(t *testing.T) {
	asReleased(t)
	a := instanceFor(t)
	r := start(t, a.args()...)
	pid := r.cmd.Process.Pid
	if got := processStatus(t, pid, "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs: %s", got)
	}
	const want = "0000000000000000"
	for _, set := range []string{"CapEff", "CapPrm", "CapInh"} {
		if got := processStatus(t, pid, set); got != want {
			t.Errorf("%s: %s, want %s", set, got, want)
		}
	}
	// It serves, keeps what is registered and cleans up all the same.
	if code, _, stderr := execute(t, "set", "--socket", a.socket(), "300000", "1", "tcp", "0.0.0.0.8.1"); code != 0 {
		t.Fatal(stderr)
	}
	if code := r.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	a.gone(t)
	if info, err := os.Stat(filepath.Join(a.dir, "rpcbind.xdr")); err != nil || info.Size() < 100 {
		t.Errorf("the state: %v, %v", info, err)
	}
}

// TestUser becomes another user, who can't return.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to become another user")
	}
	a := instanceFor(t)
	if err := os.Chmod(filepath.Dir(a.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, a.args("--user", "nobody")...)
	pid := r.cmd.Process.Pid
	if got := processStatus(t, pid, "Uid"); got != "65534 65534 65534 65534" {
		t.Errorf("Uid: %s", got)
	}
	for _, set := range []string{"CapEff", "CapPrm"} {
		if got := processStatus(t, pid, set); strings.Trim(got, "0") != "" {
			t.Errorf("%s: %s", set, got)
		}
	}
	a.ask(t)
	if code, _, stderr := execute(t, "set", "--socket", a.socket(), "300000", "1", "tcp", "0.0.0.0.8.1"); code != 0 {
		t.Error(stderr)
	}
	if code := r.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	r = start(t, a.args("--user", "nobody")...) // over what stayed behind
	r.end(t, syscall.SIGTERM)
	if code, _, stderr := execute(t, instanceFor(t).args("-f", "--user", "no-such-user")...); code != 78 || !strings.Contains(stderr, "no-such-user") {
		t.Errorf("an unknown user: %d, %s", code, stderr)
	}
}

// TestReadyComesLast starts a daemon in the background where it can't become the service's user: in a user namespace without
// that user's group. Who started it isn't told that it serves unless it goes on to do so.
func TestReadyComesLast(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a user namespace in which some ids are missing")
	}
	asReleased(t)
	const script = `mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up || exit 99
"$0" -w; code=$?
sleep .3
"$0" status; status=$?
"$0" stop
test $code -ne 0 || test $status -eq 0 || exit 98
exit $code`
	cmd := exec.Command("sh", "-c", script, os.Getenv(binaryEnv))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		UidMappings:                []syscall.SysProcIDMap{{Size: 60000}},
		GidMappings:                []syscall.SysProcIDMap{{Size: 1}},
		GidMappingsEnableSetgroups: true,
	}
	code, stdout, stderr := finish(t, cmd)
	switch code {
	case 99:
		t.Skipf("this root may not mount in a user namespace: %s%s", stdout, stderr)
	case 98:
		t.Errorf("the start succeeded, and then nobody serves: %s%s", stdout, stderr)
	case 0:
		t.Log("there is no user to become")
	case daemon.ExitSystem:
		if !strings.Contains(stderr, "drop privileges to uid") {
			t.Errorf("%s", stderr)
		}
	default:
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
