package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// aWhile is how long tests wait for what has to happen. It is no expectation of speed.
const aWhile = 20 * time.Second

// fake is a portmapper that echoes: the reply to a call is "re:" and the call. A call that begins with '!' is none.
type fake struct {
	// observe, if not nil, sees each call.
	observe func(call []byte, from portmap.Caller)
	// remote, if not nil, sees what the relay passes on. The answer is "remote:" and the reply's octets after the xid.
	remote func(c *portmap.RemoteCall, reply []byte)
}

func (f *fake) AppendReply(dst, call []byte, from portmap.Caller) []byte {
	if f.observe != nil {
		f.observe(call, from)
	}
	if len(call) > 0 && call[0] == '!' {
		return dst
	}
	dst = append(dst, "re:"...)
	return append(dst, call...)
}

func (f *fake) AppendReplyAround(dst, call []byte, from portmap.Caller) ([]byte, int, [][]byte) {
	return f.AppendReply(dst, call, from), 0, nil
}

func (f *fake) MayWait([]byte) bool { return f.observe != nil }

func (f *fake) AppendRemoteReply(dst []byte, c *portmap.RemoteCall, reply []byte) []byte {
	if f.remote != nil {
		f.remote(c, reply)
	}
	if reply == nil {
		return append(dst, "remote failed"...)
	}
	dst = append(dst, "remote:"...)
	return append(dst, reply[4:]...)
}

// portmapperFunc is a portmapper that makes replies of any kind.
type portmapperFunc func(dst, call []byte, from portmap.Caller) []byte

func (f portmapperFunc) AppendReply(dst, call []byte, from portmap.Caller) []byte {
	return f(dst, call, from)
}

func (f portmapperFunc) AppendReplyAround(dst, call []byte, from portmap.Caller) ([]byte, int, [][]byte) {
	return f(dst, call, from), 0, nil
}

func (f portmapperFunc) MayWait([]byte) bool { return false }

func (f portmapperFunc) AppendRemoteReply(dst []byte, _ *portmap.RemoteCall, _ []byte) []byte {
	return dst
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var loopback4 = addrPort("127.0.0.1:0")

// loopbackIndex returns the index of the loopback interface.
func loopbackIndex(t testing.TB) uint32 {
	t.Helper()
	all, err := sys.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Loopback {
			return i.Index
		}
	}
	t.Fatal("this host has no loopback interface")
	return 0
}

func listenUDP(t testing.TB, a netip.AddrPort) *sys.Socket {
	t.Helper()
	return opened(t)(sys.ListenUDP(a))
}

func listenTCP(t testing.TB) *sys.Socket {
	t.Helper()
	return opened(t)(sys.ListenTCP(loopback4))
}

func listenLocal(t testing.TB) *sys.Socket {
	t.Helper()
	return opened(t)(sys.ListenLocal(filepath.Join(t.TempDir(), "s")))
}

func opened(t testing.TB) func(s *sys.Socket, err error) *sys.Socket {
	return func(s *sys.Socket, err error) *sys.Socket {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
}

// running is a server that serves.
type running struct {
	*Server
	cancel context.CancelFunc
	ended  chan error
}

// start serves sockets until the test ends or stop is called.
func start(t testing.TB, c Config, sockets ...*sys.Socket) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: New(c), cancel: cancel, ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() { r.ended <- r.Serve(ctx, sockets, func() { close(ready) }) }()
	t.Cleanup(func() { r.stop(t) })
	select {
	case <-ready:
	case err := <-r.ended:
		t.Fatalf("Serve ended before it was ready: %v", err)
	}
	return r
}

// stop ends the server and checks that it ended well.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// wait returns what Serve returned.
func (r *running) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(aWhile):
		t.Fatal("Serve doesn't end")
		return nil
	}
}

// client is a connection to a server under test.
type client struct {
	net.Conn
	t testing.TB
}

func dial(t testing.TB, s *sys.Socket) *client {
	t.Helper()
	network, address := strings.TrimSuffix(s.Netid, "6"), s.Addr.String()
	if s.Path != "" {
		network, address = "unix", s.Path
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(aWhile)); err != nil {
		t.Fatal(err)
	}
	return &client{Conn: conn, t: t}
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// expect reads records, each of one fragment.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		var mark [4]byte
		if _, err := io.ReadFull(c, mark[:]); err != nil {
			c.t.Fatalf("waiting for %.40q: %v", w, err)
		}
		n := binary.BigEndian.Uint32(mark[:])
		if n&(1<<31) == 0 || n&^(1<<31) > 1<<20 {
			c.t.Fatalf("waiting for %.40q: record mark %#x", w, n)
		}
		got := make([]byte, n&^(1<<31))
		if _, err := io.ReadFull(c, got); err != nil {
			c.t.Fatalf("waiting for %.40q: %v", w, err)
		}
		if string(got) != w {
			c.t.Fatalf("got %.60q, want %.60q", got, w)
		}
	}
}

// expectEnd reads the end of the connection.
func (c *client) expectEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c)
	if err != nil || len(rest) > 0 {
		c.t.Fatalf("got %.60q and %v, want the end of the connection", rest, err)
	}
}

