package sys

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocketOfAnotherMountNamespace binds a socket by our path in a mount namespace of its own, as every user may with a
// user namespace: it holds nothing of ours, and a stale file at that path is still stale.
func TestSocketOfAnotherMountNamespace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "rpcbind.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	elsewhere := make(chan error, 1)
	var other net.Listener
	var unshared func()
	unshared = func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			go unshared() // /proc/self shows the namespaces of this thread
			<-t.Context().Done()
			return
		}
		elsewhere <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
			var err error
			other, err = net.Listen("unix", path)
			return err
		}()
	}
	go unshared()
	if err := <-elsewhere; err != nil {
		t.Skipf("a mount namespace can't be made: %v", err)
	}
	defer other.Close()
	if found, err := LocalSockets(path); err != nil || len(found) != 1 {
		t.Errorf("held by %v, %v; want ours alone", found, err)
	}
	stale.Close()
	if found, err := LocalSockets(path); err != nil || len(found) != 0 {
		t.Errorf("held by %v, %v; want nobody", found, err)
	}
	if is, err := StaleSocket(path); err != nil || !is {
		t.Errorf("stale: %v, %v", is, err)
	}
	s, err := ListenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if found, err := LocalSockets(path); err != nil || len(found) != 1 || !found[0].Serving {
		t.Errorf("held by %v, %v; want the new one", found, err)
	}
}

// TestGiveSocket finds something else at the path of the socket that it is to give away.
func TestGiveSocket(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "admin.sock")
	for what, put := range map[string]func() error{
		"link":      func() error { return os.Symlink(secret, path) },
		"hard link": func() error { return os.Link(secret, path) },
		"socket of two names": func() error {
			l, err := net.Listen("unix", filepath.Join(dir, "another"))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			return os.Link(filepath.Join(dir, "another"), path)
		},
	} {
		if err := put(); err != nil {
			t.Fatal(what, err)
		}
		if err := GiveSocket(path, 0o660, os.Getegid()); err == nil {
			t.Errorf("%s: given away", what)
		}
		if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", what, info.Mode(), err)
		}
		os.Remove(path)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := GiveSocket(path, 0o660, os.Getegid()); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := GiveSocket(filepath.Join(dir, "none"), 0o660, -1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestSuperblockOf(t *testing.T) {
	const mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n361 35 0:27 / /run rw - tmpfs tmpfs rw\n"
	for id, want := range map[string]uint32{"36": 98 << 20, "361": 27} {
		if dev, ok := superblockOf(strings.NewReader(mounts), id); !ok || dev != want {
			t.Errorf("%s: %x, %v, want %x", id, dev, ok, want)
		}
	}
	if _, ok := superblockOf(strings.NewReader(mounts), "3"); ok {
		t.Error("3 is no mount")
	}
}
