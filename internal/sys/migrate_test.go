package sys

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// share allows others to bind to the same address.
func share(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// listenTCP listens, with the function set as its Control.
func listenTCP(t *testing.T, addr string, control func(string, string, syscall.RawConn) error) (*net.TCPListener, error) {
	t.Helper()
	config := net.ListenConfig{Control: control}
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), nil
}

// TestShareAndMigrate is what happens to TCP in a takeover by units: one socket ends, the next is bound beside it, and the
// connections that wait in the queue of the first go on with the second.
func TestShareAndMigrate(t *testing.T) {
	if !netns(t) {
		return
	}
	if _, err := os.Stat(migrateFile); err != nil {
		t.Skipf("needs Linux 5.14: %v", err)
	}
	first, err := listenTCP(t, "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr := first.Addr().String()
	f, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := &CopiedSocket{fd: fd}
	if _, err := listenTCP(t, addr, share); err == nil {
		t.Fatal("the address of a socket that isn't shared was bound")
	}
	if err := c.Share(); err != nil {
		t.Fatal(err)
	}
	const waiting = 8
	for range waiting {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	second, err := listenTCP(t, addr, share)
	if err != nil {
		t.Fatalf("beside one that is shared: %v", err)
	}
	before, err := os.ReadFile(migrateFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := MigrateConnections(func() { first.Close(); c.Close() }); err != nil {
		t.Skipf("needs a kernel that lets the setting be changed here: %v", err)
	}
	second.SetDeadline(time.Now().Add(patience))
	for i := range waiting {
		conn, err := second.Accept()
		if err != nil {
			t.Fatalf("connection %d of %d that waited: %v", i, waiting, err)
		}
		b := make([]byte, 1)
		if _, err := conn.Read(b); err != nil || b[0] != 'x' {
			t.Errorf("connection %d: %q, %v", i, b, err)
		}
		conn.Close()
	}
	if after, err := os.ReadFile(migrateFile); err != nil || string(after) != string(before) {
		t.Errorf("the setting is %q after %q, %v", after, before, err)
	}
}

// TestActivatedNotShared: whatever the unit says, nobody else gets a part of our datagrams. For TCP the kernel remembers what
// was allowed when the port was bound.
func TestActivatedNotShared(t *testing.T) {
	bind := func(addr string) (net.PacketConn, error) {
		config := net.ListenConfig{Control: share}
		return config.ListenPacket(context.Background(), "udp", addr)
	}
	c, err := bind("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	second, err := bind(c.LocalAddr().String())
	if err != nil {
		t.Fatalf("before: %v", err)
	}
	second.Close()
	s, err := activate(f)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if second, err = bind(c.LocalAddr().String()); err == nil {
		second.Close()
		t.Error("another socket could be bound to the same address")
	}
}
