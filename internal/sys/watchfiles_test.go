package sys

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWatchFiles(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path, linked := filepath.Join(dir, "hosts.deny"), filepath.Join(dir, "linked")
	target := filepath.Join(elsewhere, "target")
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(target)
	if err := os.Symlink(target, linked); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"made", func() { write(path) }},
		{"written", func() { write(path) }},
		{"replaced", func() {
			write(path + ".new")
			if err := os.Rename(path+".new", path); err != nil {
				t.Error(err)
			}
		}},
		{"removed", func() { os.Remove(path) }},
		{"behind a link", func() { write(target) }},
		{"the link", func() { os.Remove(linked) }},
	} {
		w, err := WatchFiles([]string{path, linked, "/nonexistent/file"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		c.change()
		if err := w.Wait(ctx); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		cancel()
		w.Close()
	}
}

func TestWatchFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	w, err := WatchFiles([]string{filepath.Join(dir, "a")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a file nobody asked for: %v", err)
	}
}
