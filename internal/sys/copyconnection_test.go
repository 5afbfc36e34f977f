package sys

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// accepted returns the client's ends of connections that were accepted on a local socket of that name.
func accepted(t *testing.T, name string, n int) (clients, servers []net.Conn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for range n {
		client, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); conn.Close() })
		clients, servers = append(clients, client), append(servers, conn)
	}
	return clients, servers
}

func copyConnections(t *testing.T, names []string, most int) ([]*Connection, error) {
	t.Helper()
	h, err := OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	conns, err := h.CopyConnections(names, most)
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		t.Skipf("needs pidfd_getfd(2), Linux 5.6: %v", err)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	return conns, err
}

// TestCopyConnections copies those of the names alone, neither listeners nor clients' ends nor what is hung up.
func TestCopyConnections(t *testing.T) {
	path, abstract := filepath.Join(t.TempDir(), "s"), "@"+t.Name()+filepath.Base(t.TempDir())
	byPath, servers := accepted(t, path, 2)
	byName, more := accepted(t, abstract, 1)
	accepted(t, filepath.Join(t.TempDir(), "other"), 1)
	byPath[1].Close()
	conns, err := copyConnections(t, []string{path, abstract}, 10)
	if err != nil || len(conns) != 2 {
		t.Fatalf("copied are %d, %v, want 2", len(conns), err)
	}
	for _, conn := range append(servers, more...) {
		conn.Close() // as the other process's end does
	}
	for _, client := range []net.Conn{byPath[0], byName[0]} {
		client.SetDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the client sees %v", err)
		}
	}
	for _, conn := range conns {
		if err := conn.Serve(); err != nil {
			t.Error(err)
		}
		if cred, err := PeerCred(conn); err != nil || int(cred.UID) != os.Geteuid() {
			t.Errorf("it is of %+v, %v", cred, err)
		}
		if _, err := ReadNow(conn.FD(), make([]byte, 1)); err != syscall.EAGAIN {
			t.Errorf("it reads with %v", err)
		}
	}
}

func TestCopyConnectionsIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	accepted(t, path, 5)
	conns, err := copyConnections(t, []string{path}, 3)
	if len(conns) != 3 || err == nil || !strings.Contains(err.Error(), "2 more than 3") {
		t.Errorf("copied are %d, %v", len(conns), err)
	}
}

// TestHandOver: whoever isn't meant gets nothing, and keeps nobody else from getting it.
func TestHandOver(t *testing.T) {
	name := "@" + t.Name() + filepath.Base(t.TempDir())
	if conns, err := HandedOver(name); conns != nil || err != nil {
		t.Errorf("without an offer: %v, %v", conns, err)
	}
	path := filepath.Join(t.TempDir(), "s")
	clients, servers := accepted(t, path, 2)
	conns, err := copyConnections(t, []string{path}, 2)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	offer, err := OfferConnections(name, conns, func(uid uint32) bool {
		asked++
		return asked > 1 && int(uid) == os.Geteuid()
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := HandedOver(name); len(got) != 0 || err == nil {
		t.Errorf("who isn't meant gets %v, %v", got, err)
	}
	got, err := HandedOver(name)
	if err != nil || len(got) != 2 {
		t.Fatalf("handed over are %v, %v", got, err)
	}
	if err := offer.Close(); err != nil {
		t.Error(err)
	}
	for i := range conns {
		conns[i].Close()
		servers[i].Close()
	}
	for i, conn := range got {
		defer conn.Close()
		if _, err := clients[i].Write([]byte{byte(i)}); err != nil {
			t.Error(err)
		}
		b := []byte{255}
		if n, err := ReadNow(conn.FD(), b); n != 1 || err != nil || int(b[0]) != i {
			t.Errorf("connection %d reads %v, %v", i, b, err)
		}
	}
}

// TestHandOverToNobody tells that an offer wasn't taken.
func TestHandOverToNobody(t *testing.T) {
	offer, err := OfferConnections("@"+t.Name()+filepath.Base(t.TempDir()), nil, func(uint32) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if err := offer.Close(); err == nil {
		t.Error("it says that somebody has them")
	}
}
