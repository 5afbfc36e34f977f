package instance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/sys"
)

func endpoint(netid, addr string) Endpoint {
	return Endpoint{Netid: netid, Addr: netip.MustParseAddrPort(addr)}
}

// everything is what a portmapper binds.
func everything() []Endpoint {
	all := []Endpoint{endpoint("udp", "0.0.0.0:111"), endpoint("tcp", "0.0.0.0:111")}
	if sys.IPv6Available() {
		all = append(all, endpoint("udp6", "[::]:111"), endpoint("tcp6", "[::]:111"))
	}
	return append(all, Endpoint{Netid: "local", Path: "/run/rpcbind.sock"}, Endpoint{Netid: "local", Path: "@/run/rpcbind.sock"})
}

// python starts a program that binds and says so; it lives to the end of the test.
func python(t *testing.T, script string) int {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	cmd := exec.Command(path, "-c", "import socket,sys\n"+script+"\nprint('bound',flush=True)\nsys.stdin.read()")
	return started(t, cmd, "bound\n")
}

// started starts a program and waits until it says what it should.
func started(t *testing.T, cmd *exec.Cmd, says string) int {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != says {
		t.Fatalf("%v said %q, %v", cmd.Args, line, err)
	}
	return cmd.Process.Pid
}

// startRpcbind starts the real one and waits until it serves; it lives to the end of the test.
func startRpcbind(t *testing.T, shell string) int {
	t.Helper()
	if _, err := os.Stat("/sbin/rpcbind"); err != nil {
		t.Skipf("needs rpcbind: %v", err)
	}
	cmd := exec.Command("sh", "-c", shell)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	ended := make(chan struct{})
	go func() {
		cmd.Process.Wait()
		close(ended)
	}()
	for {
		// It answers on its socket once it serves; the null procedure of RFC 1833, in a record.
		if out, err := exec.Command("rpcinfo", "-s", "127.0.0.1").CombinedOutput(); err == nil {
			return cmd.Process.Pid
		} else if errors.Is(err, exec.ErrNotFound) {
			t.Skip("needs rpcinfo")
		} else {
			select {
			case <-ended:
				t.Fatalf("rpcbind ended; rpcinfo: %s", out)
			default:
			}
		}
	}
}

func TestPortHeldByPython(t *testing.T) {
	if !host(t) {
		return
	}
	for _, c := range []struct {
		name, script string
		wanted       Endpoint
		says         string
	}{
		{"udp", "s=socket.socket(type=socket.SOCK_DGRAM);s.bind(('127.0.0.1',111))", endpoint("udp", "0.0.0.0:111"), "udp 127.0.0.1:111"},
		{"tcp", "s=socket.socket();s.bind(('',111));s.listen()", endpoint("tcp", "127.0.0.1:111"), "tcp 0.0.0.0:111"},
		{"dual-stack", "s=socket.socket(socket.AF_INET6);s.setsockopt(41,26,0);s.bind(('::',111));s.listen()", endpoint("tcp", "0.0.0.0:111"), "tcp6 [::]:111"},
		{"local", "s=socket.socket(socket.AF_UNIX);s.bind('/run/rpcbind.sock');s.listen()", Endpoint{Netid: "local", Path: "/run/rpcbind.sock"}, "local /run/rpcbind.sock"},
		{"abstract", "s=socket.socket(socket.AF_UNIX);s.bind('\\0/run/rpcbind.sock');s.listen()", Endpoint{Netid: "local", Path: "@/run/rpcbind.sock"}, "local @/run/rpcbind.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid := python(t, c.script)
			err := WhoHolds(c.wanted)
			if len(err.Holders) != 1 || err.Holders[0].Process.PID != pid || err.Err != nil {
				t.Fatalf("%+v, want pid %d", err, pid)
			}
			text := err.Error()
			for _, want := range []string{
				c.says + " is held by python3 (pid " + fmt.Sprint(pid) + ", user root, ", "import socket", fmt.Sprintf("remedy: kill %d", pid),
			} {
				if !strings.Contains(text, want) {
					t.Errorf("%s\nlacks %q", text, want)
				}
			}
			if strings.Contains(text, "takeover") || strings.Contains(text, "\n") || !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s", text)
			}
		})
		if err := os.Remove("/run/rpcbind.sock"); err != nil && c.name == "local" {
			t.Fatal(err)
		}
	}
	if err := WhoHolds(everything()...); len(err.Holders) != 0 || !strings.Contains(err.Error(), "gone by now") {
		t.Errorf("all free: %v", err)
	}
}

