package sys

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestReadGoBuild compares with debug/buildinfo, for the go tool, this test and a stripped program.
func TestReadGoBuild(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stripped := filepath.Join(dir, "gportmap")
	if out, err := exec.Command(goTool, "build", "-ldflags=-s -w", "-o", stripped, "github.com/gportmap/gportmap/cmd/gportmap").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{self, goTool, stripped} {
		want, err := buildinfo.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadGoBuild(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got.String() != want.String() || got.Path == "" {
			t.Errorf("%s:\n%s\nwant\n%s", path, got, want)
		}
	}
}

func TestReadGoBuildOfOthers(t *testing.T) {
	if _, err := ReadGoBuild("/nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	whole := append([]byte(buildMagic+"\x08\x02"), make([]byte, buildHeader-len(buildMagic)-2)...)
	for name, content := range map[string][]byte{
		"empty":            nil,
		"text":             []byte("#!/bin/sh\n"),
		"the magic alone":  []byte(buildMagic),
		"pointers":         bytes.Replace(whole, []byte("\x08\x02"), []byte("\x08\x00"), 1),
		"no strings":       whole,
		"a long string":    append(whole[:len(whole):len(whole)], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"no version":       append(whole[:len(whole):len(whole)], "\x03abc\x00"...),
		"no modules":       append(whole[:len(whole):len(whole)], "\x04go1.\x03abc"...),
		"not at its place": append([]byte("x"), append(whole[:len(whole):len(whole)], "\x04go1.\x20"...)...),
	} {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if info, err := ReadGoBuild(path); !errors.Is(err, ErrNoGoBuild) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
