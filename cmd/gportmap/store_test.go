package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// serviceManager keeps descriptors for a daemon, as systemd does, and gives them to the next one.
type serviceManager struct {
	t     *testing.T
	conn  *net.UnixConn
	files []*os.File
	names []string
	units []*os.File // of socket units
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	conn, path := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "100")
	return &serviceManager{t: t, conn: conn}
}

// until does what it is told, up to a message that begins so.
func (m *serviceManager) until(want string) {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(limit))
	b, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
		if err != nil {
			m.t.Fatalf("waiting for %q: %v", want, err)
		}
		m.do(string(b[:n]), descriptor(oob[:oobn]))
		if strings.HasPrefix(string(b[:n]), want) {
			return
		}
	}
}

func (m *serviceManager) do(message string, f *os.File) {
	verb, name, _ := strings.Cut(message, "\nFDNAME=")
	switch {
	case verb == "FDSTORE=1" && f != nil:
		m.files, m.names = append(m.files, f), append(m.names, name)
	case verb == "FDSTOREREMOVE=1":
		for i := range m.names {
			if m.names[i] == name {
				m.files[i].Close()
				m.files, m.names = append(m.files[:i:i], m.files[i+1:]...), append(m.names[:i:i], m.names[i+1:]...)
				break
			}
		}
	case f != nil:
		f.Close()
	}
}

// descriptor is the one that came with a message, nil if none did.
func descriptor(oob []byte) *os.File {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	name := "connection"
	listens, _ := syscall.GetsockoptInt(fds[0], syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	kind, _ := syscall.GetsockoptInt(fds[0], syscall.SOL_SOCKET, syscall.SO_TYPE)
	if listens == 1 || kind == syscall.SOCK_DGRAM {
		name = "listener"
	}
	return os.NewFile(uintptr(fds[0]), name)
}

// listeners counts those that are kept, UDP's included.
func (m *serviceManager) listeners() int { return m.count("listener") }

func (m *serviceManager) count(kind string) int {
	n := 0
	for _, f := range m.files {
		if f.Name() == kind {
			n++
		}
	}
	return n
}

// told counts what it is told in so long.
func (m *serviceManager) told(d time.Duration) (messages int) {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(d))
	b, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return messages
		}
		if err != nil {
			m.t.Fatal(err)
		}
		if f := descriptor(oob[:oobn]); f != nil {
			f.Close()
		}
		if strings.HasPrefix(string(b[:n]), "FDSTORE") {
			messages++
		}
	}
}