func TestPortHeldByRpcbind(t *testing.T) {
	if !host(t) {
		return
	}
	pid := startRpcbind(t, "exec /sbin/rpcbind -f -w")
	// Debian's doesn't bind the abstract name, so that one is free.
	err := WhoHolds(everything()...)
	t.Log(err)
	if len(err.Holders) != 1 || err.Holders[0].Process.PID != pid || err.Holders[0].Process.Command != "rpcbind" {
		t.Fatalf("%+v, want rpcbind, pid %d", err.Holders, pid)
	}
	if got, want := len(err.Holders[0].Sockets), len(everything())-1; got < want {
		t.Errorf("%d sockets, want %d", got, want)
	}
	for _, want := range []string{
		"udp 0.0.0.0:111, tcp 0.0.0.0:111, ", " are held by rpcbind (pid ", "`/sbin/rpcbind -f -w`",
		fmt.Sprintf("remedy: kill %d, or gportmap takeover", pid),
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

// TestPortHeldDenied has a user ask who has a port of root's.
func TestPortHeldDenied(t *testing.T) {
	if os.Getenv(stageEnv) != t.Name()+" user" {
		if !host(t) {
			return
		}
		python(t, "s=socket.socket(type=socket.SOCK_DGRAM);s.bind(('',111))")
	}
	if !stage(t, "user", syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}}) {
		return
	}
	err := WhoHolds(endpoint("udp", "0.0.0.0:111"))
	if len(err.Holders) != 1 || err.Holders[0].Unseen != Denied || err.Holders[0].User != "root" {
		t.Fatalf("%+v, want denied, of root", err.Holders)
	}
	for _, want := range []string{"by a process of user root that only root can look into", "look as root with ss -lnp 'sport = :111'"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

// TestPortHeldElsewhere asks in a PID namespace below that of the holder, as in a container with the host's network.
func TestPortHeldElsewhere(t *testing.T) {
	if os.Getenv(stageEnv) != t.Name()+" below" {
		if !host(t) {
			return
		}
		python(t, "s=socket.socket();s.bind(('',111));s.listen()")
	}
	if !stage(t, "below", syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}) {
		return
	}
	mountProc(t)
	err := WhoHolds(endpoint("tcp", "0.0.0.0:111"))
	if len(err.Holders) != 1 || err.Holders[0].Unseen != Elsewhere || err.Holders[0].Process.PID != 0 {
		t.Fatalf("%+v, want one elsewhere", err.Holders)
	}
	for _, want := range []string{"outside this pid namespace", "look on the host with ss -lnp 'sport = :111'"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

const rpcbindSocket = `[Socket]
ListenStream=/run/rpcbind.sock
BindIPv6Only=ipv6-only
ListenStream=0.0.0.0:111
ListenDatagram=0.0.0.0:111
`

// TestPortHeldBySystemd has a process 1 that calls itself systemd hold the sockets of a unit, at first alone and then for
// the real rpcbind as well.
func TestPortHeldBySystemd(t *testing.T) {
	if !host(t) {
		return
	}
	if err := errors.Join(os.MkdirAll("/run/systemd/system", 0o755),
		os.WriteFile("/run/systemd/system/rpcbind.socket", []byte(rpcbindSocket), 0o644),
		os.WriteFile("/proc/self/comm", []byte("systemd"), 0), os.WriteFile("/proc/1/comm", []byte("systemd"), 0)); err != nil {
		t.Fatal(err)
	}
	if os.Getpid() != 1 {
		t.Fatalf("pid %d, want 1", os.Getpid())
	}
	local, localErr := sys.ListenLocal("/run/rpcbind.sock")
	tcp, tcpErr := sys.ListenTCP(netip.MustParseAddrPort("0.0.0.0:111"))
	if err := errors.Join(localErr, tcpErr); err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	defer tcp.Close()
	wanted := []Endpoint{endpoint("tcp", "0.0.0.0:111"), {Netid: "local", Path: "/run/rpcbind.sock"}}
	err := WhoHolds(wanted...)
	const alone = "address already in use: tcp 0.0.0.0:111, local /run/rpcbind.sock are held by systemd (pid 1) for rpcbind.socket; " +
		"remedy: systemctl stop rpcbind.socket, or gportmap takeover"
	if err.Error() != alone {
		t.Errorf("%v\nwant %s", err, alone)
	}
	shared := serveActivated(t, tcp, local)
	err = WhoHolds(wanted...)
	t.Log(err)
	if len(err.Holders) != 1 || err.Holders[0].Process.PID != shared || !err.Holders[0].Systemd {
		t.Fatalf("%+v, want pid %d and systemd", err.Holders, shared)
	}
	for _, want := range []string{"systemd holds it too for rpcbind.socket", "remedy: systemctl stop rpcbind.socket, or gportmap takeover"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

// serveActivated starts rpcbind with sockets as systemd does.
func serveActivated(t *testing.T, sockets ...*sys.Socket) int {
	t.Helper()
	if _, err := os.Stat("/sbin/rpcbind"); err != nil {
		t.Skipf("needs rpcbind: %v", err)
	}
	cmd := exec.Command("sh", "-c", "echo $$; read go; LISTEN_PID=$$ exec /sbin/rpcbind -f -w")
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)))
	for _, s := range sockets {
		conn, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var f *os.File
		err = conn.Control(func(fd uintptr) {
			if fd, err := syscall.Dup(int(fd)); err == nil {
				f = os.NewFile(uintptr(fd), "socket")
			}
		})
		if err != nil || f == nil {
			t.Fatalf("copy a socket: %v", err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	// The shell becomes rpcbind, which has the sockets as the shell had them before.
	for {
		p, err := sys.LookupProcess(cmd.Process.Pid)
		if err != nil {
			t.Fatalf("rpcbind ended: %v", err)
		}
		if p.Command == "rpcbind" {
			return p.PID
		}
	}
}
