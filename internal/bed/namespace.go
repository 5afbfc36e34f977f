package bed

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses of the veth pair that Options.Remote makes: the host is where the
// daemon runs, the peer is the remote host. The networks are 10.9.9.0/24,
// fd09::/64 and fe80::/64.
const (
	HostIPv4      = "10.9.9.1"
	PeerIPv4      = "10.9.9.2"
	HostIPv6      = "fd09::1"
	PeerIPv6      = "fd09::2"
	HostLinkLocal = "fe80::9:1" // on HostInterface
	PeerLinkLocal = "fe80::9:2" // on PeerInterface
	HostInterface = "veth0"
	PeerInterface = "veth1"

	peerNamespace = "peer"
)

// Options says what the namespaces hold. The zero value is a host with nothing
// but a loopback interface, IPv4 and IPv6.
type Options struct {
	// Remote adds the remote host behind a veth pair.
	Remote bool
	// NoIPv6 switches IPv6 off before loopback comes up.
	NoIPv6 bool
}

// NS is the inside of the namespaces that InNamespace made.
type NS struct {
	opts   Options
	report *os.File // what the parent reads
}

// InNamespace runs f in fresh namespaces, in a second process; see the package
// documentation. It skips the test, with the reason, when it may not make them.
func InNamespace(t *testing.T, opts Options, f func(t *testing.T, ns *NS)) {
	t.Helper()
	inNamespace(t, opts, f, nil)
}

// inNamespace is InNamespace; the child's result, if there is one, goes to
// result.
func inNamespace(t *testing.T, opts Options, f func(t *testing.T, ns *NS), result *[]byte) {
	t.Helper()
	if name := os.Getenv(envTest); name != "" {
		if name != t.Name() {
			t.Fatalf("bed: %s calls InNamespace inside the namespaces of %s", t.Name(), name)
		}
		// Daemons must not inherit it.
		unix.CloseOnExec(3)
		report := os.NewFile(3, "report")
		if report == nil {
			t.Fatal("bed: descriptor 3, the report to the parent, is missing")
		}
		// After the test's own cleanups, which may still fail it: they were
		// registered later and so run earlier.
		t.Cleanup(func() { fmt.Fprintln(report, outcome(t)) })
		f(t, &NS{opts: opts, report: report})
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network, mount and process namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip(8) to bring interfaces up: apt-get install iproute2")
	}
	runChild(t, opts, result)
}

func outcome(t *testing.T) string {
	switch {
	case t.Failed():
		return "fail"
	case t.Skipped():
		return "skip"
	}
	return "pass"
}

// Inside tells whether this process is a child of InNamespace or Collect. A test
// that collects from several namespaces compares only outside of them.
func Inside() bool { return os.Getenv(envTest) != "" }

// Collect is InNamespace for a test that needs what f found out: it hands f's
// result, as JSON, back to the parent. In the child it returns the zero value,
// and so it does where f failed or skipped.
func Collect[T any](t *testing.T, opts Options, f func(t *testing.T, ns *NS) T) T {
	t.Helper()
	var result T
	var encoded []byte
	inNamespace(t, opts, func(t *testing.T, ns *NS) {
		value, err := json.Marshal(f(t, ns))
		if err != nil {
			t.Fatalf("bed: encode the result: %v", err)
		}
		fmt.Fprintf(ns.report, "%s%s\n", resultPrefix, value)
	}, &encoded)
	if Inside() || t.Failed() {
		return result
	}
	if err := json.Unmarshal(encoded, &result); err != nil {
		t.Fatalf("bed: decode the child's result: %v", err)
	}
	return result
}

// resultPrefix marks the line of a child's report that holds Collect's result.
const resultPrefix = "result "

// runChild runs the calling test again in a child with namespaces of its own
// and gives t the child's outcome.
func runChild(t *testing.T, opts Options, result *[]byte) {
	t.Helper()
	ctx := context.Background()
	args := childArgs(t)
	if deadline, ok := t.Deadline(); ok {
		// The child must have the time to say where it hangs.
		early := deadline.Add(-5 * time.Second)
		args = append(args, fmt.Sprintf("-test.timeout=%s", max(time.Until(early), time.Second)))
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-2*time.Second))
		defer cancel()
	}
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reportRead.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), envTest+"="+t.Name())
	if RaceEnabled {
		// Else every child sleeps for a second when it ends.
		cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	}
	if opts.Remote {
		cmd.Env = append(cmd.Env, envRemote+"=1")
	}
	if opts.NoIPv6 {
		cmd.Env = append(cmd.Env, envNoIPv6+"=1")
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.ExtraFiles = []*os.File{reportWrite}
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	// The kernel sends Pdeathsig when the thread that forked ends, not the
	// process: hold on to that thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	report := make(chan []byte, 1)
	go func() {
		// While the child runs: a pipe holds only so much.
		b, _ := io.ReadAll(reportRead)
		report <- b
	}()
	err = cmd.Run()
	reportWrite.Close()
	verdict := string(<-report)
	if rest, found := strings.CutPrefix(verdict, resultPrefix); found {
		value, after, _ := strings.Cut(rest, "\n")
		verdict = after
		if result != nil {
			*result = []byte(value)
		}
	}
	judge(t, strings.TrimSpace(verdict), err, quote(out.String()))
}

