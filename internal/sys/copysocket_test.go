package sys

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// copyOf returns the copy of a socket of this process, made as that of another process's is.
func copyOf(t *testing.T, find func() ([]BoundSocket, error)) *CopiedSocket {
	t.Helper()
	sockets, err := find()
	if err != nil || len(sockets) != 1 {
		t.Fatalf("the socket is %v, %v", sockets, err)
	}
	h, err := OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	copies, err := h.CopySockets(sockets)
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		t.Skipf("needs pidfd_getfd(2), Linux 5.6: %v", err)
	}
	if err != nil || len(copies) != 1 {
		t.Fatalf("the copies are %v, %v", copies, err)
	}
	t.Cleanup(copies[0].Close)
	return copies[0]
}

func TestCopiedTCPKeepsItsQueue(t *testing.T) {
	s, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c := copyOf(t, func() ([]BoundSocket, error) { return Conflicts("tcp", s.Addr) })
	client, err := net.Dial("tcp", s.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s.Close()
	again, err := c.Serve()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Netid != "tcp" || again.Addr != s.Addr || again.Activated || again.DualStack {
		t.Errorf("it is %+v", again)
	}
	conn, err := again.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("the connection is from %v, want %v", conn.RemoteAddr(), client.LocalAddr())
	}
	if _, err := c.Serve(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("served twice: %v", err)
	}
}

func TestCopiedUDPKeepsItsQueue(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		s, err := ListenUDP(netip.MustParseAddrPort(address))
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		c := copyOf(t, func() ([]BoundSocket, error) { return Conflicts(s.Netid, s.Addr) })
		client, err := net.Dial("udp", s.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("call")); err != nil {
			t.Fatal(err)
		}
		s.Close()
		again, err := c.Serve()
		if err != nil {
			t.Fatal(err)
		}
		in, err := NewBatch(1, 64).Read(again.Packet)
		if err != nil || len(in) != 1 || string(in[0].Payload) != "call" {
			t.Errorf("%s: received %v, %v", address, in, err)
		}
		client.Close()
		again.Close()
	}
}

// TestCopiedLocalKeepsItsPath: the other process removes its path as we do, and the socket gets it back, with what was in
// its queue.
func TestCopiedLocalKeepsItsPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	for _, removes := range []bool{true, false} {
		s, err := ListenLocal(path)
		if err != nil {
			t.Fatal(err)
		}
		c := copyOf(t, func() ([]BoundSocket, error) { return LocalSockets(path) })
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if removes {
			s.Close()
		} else {
			s.Listener.Close() // as rpcbind does
		}
		again, err := c.Serve()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := again.Listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		client.Close()
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|localMode {
			t.Errorf("the path is %v, %v", info, err)
		}
		if left, err := filepath.Glob(path + ".*"); err != nil || left != nil {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if client, err = net.Dial("unix", path); err != nil {
			t.Errorf("by the path: %v", err)
		} else {
			client.Close()
		}
		again.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the path stays: %v", err)
		}
	}
}

// TestCopiedLocalLeavesOthersPath: somebody else bound the path before the copy could be served.
func TestCopiedLocalLeavesOthersPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	s, err := ListenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	c := copyOf(t, func() ([]BoundSocket, error) { return LocalSockets(path) })
	s.Close()
	other, err := ListenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if again, err := c.Serve(); err == nil {
		t.Errorf("served is %+v", again)
	}
	if client, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other one can't be reached: %v", err)
	} else {
		client.Close()
	}
}

// TestUnservedCopyLeavesNothing: a copy that is given back leaves the socket to who has it.
func TestUnservedCopyLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	s, err := ListenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	copyOf(t, func() ([]BoundSocket, error) { return LocalSockets(path) }).Close()
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v", left, err)
	}
	if client, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		client.Close()
	}
}
