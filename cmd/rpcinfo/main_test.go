package main

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// said is what a run printed, and its exit code.
type said struct {
	stdout, stderr string
	code           int
}

// testWorld is a machine with the files of Debian and a portmapper's port and socket where nobody is.
func testWorld(t testing.TB) world {
	t.Helper()
	dir := t.TempDir()
	return world{
		lookupEnv: func(string) (string, bool) { return "", false },
		rpcFile:   filepath.Join(dir, "rpc"), netconfigFile: filepath.Join(dir, "netconfig"),
		socket: filepath.Join(dir, "rpcbind.sock"), port: 1,
	}
}

// runIn runs rpcinfo with arguments separated by spaces.
func runIn(t *testing.T, w world, arguments string) said {
	t.Helper()
	var stdout, stderr bytes.Buffer
	w.stdout, w.stderr = &stdout, &stderr
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code := run(ctx, append([]string{"rpcinfo"}, strings.Fields(arguments)...), w)
	if ctx.Err() != nil {
		t.Fatalf("rpcinfo %s: still running after a minute", arguments)
	}
	return said{stdout.String(), stderr.String(), code}
}

// expect fails the test unless the run says exactly this.
func expect(t *testing.T, w world, arguments string, want said) {
	t.Helper()
	if got := runIn(t, w, arguments); got != want {
		t.Errorf("rpcinfo %s: exit %d\n%s%swant exit %d\n%s%s", arguments, got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
	}
}

// portmapper is a program 100000 that answers what the test says, by version and procedure. It serves TCP and UDP on the
// same port of 127.0.0.1, and the world's socket.
func portmapper(t testing.TB, w *world, versions map[uint32]oncrpc.Procedures) {
	t.Helper()
	var s oncrpc.Server
	t.Cleanup(func() { _ = s.Close() })
	for vers, procedures := range versions {
		if err := s.Register(rpcbind.Program, vers, procedures); err != nil {
			t.Fatal(err)
		}
	}
	w.port = serve(t, &s)
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
}

// serve serves TCP and UDP on one port of 127.0.0.1.
func serve(t testing.TB, s *oncrpc.Server) uint16 {
	t.Helper()
	l, p := listenBoth(t)
	go func() { _ = s.Serve(l) }()
	go func() { _ = s.ServePacket(p) }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// listenBoth takes a port of 127.0.0.1 over TCP and UDP.
func listenBoth(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, p
		}
		_ = l.Close() // the port is somebody's over UDP
	}
	t.Fatal("no port is free over both TCP and UDP")
	return nil, nil
}

// answering makes a procedure that answers these octets.
func answering(results []byte) oncrpc.Handler {
	return func(_ context.Context, _ *oncrpc.Request, dst []byte) ([]byte, error) {
		return append(dst, results...), nil
	}
}

// dumped makes the procedure DUMP.
func dumped(list ...rpcbind.RPCB) oncrpc.Procedures {
	var results []byte
	for _, b := range list {
		results = rpcbind.AppendRPCBElement(results, b)
	}
	return oncrpc.Procedures{rpcbind.ProcDump: answering(xdr.AppendBool(results, false))}
}
