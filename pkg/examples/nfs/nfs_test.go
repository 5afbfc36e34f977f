package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func TestMain(m *testing.M) { bed.Main(m) }

// A directory with a file that takes many READs, and what is in it.
func directory(t *testing.T) (dir string, content []byte) {
	t.Helper()
	dir = t.TempDir()
	content = make([]byte, 300_000)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(content)
	if err := os.WriteFile(filepath.Join(dir, "file"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "deep"), []byte("deep"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, content
}

// background runs a server, and returns when it has said that it serves. stop ends it.
func background(t *testing.T, server func(context.Context, io.Writer) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	said, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- server(ctx, told(said)) }()
	select {
	case <-said:
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

type told chan struct{}

func (c told) Write(b []byte) (int, error) {
	c <- struct{}{}
	return len(b), nil
}

// The directory is mounted by go-nfs-client, which asks the portmapper at port 111 for both programs and knows no other
// way; whether that is gportmap or Debian's rpcbind.
func TestMount(t *testing.T) {
	for _, s := range bed.Subjects(t) {
		t.Run(s.String(), func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				ns.Start(t, s)
				dir, content := directory(t)
				stop := background(t, func(ctx context.Context, out io.Writer) error { return run(ctx, []string{dir}, out) })
				mount(t, content)
				stop()
				if m, err := nfs.DialMount("127.0.0.1"); err == nil {
					m.Close()
					t.Error("the server has gone, and MOUNT is still found")
				}
			})
		})
	}
}

func mount(t *testing.T, content []byte) {
	t.Helper()
	m, err := nfs.DialMount("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	target, err := m.Mount("/", rpc.NewAuthUnix("client.example", 1000, 1000).Auth())
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	entries, err := target.ReadDirPlus("/")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, e := range entries {
		names[e.Name()] = true
	}
	if !names["file"] || !names["sub"] {
		t.Errorf("the directory has %v", names)
	}
	for name, want := range map[string][]byte{"/file": content, "/sub/deep": []byte("deep")} {
		f, err := target.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d octets, %v; want the %d written", name, len(got), err, len(want))
		}
	}
	if _, err := target.Mkdir("/new", 0o755); err == nil {
		t.Error("a directory was made in what is served for reading")
	}
	if err := m.Unmount(); err != nil {
		t.Error(err)
	}
}

// Without privileges, and with a portmapper that a program carries itself: both programs are found, and answer.
func TestRegistered(t *testing.T) {
	pm, err := portmapper.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	dir, _ := directory(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, func(ctx context.Context, out io.Writer) error {
		return serve(ctx, &rpcbind.Registrar{Dial: pm.Dial}, l, dir, out)
	})
	for _, program := range []uint32{nfsProgram, mountProgram} {
		c, err := rpcbind.Dial(t.Context(), "tcp", pm.Addr(), program, version)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := c.Call(t.Context(), 0, nil); err != nil {
			t.Error(err)
		}
		if c.RemoteAddr().String() != l.Addr().String() {
			t.Errorf("program %d is at %v, not %v", program, c.RemoteAddr(), l.Addr())
		}
		c.Close()
	}
	stop()
	for _, b := range pm.Registrations() {
		if b.Program != rpcbind.Program {
			t.Errorf("after the end: %+v", b)
		}
	}
}
