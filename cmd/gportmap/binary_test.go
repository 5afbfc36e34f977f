package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// limit bounds what should come at once; only a failing test waits so long.
const limit = 20 * time.Second

// an is an instance of its own on an unprivileged port.
type an struct {
	dir  string
	port int
}

// instanceFor returns a directory and a port that nobody uses.
func instanceFor(t *testing.T) an {
	t.Helper()
	// The path of a local socket is short, that of t.TempDir may not be.
	dir, err := os.MkdirTemp("", "gp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return an{filepath.Join(dir, "d"), freePort(t)}
}

// Ports that the kernel gives to nobody who doesn't ask for one by number: it begins at 32768, see
// net.ipv4.ip_local_port_range. A daemon that is started again must not find a passer-by's connection on its port.
const (
	firstFreePort = 10_000
	lastFreePort  = 32_767
)

// freePort returns a port that is free for TCP and UDP of both families, and stays so unless somebody wants that very one.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := firstFreePort + rand.IntN(lastFreePort-firstFreePort+1)
		at := fmt.Sprintf(":%d", port)
		u, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", at)
		u.Close()
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (a an) args(more ...string) []string {
	return append([]string{"--state-dir", a.dir, "--port", strconv.Itoa(a.port)}, more...)
}

func (a an) socket() string { return filepath.Join(a.dir, "rpcbind.sock") }
func (a an) lock() string   { return filepath.Join(a.dir, "rpcbind.lock") }

// ask calls NULL over the local socket and over TCP and UDP, which fails unless all are served.
func (a an) ask(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	ip := fmt.Sprintf("127.0.0.1:%d", a.port)
	for _, at := range [][2]string{{"unix", a.socket()}, {"unix", "@" + a.socket()}, {"tcp4", ip}, {"udp4", ip}} {
		c, err := rpcbind.DialPortmapper(ctx, at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Null(ctx, 4); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// execute runs gportmap to its end.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return finish(t, exec.Command(os.Getenv(binaryEnv), args...))
}

func finish(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer hung.Stop()
	err := cmd.Wait() // also for the end of the output: nobody may keep our streams
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// A foreground daemon.
type running struct {
	cmd    *exec.Cmd
	stderr *bufio.Reader
	closer io.Closer // of our end of stderr
}

// start runs gportmap -f and returns when it says that it started.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := launch(t, exec.Command(os.Getenv(binaryEnv), append([]string{"-f"}, args...)...))
	r.until(t, "started")
	return r
}

// launch runs a daemon, or what becomes one, until the end of the test.
func launch(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		hung.Stop()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &running{cmd, bufio.NewReader(pipe), pipe}
}

// until reads the log up to a line that contains text, and returns that.
func (r *running) until(t *testing.T, text string) string {
	t.Helper()
	var before strings.Builder
	for {
		line, err := r.stderr.ReadString('\n')
		if err != nil {
			t.Fatalf("the log ended without %q: %v\n%s", text, err, before.String())
		}
		if strings.Contains(line, text) {
			return line
		}
		before.WriteString(line)
	}
}

// end sends a signal and returns the exit code.
func (r *running) end(t *testing.T, s os.Signal) int {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.stderr)
	r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

// gone fails unless the instance left nothing but its directory and its state there.
func (a an) gone(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(a.dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range left {
		if !slices.Contains([]string{"rpcbind.xdr", "portmap.xdr", "boot_id"}, e.Name()) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestSignalsEndCleanly(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		a := instanceFor(t)
		r := start(t, a.args()...)
		a.ask(t)
		if code := r.end(t, s); code != 0 {
			t.Errorf("%v: exit code %d, want 0", s, code)
		}
		a.gone(t)
	}
}

func TestSignalsThatAreIgnored(t *testing.T) {
	a := instanceFor(t)
	r := start(t, a.args()...)
	for _, s := range []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGHUP} {
		if err := r.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "SIGHUP")
	a.ask(t)
	// A log that nobody reads any more ends nothing either.
	r.closer.Close()
	for range 3 {
		if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		a.ask(t)
	}
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.cmd.Wait()
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	a.gone(t)
}

func TestCallsAreLoggedOnRequest(t *testing.T) {
	a := instanceFor(t)
	r := start(t, a.args("-l")...)
	a.ask(t)
	if line := r.until(t, "NULL"); !strings.Contains(line, fmt.Sprintf(`from="uid %d"`, os.Getuid())) || !strings.Contains(line, "answer=SUCCESS") {
		t.Errorf("%q", line)
	}
	r.end(t, syscall.SIGTERM)

	a = instanceFor(t)
	r = start(t, a.args()...)
	a.ask(t)
	r.cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(r.stderr)
	if strings.Contains(string(rest), "NULL") || !strings.Contains(string(rest), "stopped") {
		t.Errorf("without -l: %s", rest)
	}
}

// holderOf returns the pid of the daemon that holds the instance's lock, and sees to its end.
func (a an) holderOf(t *testing.T) int {
	t.Helper()
	l, err := instance.Acquire(a.lock())
	var held *instance.RunningError
	if !errors.As(err, &held) || held.PID == 0 {
		l.Release()
		t.Fatalf("nobody holds %s: %v", a.lock(), err)
	}
	t.Cleanup(func() { syscall.Kill(held.PID, syscall.SIGKILL) })
	return held.PID
}

// stop ends a background daemon and returns when it has given its lock up.
func (a an) stop(t *testing.T, pid int) {
	t.Helper()
	f, err := os.Open(a.lock())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	a.gone(t)
}

func TestBackground(t *testing.T) {
	a := instanceFor(t)
	// By another name, as dracut starts it.
	link := filepath.Join(filepath.Dir(a.dir), "rpcbind")
	if err := os.Symlink(os.Getenv(binaryEnv), link); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := finish(t, exec.Command(link, a.args("-w")...))
	if code != 0 || stdout != "" || stderr != "" {
		t.Fatalf("exit code %d, %q, %q; want 0 and silence", code, stdout, stderr)
	}
	a.ask(t) // at once
	pid := a.holderOf(t)
	proc := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if comm := proc("comm"); comm != "rpcbind\n" {
		t.Errorf("the process is named %q", comm)
	}
	if args := strings.Split(proc("cmdline"), "\x00"); args[0] != link {
		t.Errorf("its arguments are %q", args)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); cwd != "/" {
		t.Errorf("its directory is %s, %v", cwd, err)
	}
	// proc_pid_stat(5): pid (comm) state ppid pgrp session tty_nr
	if stat := strings.Fields(proc("stat")); stat[5] != strconv.Itoa(pid) || stat[6] != "0" {
		t.Errorf("session %s, terminal %s; want %d and 0", stat[5], stat[6], pid)
	}
	for fd := range 3 {
		if f, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); f != os.DevNull {
			t.Errorf("descriptor %d is %s, %v", fd, f, err)
		}
	}
	a.stop(t, pid)
}

func TestBackgroundKeepsNoDescriptorOfItsStarter(t *testing.T) {
	a := instanceFor(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Getenv(binaryEnv), a.args()...)
	cmd.ExtraFiles = []*os.File{w}
	if code, _, stderr := finish(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	w.Close()
	pid := a.holderOf(t)
	r.SetReadDeadline(time.Now().Add(limit))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the daemon keeps our pipe open: %v", err)
	}
	a.stop(t, pid)
}

func TestSecondStart(t *testing.T) {
	a := instanceFor(t)
	r := start(t, a.args()...)
	for _, mode := range []string{"-f", "-w"} {
		code, _, stderr := execute(t, a.args(mode)...)
		pid := fmt.Sprintf("pid %d", r.cmd.Process.Pid)
		if code != daemon.ExitRunning || !strings.Contains(stderr, pid) || !strings.Contains(stderr, "already running") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d and one line with %s", mode, code, stderr, daemon.ExitRunning, pid)
		}
	}
	a.ask(t)
	r.end(t, syscall.SIGTERM)
}

func TestPortInUse(t *testing.T) {
	for _, mode := range []string{"-f", "-w"} {
		a := instanceFor(t)
		other, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", a.port))
		if err != nil {
			t.Fatal(err)
		}
		code, _, stderr := execute(t, a.args(mode)...)
		other.Close()
		want := fmt.Sprintf("tcp 0.0.0.0:%d", a.port)
		if code != daemon.ExitUnavailable || !strings.Contains(stderr, want) || !strings.Contains(stderr, "address already in use") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d and one line with %s", mode, code, stderr, daemon.ExitUnavailable, want)
		}
		a.gone(t)
		// Nothing was half started: the same instance starts now.
		r := start(t, a.args()...)
		a.ask(t)
		r.end(t, syscall.SIGTERM)
	}
}

func TestExitCodes(t *testing.T) {
	a := instanceFor(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string // part of it; "" is silence
	}{
		{"version", []string{"-v"}, 0, ""},
		{"help", []string{"--help"}, 0, ""},
		{"flag", []string{"-z"}, 64, "'z'"},
		{"argument", a.args("-f", "extra"), 64, "extra"},
		{"command", []string{"lst"}, 64, "lst"},
		{"command's flag", []string{"list", "-z"}, 64, "'z'"},
		{"command's arguments", []string{"set", "1"}, 64, "set PROGRAM VERSION NETID ADDRESS"},
		{"command's number", []string{"unset", "nfs", "3"}, 64, "nfs"},
		{"command's two portmappers", []string{"list", "--socket", "/x", "--host", "y"}, 64, "--host"},
		{"no portmapper", []string{"list", "--socket", file + ".sock"}, 69, file + ".sock"},
		{"name as host", a.args("-f", "-h", "nfs.example"), 64, "nfs.example"},
		{"foreign host", a.args("-f", "-h", "192.0.2.77"), 78, "192.0.2.77"},
		{"foreign host in the background", a.args("-h", "192.0.2.77"), 78, "192.0.2.77"},
		{"state directory's parent", []string{"-f", "--state-dir", file + "/x"}, 73, file + "/x"},
		{"state directory is a file", []string{"-f", "--state-dir", file}, 73, file},
		{"socket is a file", a.args("-f", "--socket", file), 73, file},
		{"socket too long", a.args("-f", "--socket", "/"+strings.Repeat("s", 200)), 64, "too long"},
		{"unprintable flag", []string{"--\x1b[2Jflag"}, 64, `\x1b[2J`},
	} {
		code, _, stderr := execute(t, c.args...)
		if code != c.code || !strings.Contains(stderr, c.stderr) || (c.stderr == "") != (stderr == "") {
			t.Errorf("%s: exit code %d, %q; want %d, %q", c.name, code, stderr, c.code, c.stderr)
		}
		if strings.Count(stderr, "\n") > 1 || strings.ContainsRune(stderr, '\x1b') {
			t.Errorf("%s: not one clear line: %q", c.name, stderr)
		}
	}
	if b, err := os.ReadFile(file); err != nil || len(b) != 0 {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}

func TestPermission(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if first, atoiErr := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || atoiErr != nil || first < 2 {
		t.Skipf("needs a host where unprivileged users can't bind port 1: %q, %v", b, err)
	}
	dir, err := os.MkdirTemp("", "gp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(os.Getenv(binaryEnv), "-f", "--port", "1", "--state-dir", filepath.Join(dir, "d"))
	if os.Geteuid() == 0 {
		const nobody = 65534
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	code, _, stderr := finish(t, cmd)
	if code != daemon.ExitPermission || !strings.Contains(stderr, "permission denied") || !strings.Contains(stderr, "CAP_NET_BIND_SERVICE") {
		t.Errorf("exit code %d, %q; want %d", code, stderr, daemon.ExitPermission)
	}
}

func TestVersionAndHelpAreOnStandardOutput(t *testing.T) {
	if _, stdout, _ := execute(t, "-v"); !strings.HasPrefix(stdout, "gportmap ") || !strings.Contains(stdout, "\ngithub.com/spf13/pflag v") {
		t.Errorf("-v: %q", stdout)
	}
	if _, stdout, _ := execute(t, "--help"); !strings.HasPrefix(stdout, "Usage: gportmap ") {
		t.Errorf("--help: %q", stdout)
	}
}
