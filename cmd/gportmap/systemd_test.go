package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// notifySocket returns a socket for NOTIFY_SOCKET and its path.
func notifySocket(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := instanceFor(t).dir + ".notify"
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, path
}

func notified(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestServiceManagerIsTold(t *testing.T) {
	a := instanceFor(t)
	c, path := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	r := start(t, a.args()...)
	if m := notified(t, c); !strings.HasPrefix(m, "READY=1\n") || !strings.Contains(m, fmt.Sprintf("STATUS=serving udp 0.0.0.0:%d", a.port)) {
		t.Errorf("%q", m)
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if m := notified(t, c); m != "STOPPING=1" {
		t.Errorf("%q", m)
	}
	io.Copy(io.Discard, r.stderr)
	r.cmd.Wait()
}

// await reads notifications until one contains what is wanted, and returns it.
func await(t *testing.T, c *net.UnixConn, want string) string {
	t.Helper()
	for {
		if m := notified(t, c); strings.Contains(m, want) {
			return m
		}
	}
}

// TestServiceManagerIsToldHowWeAre has a service manager that waits for signs of life, changes what the status tells, and
// has the daemon reload.
func TestServiceManagerIsToldHowWeAre(t *testing.T) {
	a := instanceFor(t)
	c, path := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "400000")
	r := start(t, a.args("-l")...)
	if m := notified(t, c); !strings.HasPrefix(m, "READY=1\n") || !strings.HasSuffix(m, "; 0 registrations") {
		t.Errorf("%q", m)
	}
	for range 3 {
		await(t, c, "WATCHDOG=1")
	}
	if code, _, stderr := execute(t, "set", "--socket", a.socket(), "300000", "1", "tcp", "192.0.2.1.8.1"); code != 0 {
		t.Fatal(stderr)
	}
	if m := await(t, c, "1 registration"); !strings.HasPrefix(m, "STATUS=serving ") || strings.Contains(m, "READY") {
		t.Errorf("%q", m)
	}
	state := filepath.Join(a.dir, "rpcbind.xdr")
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var usec uint64
	m := await(t, c, "RELOADING=1")
	if _, err := fmt.Sscanf(m, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec == 0 {
		t.Errorf("%q: %v", m, err)
	}
	if m := await(t, c, "READY=1"); !strings.HasSuffix(m, "; 1 registration") {
		t.Errorf("%q", m)
	}
	if _, err := os.Stat(state); err != nil {
		t.Errorf("the state wasn't written anew: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	client, err := rpcbind.DialPortmapper(ctx, "unix", a.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stats, err := client.Stat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, vers := range []uint32{2, 3, 4} {
		if n := stats.Of(vers).Calls[0]; n != 0 {
			t.Errorf("GETSTAT counts %d NULLs of version %d, which nobody else called", n, vers)
		}
	}
	r.cmd.Process.Signal(syscall.SIGTERM)
	await(t, c, "STOPPING=1")
	log, _ := io.ReadAll(r.stderr)
	r.cmd.Wait()
	if strings.Contains(string(log), "NULL") {
		t.Errorf("its own calls are logged:\n%s", log)
	}
}

// activate runs gportmap with sockets as systemd hands them over.
func activate(t *testing.T, files []*os.File, args ...string) *exec.Cmd {
	t.Helper()
	// The pid has to be known to the program before it starts: the shell's becomes its own.
	script := fmt.Sprintf(`LISTEN_FDS=%d LISTEN_PID=$$ exec "$0" "$@"`, len(files))
	cmd := exec.Command("sh", append([]string{"-c", script, os.Getenv(binaryEnv)}, args...)...)
	cmd.ExtraFiles = files
	return cmd
}

func file(t *testing.T, s interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestActivation hands over sockets that no flag names, without -f: the daemon serves exactly these, in the foreground.
func TestActivation(t *testing.T) {
	a := instanceFor(t)
	path := a.dir + ".sock"
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // which is another protocol to the kernel, and Go's default
	tcp, err := plain.Listen(t.Context(), "tcp4", fmt.Sprintf("127.0.0.1:%d", a.port))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", a.port))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	notify, notifyPath := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", notifyPath)
	cmd := activate(t, []*os.File{file(t, tcp.(*net.TCPListener)), file(t, udp.(*net.UDPConn)), file(t, unix)},
		"--state-dir", a.dir, "-h", "192.0.2.77")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("gportmap said:\n%s", log.String())
		}
	})
	if m := notified(t, notify); !strings.HasPrefix(m, "READY=1\n") {
		t.Fatalf("%q", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range all {
		got = append(got, fmt.Sprintf("%d %s %s", b.Version, b.Netid, b.Addr))
	}
	addr := fmt.Sprintf("127.0.0.1.%d.%d", a.port>>8, a.port&0xff)
	want := []string{"4 tcp " + addr, "3 tcp " + addr, "2 tcp " + addr, "4 udp " + addr, "3 udp " + addr, "2 udp " + addr,
		"4 local " + path, "3 local " + path}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("registered: %q, want %q", got, want)
	}
	for _, network := range []string{"tcp4", "udp4"} {
		c, err := rpcbind.DialPortmapper(ctx, network, fmt.Sprintf("127.0.0.1:%d", a.port))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Null(ctx, 2); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil { // also waits for the whole log
		t.Errorf("end: %v", err)
	}
	if !strings.Contains(log.String(), "--host, --port and --socket don't apply") {
		t.Errorf("the log doesn't say that -h is ignored:\n%s", log.String())
	}
	// systemd's sockets stay systemd's.
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket handed over is gone: %v", err)
	}
	a.gone(t)
}

func TestUnfitActivation(t *testing.T) {
	a := instanceFor(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	code, _, stderr := finish(t, activate(t, []*os.File{f}, "--state-dir", a.dir))
	if code != daemon.ExitConfig || !strings.Contains(stderr, "regular file") || strings.Contains(stderr, `\n`) {
		t.Errorf("exit code %d, %q; want %d and what it is", code, stderr, daemon.ExitConfig)
	}
	a.gone(t)
}

// TestActivationOfAnother leaves alone what was meant for another process: a process started by an activated one.
func TestActivationOfAnother(t *testing.T) {
	a := instanceFor(t)
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	if code, _, stderr := execute(t, a.args()...); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	a.ask(t)
	a.stop(t, a.holderOf(t))
}
