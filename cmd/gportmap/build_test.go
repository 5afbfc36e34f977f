package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// binaryEnv names the gportmap to test. Unless it is set, TestMain builds one, with the race detector if it has that itself.
const binaryEnv = "GPORTMAP_TEST_BINARY"

func TestMain(m *testing.M) {
	if os.Getenv(binaryEnv) != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "gportmap-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	binary := filepath.Join(dir, "gportmap")
	if raceEnabled() {
		// By default each process lingers a second at its end for late reports, and here are dozens.
		os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=20"))
	}
	// Other users than the one who tests run it as well.
	if err = errors.Join(build(binary, raceEnabled()), os.Chmod(dir, 0o755)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Setenv(binaryEnv, binary)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build builds gportmap: with the race detector, or as it is released, without cgo, for only so it can confine itself.
func build(binary string, race bool) error {
	cmd := exec.Command("go", "build", fmt.Sprintf("-race=%v", race), "-o", binary, ".")
	if !race {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

// asReleased lets a test run gportmap as it is released, also where the others run it with the race detector, which needs cgo.
func asReleased(t *testing.T) {
	t.Helper()
	if !raceEnabled() {
		return
	}
	binary := filepath.Join(t.TempDir(), "gportmap")
	if err := build(binary, false); err != nil {
		t.Fatal(err)
	}
	t.Setenv(binaryEnv, binary)
}

func raceEnabled() bool {
	b, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(b.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
