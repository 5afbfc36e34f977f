package rpcbind

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

func silent(oncrpc.Call) []byte { return nil }

// The first portmapper that can be reached is used, and a failure tells of all that were tried.
func TestDialLocal(t *testing.T) {
	path := fakePortmapper(t, "unix", silent)
	tcp := fakePortmapper(t, "tcp", silent)
	gone := filepath.Join(t.TempDir(), "gone")
	tests := []struct {
		name      string
		endpoints []endpoint
		want      endpoint
	}{
		{"path", []endpoint{{"unix", "@gportmap test, nobody is here"}, {"unix", path}, {"tcp", tcp}}, endpoint{"unix", path}},
		{"tcp", []endpoint{{"unix", gone}, {"tcp", tcp}}, endpoint{"tcp", tcp}},
	}
	for _, tt := range tests {
		c, err := dialLocal(t.Context(), tt.endpoints)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if c.network != tt.want.network || c.addr != tt.want.address {
			t.Errorf("%s: reached %s %s", tt.name, c.network, c.addr)
		}
		c.Close()
	}
	_, err := dialLocal(t.Context(), []endpoint{{"unix", gone}, {"unix", "@gportmap test, nobody is here"}})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), gone) ||
		!strings.Contains(err.Error(), "@gportmap") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, want one line about both", err)
	}
}

// The helper process of TestDialLocalSquatter: it listens on an abstract name until its standard input ends.
func TestSquatterProcess(t *testing.T) {
	name := os.Getenv("GPORTMAP_TEST_SQUATTER")
	if name == "" {
		t.Skip("is the helper process of TestDialLocalSquatter, not a test")
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Stdout.WriteString("listening\n")
	os.Stdin.Read(make([]byte, 1))
}

// Another user's listener on the abstract name isn't taken for the portmapper.
func TestDialLocalSquatter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("abstract sockets are Linux's")
	}
	name := "@gportmap-test-" + strconv.FormatUint(rand.Uint64(), 16)
	own, err := net.Listen("unix", name+"-own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if c, err := dialLocal(t.Context(), []endpoint{{"unix", name + "-own"}}); err != nil {
		t.Errorf("our own listener: %v", err)
	} else {
		c.Close()
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a listener of another user's")
	}
	// A copy, because the other user may not reach the directory of the test binary.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gportmap-squatter-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "squatter")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestSquatterProcess$")
	cmd.Env = append(os.Environ(), "GPORTMAP_TEST_SQUATTER="+name)
	cmd.Dir = "/"
	credential(cmd, 65534)
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
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	if line := make([]byte, 10); true {
		if n, err := out.Read(line); string(line[:n]) != "listening\n" {
			t.Fatalf("the other user's process said %q, %v", line[:n], err)
		}
	}
	path := fakePortmapper(t, "unix", silent)
	c, err := dialLocal(t.Context(), []endpoint{{"unix", name}, {"unix", path}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.addr != path {
		t.Errorf("reached %s, another user's listener", c.addr)
	}
	if _, err := dialLocal(t.Context(), []endpoint{{"unix", name}}); !errors.Is(err, errSquatter) {
		t.Errorf("%v, want one that is %v", err, errSquatter)
	}
}
