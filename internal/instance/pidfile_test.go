package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// put makes a file with that text.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// named starts a process whose name is that of a portmapper, and returns its id.
func named(t *testing.T, name string) int {
	t.Helper()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("needs cat(1)")
	}
	program, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `echo up; exec "$0"`, path)
	pid := started(t, cmd, "up\n")
	for { // the shell becomes the program
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			t.Fatal(err)
		}
		if string(comm) == name+"\n" {
			return pid
		}
	}
}

func TestWritePIDFile(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path, precious := filepath.Join(dir, "pid"), filepath.Join(dir, "precious")
	put(t, precious, "precious")
	for _, c := range []struct {
		name    string
		prepare func() error
	}{
		{"fresh", func() error { return nil }},
		{"old one", func() error { return os.WriteFile(path, []byte("4711\nlonger than ours\n"), 0o600) }},
		{"symlink", func() error { return os.Symlink(precious, path) }},
		{"dangling symlink", func() error { return os.Symlink(filepath.Join(dir, "made"), path) }},
		{"hard link", func() error { return os.Link(precious, path) }},
		{"fifo", func() error { return syscall.Mkfifo(path, 0o600) }},
		{"left half done", func() error { return os.WriteFile(temporary(path), []byte("47"), 0o600) }},
		{"temporary symlink", func() error { return os.Symlink(precious, temporary(path)) }},
		{"temporary dangling symlink", func() error { return os.Symlink(filepath.Join(dir, "made"), temporary(path)) }},
	} {
		if err := c.prepare(); err != nil {
			t.Fatal(err)
		}
		p, err := WritePIDFile(path)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: mode %v, %v, want 0644", c.name, info.Mode(), err)
		}
		if got, want := contents(t, path), fmt.Sprintf("%d\n", os.Getpid()); got != want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
		if err := p.Remove(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := p.Remove(); err != nil {
			t.Errorf("%s: a second time: %v", c.name, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 || contents(t, precious) != "precious" {
			t.Errorf("%s: left are %v, %v; precious is %q", c.name, left, err, contents(t, precious))
		}
	}
	for _, bad := range []string{filepath.Join(dir, "missing", "pid"), dir} {
		if p, err := WritePIDFile(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v, %v, want an error with the path", bad, p, err)
		}
	}
	if _, err := os.Lstat(temporary(dir)); err == nil {
		t.Error("a failed write left its temporary file")
	}
	if err := (*PIDFile)(nil).Remove(); err != nil {
		t.Error(err)
	}
}

func TestPIDFileRemoveKeepsAnothers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	for _, c := range []struct {
		name string
		take func() error
	}{
		{"another file", func() error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte("1\n"), 0o644)) }},
		{"another number", func() error { return os.WriteFile(path, []byte("1\n"), 0o644) }},
		{"a link to it", func() error { return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path)) }},
	} {
		p, err := WritePIDFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.take(); err != nil {
			t.Fatal(err)
		}
		if err := p.Remove(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: it was removed: %v", c.name, err)
		}
	}
}

func TestReadPIDFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pid")
	for text, want := range map[string]int{
		"1\n": 1, "4194304\n": 4194304, "77": 77, " 77 \n\n": 77,
		"": 0, "\n": 0, "0\n": 0, "-1\n": 0, "+1\n": 0, "4194305\n": 0, "1 2\n": 0, "1\x00": 0, "0x10\n": 0, "one\n": 0,
		"99999999999999999999\n": 0, strings.Repeat(" ", 100) + "1": 0,
	} {
		put(t, path, text)
		pid, written, err := ReadPIDFile(path)
		if pid != want || (err == nil) != (want != 0) || err != nil && !errors.Is(err, ErrStale) || time.Since(written) > time.Hour {
			t.Errorf("%q: %d, %v, %v, want %d", text, pid, written, err, want)
		}
	}
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(path, link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	put(t, path, "1\n")
	for _, bad := range []string{link, fifo, dir} {
		if pid, _, err := ReadPIDFile(bad); err == nil || errors.Is(err, ErrStale) {
			t.Errorf("%s: %d, %v, want an error", bad, pid, err)
		}
	}
	if _, _, err := ReadPIDFile(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestVerifyPIDFile(t *testing.T) {
	dir := t.TempDir()
	path, lock := filepath.Join(dir, "pid"), filepath.Join(dir, "lock")
	portmapper, stranger := named(t, "rpcbind"), named(t, "innocent")
	holding, kill := hold(t, lock)
	past := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name    string
		pid     int
		written time.Time
		stale   string // what the error says; none if it is believed
	}{
		{"a portmapper", portmapper, time.Now(), ""},
		{"the number was given away again", portmapper, past, "after the file was written"},
		{"another program", stranger, time.Now(), "no portmapper"},
		{"who has the lock, whatever its name and the clock", holding, past, ""},
		{"nobody", 4194304, time.Now(), "has ended"},
	} {
		put(t, path, fmt.Sprintln(c.pid))
		if err := os.Chtimes(path, c.written, c.written); err != nil {
			t.Fatal(err)
		}
		h, err := VerifyPIDFile(path, lock)
		var stale *StaleError
		switch {
		case c.stale == "" && (err != nil || h.PID != c.pid):
			t.Errorf("%s: %+v, %v", c.name, h, err)
		case c.stale != "" && (!errors.As(err, &stale) || stale.PID != c.pid || !strings.Contains(err.Error(), c.stale) ||
			!strings.Contains(err.Error(), path) || h != nil):
			t.Errorf("%s: %+v, %v, want %q", c.name, h, err, c.stale)
		}
		if h != nil {
			h.Close()
		}
	}
	kill()
	if h, err := VerifyPIDFile(path, filepath.Join(dir, "nolock")); !errors.Is(err, ErrStale) {
		t.Errorf("%+v, %v, want ErrStale", h, err)
	}
	put(t, path, "x")
	if _, err := VerifyPIDFile(path, lock); !errors.Is(err, ErrStale) {
		t.Errorf("noise: %v", err)
	}
	os.Remove(path)
	if _, err := VerifyPIDFile(path, lock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
