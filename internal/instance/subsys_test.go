package instance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSubsys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "subsys")
	path := filepath.Join(dir, "gportmap")
	for _, none := range []string{"", path} {
		if s, err := CreateSubsys(none); s != nil || err != nil {
			t.Errorf("%q without the directory: %v, %v", none, s, err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("the directory was made")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is a stale one
		s, err := CreateSubsys(path)
		if err != nil || s == nil {
			t.Fatalf("%v, %v", s, err)
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
			t.Errorf("%v, %v", info, err)
		}
	}
	s, err := CreateSubsys(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file is still there")
	}
	if err := (*SubsysLock)(nil).Remove(); err != nil {
		t.Error(err)
	}
}

// What another user may have prepared isn't followed and not changed.
func TestSubsysAttacks(t *testing.T) {
	root := t.TempDir()
	elsewhere := filepath.Join(root, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(elsewhere, "gportmap")
	for _, c := range []struct {
		name    string
		root    bool
		prepare func(dir, path string) error
		want    string
	}{
		{"file is a link", false, func(dir, path string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Symlink(precious, path)) }, "not a regular file"},
		{"file is a dangling link", false, func(dir, path string) error {
			return errors.Join(os.Mkdir(dir, 0o755), os.Symlink(filepath.Join(elsewhere, "made"), path))
		}, "not a regular file"},
		{"file is a directory", false, func(dir, path string) error { return os.MkdirAll(path, 0o755) }, "not a regular file"},
		{"directory is a link out of its parent", false, func(dir, _ string) error { return os.Symlink(elsewhere, dir) }, "escapes"},
		{"directory is everybody's", false, func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o777)) }, "written to by others"},
		{"directory is a group's", false, func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o775)) }, "written to by others"},
		{"directory is another user's", true, func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, alice, alice)) }, "uid 54321"},
	} {
		if c.root && os.Geteuid() != 0 {
			t.Logf("%s: left out: needs root", c.name)
			continue
		}
		put(t, precious, "precious")
		parent := filepath.Join(root, strings.ReplaceAll(c.name, " ", "-"))
		dir := filepath.Join(parent, "subsys")
		path := filepath.Join(dir, "gportmap")
		if err := errors.Join(os.Mkdir(parent, 0o755), c.prepare(dir, path)); err != nil {
			t.Fatal(err)
		}
		s, err := CreateSubsys(path)
		if s != nil || err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: create: %v, %v, want %q", c.name, s, err, c.want)
		}
		removed, err := removeSubsys(path)
		if removed || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: remove: %v, %v, want %q", c.name, removed, err, c.want)
		}
		if got := contents(t, precious); got != "precious" {
			t.Errorf("%s: it was followed: %q", c.name, got)
		}
		if _, err := os.Lstat(filepath.Join(elsewhere, "made")); err == nil {
			t.Errorf("%s: a dangling link was followed", c.name)
		}
	}
}