// start starts a daemon with everything that there is for it.
func (m *serviceManager) start(args ...string) *exec.Cmd {
	m.t.Helper()
	names := m.names
	for range m.units {
		names = append(names[:len(names):len(names)], "gportmap.socket")
	}
	m.t.Setenv("LISTEN_FDNAMES", strings.Join(names, ":"))
	cmd := activate(m.t, append(m.files[:len(m.files):len(m.files)], m.units...), append([]string{"-f"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	m.until("READY=1")
	return cmd
}

// registrar is a client that keeps its connections, as the kernel does.
type registrar struct {
	*rpcbind.Client
	network string
}

func keepCalling(t *testing.T, network, address string) registrar {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	// A connection of its own, which isn't made anew: what breaks is seen.
	c := rpcbind.NewClient(conn, oncrpc.ClientConfig{})
	t.Cleanup(func() { c.Close() })
	return registrar{c, network}
}

// TestConnectionsOutliveTheDaemon has clients that keep their connections to daemons of which one is told to end and the
// others are killed. Each answers on the same connections, knows their users, and has all registrations.
func TestConnectionsOutliveTheDaemon(t *testing.T) {
	a := instanceFor(t)
	m := newServiceManager(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	daemon := m.start(a.args()...)
	address := fmt.Sprintf("127.0.0.1:%d", a.port)
	local, tcp := keepCalling(t, "unix", a.socket()), keepCalling(t, "tcp", address)
	register := func(c registrar, prog uint32) {
		t.Helper()
		ok, err := c.Set(ctx, rpcbind.RPCB{Program: prog, Version: 1, Netid: "tcp", Addr: "0.0.0.0.200.1"})
		if !ok || err != nil {
			t.Errorf("over %s: SET of %d: %v, %v", c.network, prog, ok, err)
		}
	}
	register(local, 300001)
	register(tcp, 300002)
	for m.count("connection") < 1 { // once it was idle for a while
		m.until("FDSTORE=1")
	}
	// Called while no daemon runs: the calls wait.
	next := func(end os.Signal, calls func()) {
		t.Helper()
		daemon.Process.Signal(end)
		if end == syscall.SIGTERM {
			m.until("BARRIER=1")
		}
		daemon.Wait()
		done := make(chan struct{})
		go func() { defer close(done); calls() }()
		daemon = m.start(a.args()...)
		<-done
	}
	next(syscall.SIGTERM, func() { register(local, 300003); register(tcp, 300004) })
	for i := range uint32(3) {
		next(syscall.SIGKILL, func() { register(local, 300005+i) })
	}
	if err := tcp.Null(ctx, 2); err == nil {
		t.Error("the connection over TCP outlived a crash: it is kept for planned ends only")
	}
	all, err := local.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	owners := make(map[uint32]string)
	for _, b := range all {
		owners[b.Program] = b.Owner
	}
	for prog := uint32(300001); prog <= 300007; prog++ {
		if owners[prog] != owners[300001] || owners[prog] == rpcbind.OwnerUnknown {
			t.Errorf("%d belongs to %q, the first one to %q", prog, owners[prog], owners[300001])
		}
		if ok, err := local.Unset(ctx, rpcbind.RPCB{Program: prog, Version: 1}); !ok || err != nil {
			t.Errorf("UNSET of %d: %v, %v", prog, ok, err)
		}
	}
	kept := len(m.names)
	local.Close()
	m.until("FDSTOREREMOVE=1")
	if len(m.names) != kept-1 {
		t.Errorf("%d are kept after a connection was closed, %d before", len(m.names), kept)
	}
}

// TestListenersOutliveTheDaemon has a daemon that bound its sockets itself end: calls wait in them for the next, and what
// that one is told to serve besides it binds; what it isn't to serve any more it gives up.
func TestListenersOutliveTheDaemon(t *testing.T) {
	a := instanceFor(t)
	m := newServiceManager(t)
	daemon := m.start(a.args("-h", "127.0.0.1")...)
	before := m.listeners()
	if before < 4 { // udp, tcp, the local sockets by path and abstract; IPv6
		t.Fatalf("%d listeners are kept", before)
	}
	daemon.Process.Signal(syscall.SIGTERM)
	m.until("BARRIER=1")
	daemon.Wait()
	answered := make(chan struct{})
	go func() { defer close(answered); a.ask(t) }() // refused, if nobody had the sockets
	daemon = m.start(a.args("-h", "127.0.0.1")...)
	<-answered
	if n := m.listeners(); n != before {
		t.Errorf("%d listeners are kept, %d before", n, before)
	}
	daemon.Process.Kill()
	daemon.Wait()
	m.start(a.args("-h", "127.0.0.2")...)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.2:%d", a.port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	a.ask(t)
	if n := m.listeners(); n != before+2 {
		t.Errorf("%d listeners are kept, want two more than %d", n, before)
	}
}

// TestListenersThatNobodyWants are closed when a socket unit says what is to be served.
func TestListenersThatNobodyWants(t *testing.T) {
	a := instanceFor(t)
	m := newServiceManager(t)
	daemon := m.start(a.args()...)
	daemon.Process.Kill()
	daemon.Wait()
	unit, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.dir + ".sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unit.Close()
	m.units = []*os.File{file(t, unit)}
	// The service manager answers while the daemon starts.
	m.start(a.args()...)
	if n := m.listeners(); n != 0 {
		t.Errorf("%d are still kept", n)
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.port)); err == nil {
		conn.Close()
		t.Error("a port is served that no unit names")
	}
}
