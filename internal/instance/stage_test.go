package instance

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// stageEnv tells a process in which part of a test it is.
const stageEnv = "GPORTMAP_INSTANCE_TEST_STAGE"

// alice needs no entry in /etc/passwd.
const alice = 54321

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv(stageEnv) == "" {
		t.Skip("needs root: processes of other users, or namespaces")
	}
}

// stage runs the calling test again in a process of its own, made with attr, up to where stage is called by that name:
// there it returns true, and here false once that process has ended well.
func stage(t *testing.T, name string, attr syscall.SysProcAttr, env ...string) bool {
	t.Helper()
	if os.Getenv(stageEnv) == t.Name()+" "+name {
		return true
	}
	cmd := stageCommand(t, name, env...)
	attr.Pdeathsig = syscall.SIGKILL // of this thread, which waits below
	cmd.SysProcAttr = &attr
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in the process %s: %v\n%s", name, err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("in the process %s:\n%s", name, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("the process %s did not run the test:\n%s", name, out)
	}
	if testing.Verbose() {
		t.Logf("in the process %s:\n| %s", name, strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n| "))
	}
	return false
}

func stageCommand(t *testing.T, name string, env ...string) *exec.Cmd {
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command("/proc/self/exe", "-test.run="+pattern, "-test.v", "-test.timeout=120s")
	cmd.Env = append(append(os.Environ(), stageEnv+"="+t.Name()+" "+name), env...)
	return cmd
}

// host is a stage that is process 1 of a machine of its own: no network but loopback, an empty /run, no other processes.
// Needs root.
func host(t *testing.T) bool {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the ip command of iproute2")
	}
	const flags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	if !stage(t, "host", syscall.SysProcAttr{Cloneflags: flags}) {
		return false
	}
	mountProc(t)
	for _, dir := range []string{"/run", "/etc/systemd"} {
		if _, err := os.Stat(dir); err != nil {
			continue // no systemd on this machine
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/run/rpcbind", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip link set lo up: %v: %s", err, out)
	}
	return true
}

// mountProc shows the processes of this process's namespace, and no mount outside.
func mountProc(t *testing.T) {
	t.Helper()
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
}
