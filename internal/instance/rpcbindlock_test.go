package instance

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// holdAs starts a copy of this program by that name and user, which holds the lock until the end of the test.
func holdAs(t *testing.T, name string, uid uint32, mode os.FileMode, path string) int {
	t.Helper()
	dir, err := os.MkdirTemp("", "gportmap-hold-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, name)
	copyProgram(t, program)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(program, mode)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); in.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return cmd.Process.Pid
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
}

// TestRpcbindsLock has rpcbind's lock, which every user can open, held by processes of all kinds: a portmapper of root's counts,
// and nobody else.
func TestRpcbindsLock(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		what, name string
		uid        uint32
		mode       os.FileMode
		portmapper bool
	}{
		{"rpcbind as root", "rpcbind", 0, 0o755, true},
		{"rpcbind as a user", "rpcbind", alice, 0o755, false},
		{"a program that makes its user root", "rpcbind", 0, 0o755 | os.ModeSetuid, false},
		{"a program that everybody may write", "rpcbind", 0, 0o757, false},
		{"another program of root's", "flock", 0, 0o755, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			for parent := dir; parent != os.TempDir(); parent = filepath.Dir(parent) {
				if err := os.Chmod(parent, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			p := Paths{Lock: filepath.Join(dir, "own.lock"), Rpcbind: filepath.Join(dir, "rpcbind.lock")}
			put(t, p.Rpcbind, "")
			if err := os.Chmod(p.Rpcbind, 0o444); err != nil {
				t.Fatal(err)
			}
			pid := holdAs(t, c.name, c.uid, c.mode, p.Rpcbind)
			s, err := State(p)
			if err != nil || (s.Condition == Running) != c.portmapper || c.portmapper && s.Process.PID != pid ||
				!c.portmapper && !strings.Contains(s.Note, "no portmapper") {
				t.Errorf("status: %v, %v", s, err)
			}
			l, warning, err := AcquireBeside(p.Lock, p.Rpcbind)
			if c.portmapper {
				var running *RunningError
				if !errors.As(err, &running) || running.PID != pid || running.Path != p.Rpcbind {
					t.Errorf("a second portmapper: %v", err)
				}
				if free, err := Acquire(p.Lock); err != nil {
					t.Errorf("our own lock is kept: %v", err)
				} else {
					free.Release()
				}
				return
			}
			if err != nil || !strings.Contains(warning, "no portmapper") {
				t.Fatalf("%q, %v", warning, err)
			}
			// The next rpcbind finds a lock that is held.
			var running *RunningError
			if err := probe(p.Rpcbind); !errors.As(err, &running) || running.PID != os.Getpid() {
				t.Errorf("rpcbind's lock: %v, want it held by us", err)
			}
			if info, err := os.Stat(p.Rpcbind); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("its mode is %v, %v", info.Mode(), err)
			}
			l.Release()
			if exists(p.Lock) || exists(p.Rpcbind) {
				t.Error("a lock file is left behind")
			}
		})
	}
}

// TestRpcbindsLockCantBeTaken has something else in the place of rpcbind's lock.
func TestRpcbindsLockCantBeTaken(t *testing.T) {
	dir := t.TempDir()
	p := Paths{Lock: filepath.Join(dir, "own.lock"), Rpcbind: filepath.Join(dir, "rpcbind.lock")}
	if err := os.Mkdir(p.Rpcbind, 0o755); err != nil {
		t.Fatal(err)
	}
	l, warning, err := AcquireBeside(p.Lock, p.Rpcbind)
	if err != nil || warning == "" {
		t.Fatalf("%q, %v", warning, err)
	}
	l.Release()
}
