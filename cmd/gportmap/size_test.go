package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxProgram is how large the program may be that is installed, octets. It is copied into initramfs and containers.
const maxProgram = 8 << 20

func TestSizeOfTheProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: links the program anew")
	}
	path := filepath.Join(t.TempDir(), "gportmap")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d octets", info.Size())
	if info.Size() > maxProgram {
		t.Errorf("the static, stripped program has %d octets, more than %d", info.Size(), maxProgram)
	}
}