// judge turns the child's report, exit status and output into t's outcome.
func judge(t *testing.T, report string, err error, output string) {
	t.Helper()
	switch {
	case report == "pass" && err == nil:
		t.Logf("in its namespaces:\n%s", output)
	case report == "skip" && err == nil:
		t.Skipf("skipped in its namespaces:\n%s", output)
	case report == "":
		t.Fatalf("the test did not end in its namespaces (%v):\n%s", err, output)
	default:
		t.Fatalf("failed in its namespaces (%v):\n%s", err, output)
	}
}

// childArgs returns the command line of the child: this test only, verbose, and
// the flags of the package under test as they are here.
func childArgs(t *testing.T) []string {
	parts := strings.Split(t.Name(), "/")
	for i, part := range parts {
		parts[i] = "^" + escapePattern(part) + "$"
	}
	args := []string{"-test.run=" + strings.Join(parts, "/"), "-test.v"}
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	if testing.Short() {
		args = append(args, "-test.short")
	}
	return args
}

// escapePattern quotes the letters that mean something in -test.run.
func escapePattern(name string) string {
	var b strings.Builder
	for _, r := range name {
		if strings.ContainsRune(`\.+*?()|[]{}^$`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// quote marks each line of a child's output, so that the tools that read test
// output do not take the child's result lines for the parent's.
func quote(output string) string {
	var b strings.Builder
	lines := bufio.NewScanner(strings.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		b.WriteString("| ")
		b.WriteString(lines.Text())
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// remoteSteps are the commands that make the remote host. Duplicate address
// detection is off: it would keep the addresses unusable for a second.
func remoteSteps() [][]string {
	steps := [][]string{
		{"ip", "netns", "add", peerNamespace},
		{"ip", "link", "add", "name", HostInterface, "type", "veth", "peer", "name", PeerInterface, "netns", peerNamespace},
	}
	for _, end := range []struct{ netns, device, v4, v6, linkLocal string }{
		{"", HostInterface, HostIPv4, HostIPv6, HostLinkLocal},
		{peerNamespace, PeerInterface, PeerIPv4, PeerIPv6, PeerLinkLocal},
	} {
		ip := []string{"ip"}
		if end.netns != "" {
			ip = append(ip, "-n", end.netns)
		}
		step := func(args ...string) {
			steps = append(steps, append(append([]string{}, ip...), args...))
		}
		step("link", "set", "lo", "up")
		step("addr", "add", end.v4+"/24", "dev", end.device)
		if os.Getenv(envNoIPv6) == "" {
			step("link", "set", end.device, "addrgenmode", "none")
			step("addr", "add", end.v6+"/64", "dev", end.device, "nodad")
			step("addr", "add", end.linkLocal+"/64", "dev", end.device, "nodad")
		}
		step("link", "set", end.device, "up")
		if os.Getenv(envNoIPv6) == "" {
			// What the kernel does by itself where it makes the addresses.
			step("-6", "route", "replace", "multicast", "ff00::/8", "dev", end.device, "table", "local", "metric", "256")
		}
	}
	return steps
}

// Remote runs f on the remote host: on a thread of its own whose network is
// that of the second namespace. Sockets that f makes itself by system calls, and
// processes that it starts, belong there; goroutines that f starts do not.
// Needs Options.Remote.
func (ns *NS) Remote(t *testing.T, f func()) {
	t.Helper()
	if err := ns.remote(f); err != nil {
		t.Fatalf("bed: enter the remote host: %v", err)
	}
}

func (ns *NS) remote(f func()) error {
	if !ns.opts.Remote {
		return fmt.Errorf("the test did not ask for one: set Options.Remote")
	}
	peer, err := os.Open("/run/netns/" + peerNamespace)
	if err != nil {
		return err
	}
	defer peer.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and nobody
		// else gets one that lives in the other namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(peer.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		// A test that fails inside f leaves by runtime.Goexit.
		defer func() { done <- nil }()
		f()
	}()
	return <-done
}

// RemoteCommand runs a command on the remote host and returns its standard
// output and standard error together. Needs Options.Remote.
func (ns *NS) RemoteCommand(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	var out []byte
	var err error
	ns.Remote(t, func() { out, err = exec.Command(name, args...).CombinedOutput() })
	return string(out), err
}

// Addr parses one of the address constants.
func Addr(s string) netip.Addr { return netip.MustParseAddr(s) }
