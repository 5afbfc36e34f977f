package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func mustLocal(t *testing.T, path string) *Socket {
	t.Helper()
	s, err := ListenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// greet connects to s and checks that the connection is accepted and who the peer is.
func greet(t *testing.T, s *Socket) {
	t.Helper()
	c, err := net.Dial("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := s.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a := accepted.(*net.UnixConn)
	defer a.Close()
	want := Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	if got, err := PeerCred(a); err != nil || got != want {
		t.Errorf("PeerCred = %+v, %v, want %+v", got, err, want)
	}
	a.Close()
	if got, err := PeerCred(a); err == nil {
		t.Errorf("PeerCred of a closed connection = %+v, want an error", got)
	}
}

func TestListenLocal(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "s")
	s := mustLocal(t, path)
	if s.Netid != "local" || s.Path != path || s.Addr.IsValid() || s.Activated || s.Packet != nil {
		t.Errorf("%+v", s)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := fs.ModeSocket | 0o666; info.Mode() != want {
		t.Errorf("mode %v, want %v", info.Mode(), want)
	}
	if got := s.Listener.Addr().String(); got != path {
		t.Errorf("bound to %s, want %s", got, path)
	}
	greet(t, s)
	if _, err := ListenLocal(path); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("second ListenLocal: %v, want EADDRINUSE with the path", err)
	}
	greet(t, s) // the look did no harm beyond a connection that ends at once
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v, want that the path is gone", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestListenLocalAbstract(t *testing.T) {
	name := fmt.Sprintf("@gportmap-test-%d", os.Getpid())
	s := mustLocal(t, name)
	greet(t, s)
	var octets []byte
	err := control(s.Listener.(*Listener), func(fd int) error {
		// In the kernel's words: family, a NUL, the name, and no more.
		var raw [128]byte
		n, err := getsockname(fd, raw[:])
		octets = raw[2:n]
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "\x00" + name[1:]; string(octets) != want {
		t.Errorf("name %q, want %q", octets, want)
	}
	if _, err := ListenLocal(name); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), name) {
		t.Errorf("second ListenLocal: %v, want EADDRINUSE with the name", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustLocal(t, name)
}

func TestListenLocalStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := bindLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	greet(t, mustLocal(t, path))
}

// TestSpareNameIsRemoved: a takeover that was killed leaves a second name of the socket behind.
func TestSpareNameIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path+spareSuffix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustLocal(t, path)
	if _, err := os.Lstat(path + spareSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
}

func TestListenLocalRefuses(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	stale, seq := filepath.Join(dir, "stale"), filepath.Join(dir, "datagram")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := bindLocal(stale)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := os.Symlink(stale, link); err != nil {
		t.Fatal(err)
	}
	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: seq, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	for _, test := range []struct {
		path  string
		errno syscall.Errno
	}{
		{file, unix.EEXIST},
		{dir, unix.EEXIST},
		{link, unix.EEXIST},
		{seq, unix.EADDRINUSE},
		{filepath.Join(dir, "missing", "s"), unix.ENOENT},
		{filepath.Join(dir, strings.Repeat("s", 108)), unix.EINVAL},
		{"@" + strings.Repeat("s", 108), unix.EINVAL},
		{"", 0},
		{"@", 0},
	} {
		before := listing(t, dir)
		s, err := ListenLocal(test.path)
		if err == nil {
			s.Close()
			t.Errorf("%q: no error", test.path)
			continue
		}
		if !strings.Contains(err.Error(), test.path) || test.errno != 0 && !errors.Is(err, test.errno) {
			t.Errorf("%q: %v, want %v with the path", test.path, err, test.errno)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%q: the directory changed\nfrom %s\nto   %s", test.path, before, after)
		}
	}
}

// listing is the names and modes in dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v %d; ", e.Name(), info.Mode(), info.Size())
	}
	return b.String()
}

// Close leaves a path alone that is another's by now.
func TestSocketCloseKeepsOthers(t *testing.T) {
	for _, test := range []struct {
		name string
		take func(path string) error
	}{
		{"another socket", func(path string) error {
			fd, err := bindLocal(path)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
		{"a file", func(path string) error { return os.WriteFile(path, nil, 0o600) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			s := mustLocal(t, path)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := test.take(path); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("after Close: %v", err)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		s := mustLocal(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestPeerCredOfUser(t *testing.T) {
	needRoot(t)
	// Reachable for another user, as t.TempDir is not.
	s := mustLocal(t, fmt.Sprintf("@gportmap-test-cred-%d", os.Getpid()))
	var fd int
	asUser(t, alice, func() (err error) {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrUnix{Name: s.Path})
	})
	defer unix.Close(fd)
	c, err := s.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := PeerCred(c.(*net.UnixConn)); err != nil || got.UID != alice {
		t.Errorf("PeerCred = %+v, %v, want uid %d", got, err, alice)
	}
}

// getsockname returns the kernel's own octets; x/sys makes a name of them.
func getsockname(fd int, b []byte) (int, error) {
	size := uint32(len(b))
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&b[0])),
		uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int(size), nil
}
