package sys

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// confinedEnv is set for the process that confines itself. It holds a directory that the process may write in.
const confinedEnv = "GPORTMAP_TEST_CONFINED"

// TestConfine runs itself in a process built without cgo, which gives everything up and then tries to do what it may not.
func TestConfine(t *testing.T) {
	if dir := os.Getenv(confinedEnv); dir != "" {
		confined(t, dir)
		return
	}
	cmd := exec.Command("go", "test", "-count=1", "-run", "^TestConfine$", "-v", ".")
	parent, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "own")
	// Whoever it becomes may write in both.
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(parent, 0o777), os.Chmod(filepath.Dir(parent), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", confinedEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("this kernel has no Landlock:\n%s", out)
	}
}

func confined(t *testing.T, dir string) {
	if err := NoNewPrivileges(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Chown(dir, 1, 1); err != nil {
			t.Fatal(err)
		}
		if err := DropPrivileges(1, 1); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() != 1 || os.Geteuid() != 1 || os.Getegid() != 1 {
			t.Errorf("uid %d, effective %d, gid %d; want 1", os.Getuid(), os.Geteuid(), os.Getegid())
		}
		if err := unix.Chown(dir, 2, 2); !errors.Is(err, unix.EPERM) {
			t.Errorf("chown without its capability: %v", err)
		}
		if err := unix.Setuid(0); !errors.Is(err, unix.EPERM) {
			t.Errorf("setuid without its capability: %v", err)
		}
	}
	if err := DropCapabilities(); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(outside)
	err := ConfineWrites(dir, "/nonexistent", os.DevNull)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(inside, []byte("x"), 0o600), os.Rename(inside, inside+".new"), os.Remove(inside+".new")); err != nil {
		t.Errorf("in the directory: %v", err)
	}
	if _, err := os.ReadFile(outside); err != nil {
		t.Errorf("reading: %v", err)
	}
	for what, err := range map[string]error{
		"making a directory inside": os.Mkdir(inside, 0o700),
		"making a FIFO inside":      unix.Mkfifo(inside, 0o600),
		"making a link inside":      os.Symlink("/", inside),
		"writing a file":            os.WriteFile(outside, nil, 0o600),
		"making a file":             os.WriteFile(outside+"2", nil, 0o600),
		"removing a file":           os.Remove(outside),
		"running a file":            exec.Command("/bin/true").Run(),
	} {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}
	// Threads that come later are confined as well, and so are those that were there.
	done := make(chan error)
	for range 20 {
		go func() { done <- os.WriteFile(outside, nil, 0o600) }()
	}
	for range 20 {
		if err := <-done; !errors.Is(err, os.ErrPermission) {
			t.Errorf("another thread: %v", err)
		}
	}
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		t.Errorf("a file that was given itself: %v", err)
	} else {
		null.Close()
	}
}
