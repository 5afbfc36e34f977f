package sys

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager that keeps descriptors.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	kept map[string]int
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "20")
	m := &manager{t: t, conn: conn, kept: make(map[string]int)}
	t.Cleanup(func() {
		conn.Close()
		for _, fd := range m.kept {
			unix.Close(fd)
		}
	})
	return m
}

// do reads one message and does what it says.
func (m *manager) do() string {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, oob := make([]byte, 1000), make([]byte, 100)
	n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
	if err != nil {
		m.t.Fatal(err)
	}
	fd := -1
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	verb, name, _ := strings.Cut(string(b[:n]), "\nFDNAME=")
	switch verb {
	case "FDSTORE=1":
		m.kept[name] = fd
	case "FDSTOREREMOVE=1":
		unix.Close(m.kept[name])
		delete(m.kept, name)
	default:
		unix.Close(fd)
	}
	return string(b[:n])
}

// next starts the calling test again as the next process, with what is kept and one socket more, that of a unit.
func (m *manager) next(t *testing.T) (files []*os.File, names []string) {
	for name, fd := range m.kept {
		dup, err := unix.Dup(fd)
		files, names = append(files, fileOf(t, dup, err)), append(names, name)
	}
	files = append(files, boundFile(t, raw(at("127.0.0.1", 0)), unix.SOCK_DGRAM, 0, 0))
	return files, append(names, "gportmap.socket")
}

func testStore(t *testing.T) *Store {
	t.Helper()
	s, err := NewStore()
	if err != nil || s == nil {
		t.Fatalf("NewStore: %v, %v", s, err)
	}
	t.Cleanup(func() { s.manager.conn.Close() })
	return s
}

const namesEnv = "GPORTMAP_SYS_TEST_NAMES"

// TestStore keeps a listener, a local connection, one over TCP and one whose client is gone, and has another process take
// them back.
func TestStore(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		child(t, syscall.SysProcAttr{})
		takenBack(t)
		return
	}
	m := newManager(t)
	s := testStore(t)
	dir := t.TempDir()
	listener, err := ListenLocal(filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tcp, err := ListenTCP(at("127.0.0.1", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	local, client := connected(t, listener)
	overTCP, tcpClient := connected(t, tcp)
	gone, goneClient := connected(t, listener)
	forgotten, _ := connected(t, listener)
	for _, c := range []syscall.Conn{listener, local, overTCP, gone, forgotten} {
		if err := s.Keep(c); err != nil {
			t.Fatal(err)
		}
		m.do()
	}
	if err := s.Forget(forgotten); err != nil {
		t.Fatal(err)
	}
	m.do()
	if len(m.kept) != 4 {
		t.Fatalf("%d are kept, want 4: %v", len(m.kept), m.kept)
	}
	// What is written now is read by the other process, although both our ends are closed.
	for _, c := range []net.Conn{client, tcpClient} {
		if _, err := c.Write([]byte("call")); err != nil {
			t.Fatal(err)
		}
	}
	local.Close()
	overTCP.Close()
	goneClient.Close()
	listener.Kept = true
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	files, names := m.next(t)
	t.Setenv(namesEnv, strings.Join(names, ":"))
	child(t, syscall.SysProcAttr{}, files...)
	for _, c := range []net.Conn{client, tcpClient} {
		b := make([]byte, 10)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(b); string(b[:n]) != "reply" {
			t.Errorf("over %s: %q, %v, want the reply of another process", c.LocalAddr().Network(), b[:n], err)
		}
	}
}

// takenBack is the other process.
func takenBack(t *testing.T) {
	names := os.Getenv(namesEnv)
	t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	t.Setenv("LISTEN_FDS", fmt.Sprint(strings.Count(names, ":")+1))
	t.Setenv("LISTEN_FDNAMES", names)
	a, err := Activation()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(a.Sockets) != 1 || !a.Sockets[0].Activated || a.Sockets[0].Kept {
		t.Errorf("sockets of a unit: %+v, want one", a.Sockets)
	}
	if len(a.Kept) != 1 || a.Kept[0].Activated || !a.Kept[0].Kept || a.Kept[0].Netid != "local" {
		t.Fatalf("kept: %+v, want the listener", a.Kept)
	}
	checkServed(t, a.Kept[0])
	// A local connection whose other end is gone may be found out later, by a read.
	if n := len(a.Connections) + len(a.Lost); n != 3 || len(a.Connections) < 2 {
		t.Errorf("%d connections, %q lost; want 3 in all", len(a.Connections), a.Lost)
	}
	for _, kept := range a.Connections {
		f := os.NewFile(uintptr(kept.FD()), "connection")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		if remote, own, v6, local := kept.Ends(); v6 || local == remote.IsValid() || local == own.IsValid() {
			t.Errorf("ends %v and %v, v6 %v, local %v", remote, own, v6, local)
		}
		if _, ok := c.(*net.UnixConn); ok {
			if cred, err := PeerCred(kept); err != nil || int(cred.PID) != os.Getppid() {
				t.Errorf("peer %+v, %v; want the process that connected, %d", cred, err, os.Getppid())
			}
		}
		b := make([]byte, 10)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			continue
		}
		if string(b[:n]) != "call" {
			t.Errorf("%q", b[:n])
		}
		if _, err := c.Write([]byte("reply")); err != nil {
			t.Error(err)
		}
	}
}

// connected returns both ends of a connection to a listener.
func connected(t *testing.T, s *Socket) (server interface {
	net.Conn
	syscall.Conn
}, client net.Conn) {
	t.Helper()
	client, err := net.Dial(s.Listener.Addr().Network(), s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := s.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); accepted.Close() })
	return accepted.(interface {
		net.Conn
		syscall.Conn
	}), client
}

func TestStoreSettles(t *testing.T) {
	m := newManager(t)
	s := testStore(t)
	if err := s.Settle(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a service manager that doesn't read: %v", err)
	}
	settled := make(chan error, 1)
	go func() { settled <- s.Settle(time.Minute) }()
	for range 2 {
		if got := m.do(); got != "BARRIER=1" {
			t.Errorf("%q", got)
		}
	}
	if err := <-settled; err != nil {
		t.Error(err)
	}
}

func TestNoStore(t *testing.T) {
	newManager(t)
	for _, fds := range []string{"", "0", "many"} {
		t.Setenv("FDSTORE", fds)
		s, err := NewStore()
		if s != nil || (err != nil) != (fds == "many") {
			t.Errorf("FDSTORE=%q: %v, %v", fds, s, err)
		}
	}
	t.Setenv("FDSTORE", "5")
	if s := testStore(t); s.Limit() != 5 {
		t.Errorf("limit %d, want 5", s.Limit())
	}
	t.Setenv("NOTIFY_SOCKET", "/nobody/listens")
	if s, err := NewStore(); s != nil || err == nil {
		t.Errorf("nobody listens: %v, %v", s, err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := NewStore()
	if s != nil || err != nil {
		t.Errorf("no service manager: %v, %v", s, err)
	}
	if s.Limit() != 0 || s.Keep(nil) == nil || s.Forget(nil) != nil || s.ForgetName("x") != nil || s.Settle(0) != nil {
		t.Error("a nil store keeps something, or forgets it with an error")
	}
}