// expectDatagram reads a datagram.
func (c *client) expectDatagram(want string) {
	c.t.Helper()
	buf := make([]byte, 65536)
	n, err := c.Read(buf)
	if err != nil {
		c.t.Fatalf("waiting for %.40q: %v", want, err)
	}
	if got := string(buf[:n]); got != want {
		c.t.Fatalf("got %.60q, want %.60q", got, want)
	}
}

// fragment is a fragment of a record.
func fragment(last bool, s string) []byte {
	n := uint32(len(s))
	if last {
		n |= 1 << 31
	}
	return append(binary.BigEndian.AppendUint32(nil, n), s...)
}

// record is one record for each string, of one fragment.
func record(s ...string) []byte {
	var b []byte
	for _, s := range s {
		b = append(b, fragment(true, s)...)
	}
	return b
}

// logged is a log that can be read.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// count returns the number of lines that contain s.
func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// gate is a portmapper's observe function that holds a call until it is let through.
type gate struct {
	held chan string
	let  chan struct{}
}

func newGate() *gate { return &gate{held: make(chan string, 100), let: make(chan struct{})} }

func (g *gate) observe(call []byte, _ portmap.Caller) {
	g.held <- string(call)
	<-g.let
}

// wait waits for a call to be held.
func (g *gate) wait(t testing.TB, want string) {
	t.Helper()
	select {
	case got := <-g.held:
		if got != want {
			t.Fatalf("call %q, want %q", got, want)
		}
	case <-time.After(aWhile):
		t.Fatalf("call %q doesn't come", want)
	}
}

// waitStopping waits until the server was told to end.
func (r *running) waitStopping(t testing.TB) {
	t.Helper()
	select {
	case <-r.stopped:
	case <-time.After(aWhile):
		t.Fatal("the server isn't told to end")
	}
}

func TestServeAnswersWhatItHasReceivedBeforeItEnds(t *testing.T) {
	g := newGate()
	udp, tcp, local := listenUDP(t, loopback4), listenTCP(t), listenLocal(t)
	r := start(t, Config{Portmapper: &fake{observe: g.observe}}, udp, tcp, local)
	idle := dial(t, local)

	// One call of each kind is being answered, another waits in the socket, and one more connection has not been
	// accepted by the time Serve is told to end, or has: that doesn't matter.
	d, s, l := dial(t, udp), dial(t, tcp), dial(t, local)
	d.send([]byte("d1"))
	g.wait(t, "d1")
	s.send(record("s1", "s2"))
	g.wait(t, "s1")
	l.send(record("l1")) // waits for s1
	d.send([]byte("d2"))
	s.send(record("s3"))
	l.send(record("l2"))
	late := dial(t, tcp)
	late.send(record("late"))

	r.cancel()
	r.waitStopping(t)
	close(g.let)
	d.expectDatagram("re:d1")
	d.expectDatagram("re:d2")
	s.expect("re:s1", "re:s2", "re:s3")
	s.expectEnd()
	l.expect("re:l1", "re:l2")
	l.expectEnd()
	late.expect("re:late")
	late.expectEnd()
	idle.expectEnd()
	r.stop(t)
	if n := r.connections.count; n != 0 {
		t.Errorf("%d connections outlived Serve", n)
	}
}

// A client that doesn't read delays the end by the time of grace, and no more.
func TestServeEndsDespiteClientThatDoesNotRead(t *testing.T) {
	tcp := listenTCP(t)
	writing := make(chan struct{}, 1)
	big := portmapperFunc(func(dst, call []byte, _ portmap.Caller) []byte {
		select {
		case writing <- struct{}{}:
		default:
		}
		return append(dst, make([]byte, 32<<20)...) // more than any socket buffer
	})
	r := start(t, Config{Portmapper: big}, tcp)
	dial(t, tcp).send(record("call"))
	<-writing
	r.stop(t)
}

func TestServeReturnsTheErrorOfASocket(t *testing.T) {
	for _, broken := range []*sys.Socket{listenUDP(t, loopback4), listenTCP(t), listenLocal(t)} {
		t.Run(broken.Netid, func(t *testing.T) {
			udp, tcp := listenUDP(t, loopback4), listenTCP(t)
			ended := make(chan error, 1)
			ready := make(chan struct{})
			s := New(Config{Portmapper: &fake{}})
			go func() {
				ended <- s.Serve(t.Context(), []*sys.Socket{udp, broken, tcp}, func() { close(ready) })
			}()
			<-ready
			c := dial(t, tcp)
			c.send(record("a"))
			c.expect("re:a")
			broken.Close()
			c.expectEnd()
			err := <-ended
			if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), broken.Netid) {
				t.Errorf("Serve: %v, want net.ErrClosed and the name of the socket", err)
			}
		})
	}
}

func TestServeRefusesASocketThatIsNotOpen(t *testing.T) {
	err := New(Config{Portmapper: &fake{}}).Serve(t.Context(), []*sys.Socket{{Netid: "tcp"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "tcp") {
		t.Errorf("Serve: %v, want an error that names the socket", err)
	}
}

func TestServeWithoutSockets(t *testing.T) {
	start(t, Config{Portmapper: &fake{}})
}

func TestEpisode(t *testing.T) {
	var e episode
	var got []bool
	got = append(got, e.begins(), e.begins(), e.begins())
	e.last = e.last.Add(-episodeQuiet - time.Second)
	got = append(got, e.begins(), e.begins())
	if want := []bool{true, false, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("begins: %v, want %v", got, want)
	}
}
