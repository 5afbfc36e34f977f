package bed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// takeoverPatience bounds every wait of these tests for something that must come.
const takeoverPatience = 30 * time.Second

// stateDir makes /run/rpcbind what it is on Debian: rpcbind gives up root before it writes there.
func stateDir(t *testing.T) {
	t.Helper()
	out, err := exec.Command("chown", "_rpc", "/run/rpcbind").CombinedOutput()
	if err != nil {
		t.Logf("rpcbind runs as root here: %s", bytes.TrimSpace(out))
	}
}

// listed returns every registration but the portmapper's own, with owners, in order.
func listed(t *testing.T) []rpcbind.RPCB {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), takeoverPatience)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "unix", rpcbind.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(b rpcbind.RPCB) bool { return b.Program == rpcbind.Program })
}

// registerSome lets several users register, on several transports.
func registerSome(t *testing.T, ns *bed.NS) []rpcbind.RPCB {
	t.Helper()
	for _, r := range []struct {
		uid   uint32
		netid string
		addr  string
		prog  uint32
	}{
		{0, "tcp", "0.0.0.0.8.1", 100003},
		{0, "udp6", "::.8.1", 100003},
		{1234, "udp", "0.0.0.0.200.1", 100024},
		{1234, "tcp6", "::1.200.2", 100024},
		{65534, "local", "/run/service.sock", 400000},
		{65534, "ticots", "somewhere", 400000},
	} {
		set := setAddr(4, r.prog, 3, r.netid, r.addr)
		if got := must(t, ns, bed.Unix, bed.From{UID: r.uid}, set); !bytes.Equal(got, boolean(true)) {
			t.Fatalf("SET of %+v was refused", r)
		}
	}
	regs := listed(t)
	if len(regs) != 6 {
		t.Fatalf("registered are %+v", regs)
	}
	return regs
}

// sameListed fails the test if the registrations aren't the same, owners and order included.
func sameListed(t *testing.T, what string, want []rpcbind.RPCB) {
	t.Helper()
	if got := listed(t); !slices.Equal(got, want) {
		t.Errorf("%s:\n%+v\nwant\n%+v", what, got, want)
	}
}

// takeOver runs gportmap --takeover and waits until it has said that it took over.
func takeOver(t *testing.T, ns *bed.NS, args ...string) *bed.Daemon {
	t.Helper()
	d := ns.StartBare(t, bed.Gportmap, append([]string{"--takeover"}, args...)...)
	waitUntil(t, "gportmap serves", func() bool {
		select {
		case <-d.Exited():
			t.Fatalf("the takeover failed: %v\n%s", d.Wait(), d.Log())
		default:
		}
		return strings.Contains(d.Log(), "started: ")
	})
	return d
}

// waitUntil polls until the condition holds.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(takeoverPatience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", takeoverPatience, what)
		}
	}
}

// startOld starts the portmapper to be taken over from, which is to end.
func startOld(t *testing.T, ns *bed.NS, s bed.Subject, args ...string) *bed.Daemon {
	t.Helper()
	d := ns.StartBare(t, s, args...)
	awaitNull(t)
	return d
}

// awaitNull waits until a portmapper answers.
func awaitNull(t *testing.T) {
	t.Helper()
	waitUntil(t, "a portmapper answers", func() bool { return callNull("unix", rpcbind.SocketPath) == nil })
}

// callNull calls once, for a client that has nothing open yet.
func callNull(network, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Null(ctx, rpcbind.PMAPVers)
}

// callers call all the time; a call that failed is repeated once, after a while.
type callers struct {
	end     chan struct{}
	over    sync.WaitGroup
	calls   atomic.Int64
	repeats atomic.Int64
	slowest atomic.Int64 // nanoseconds
	failed  chan error
}

func startCallers(while time.Duration) *callers {
	c := &callers{end: make(chan struct{}), failed: make(chan error, 100)}
	for _, to := range [][2]string{
		{"udp", "127.0.0.1"}, {"tcp", "127.0.0.1"}, {"udp", "::1"}, {"tcp", "::1"}, {"unix", rpcbind.SocketPath},
	} {
		c.over.Go(func() {
			for {
				select {
				case <-c.end:
					return
				default:
				}
				begun := time.Now()
				err := callNull(to[0], to[1])
				if err != nil {
					c.repeats.Add(1)
					time.Sleep(while)
					err = callNull(to[0], to[1])
				}
				c.calls.Add(1)
				for took := int64(time.Since(begun)); ; {
					if was := c.slowest.Load(); took <= was || c.slowest.CompareAndSwap(was, took) {
						break
					}
				}
				if err != nil {
					select {
					case c.failed <- fmt.Errorf("%s %s: failed twice: %w", to[0], to[1], err):
					default:
					}
				}
			}
		})
	}
	return c
}

// check ends the callers and fails the test if one needed more than one repetition.
func (c *callers) check(t *testing.T) {
	t.Helper()
	close(c.end)
	c.over.Wait()
	close(c.failed)
	for err := range c.failed {
		t.Error(err)
	}
	t.Logf("%d calls, %d of them repeated once, the slowest %v", c.calls.Load(), c.repeats.Load(), time.Duration(c.slowest.Load()))
}

func logLine(d *bed.Daemon, text string) string {
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// TestTakeover takes over from rpcbind and from a gportmap that runs, under calls, and goes back to rpcbind -w. Every
// registration keeps its owner and its place.
func TestTakeover(t *testing.T) {
	bed.NeedRpcbind(t)
	for old, while := range map[bed.Subject]time.Duration{
		bed.Rpcbind: 0,
		// It takes connections for up to a second after SIGTERM, as long as new ones come, and closes those that haven't
		// sent anything yet.
		bed.Gportmap: 1200 * time.Millisecond,
	} {
		t.Run(old.String(), func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				from := startOld(t, ns, old)
				regs := registerSome(t, ns)
				calls := startCallers(while)
				waitUntil(t, "calls are made", func() bool { return calls.calls.Load() > 100 })
				d := takeOver(t, ns)
				before := calls.calls.Load()
				waitUntil(t, "calls are made after the takeover", func() bool { return calls.calls.Load() > before+100 })
				calls.check(t)
				if err := from.Wait(); err != nil {
					t.Logf("%v: %v", old, err) // rpcbind's exit code is 2
				}
				t.Log(logLine(d, "taken over from "+old.String()))
				if logLine(d, fmt.Sprintf("taken over from %v (pid %d): 6 registrations", old, from.PID())) == "" {
					t.Errorf("it doesn't say from whom:\n%s", d.Log())
				}
				if logLine(d, "none was refused") == "" {
					t.Errorf("the sockets were not inherited:\n%s", d.Log())
				}
				sameListed(t, "after the takeover", regs)
				if err := d.Stop(); err != nil {
					t.Errorf("gportmap's end: %v", err)
				}
				if left, err := os.ReadDir("/run/lock/subsys"); err == nil && len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				back := ns.Start(t, bed.Rpcbind)
				sameListed(t, "after rpcbind -w took it back", regs)
				if err := back.Stop(); err != nil {
					t.Logf("rpcbind: %v", err)
				}
			})
		})
	}
}

// TestTakeoverLosesNothing registers at full speed while one portmapper follows another: what was answered TRUE is there
// afterwards, by whomever it was answered.
func TestTakeoverLosesNothing(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		end, acknowledged := make(chan struct{}), make(chan []uint32)
		var count atomic.Int64
		go func() {
			var done []uint32
			for program := uint32(500000); ; program++ {
				select {
				case <-end:
					acknowledged <- done
					return
				default:
				}
				if set(program) {
					done = append(done, program)
					count.Add(1)
				}
			}
		}()
		waitUntil(t, "registrations", func() bool { return count.Load() > 50 })
		for range 3 {
			takeOver(t, ns)
			before := count.Load()
			waitUntil(t, "registrations after the takeover", func() bool { return count.Load() > before+50 })
		}
		close(end)
		there := make(map[uint32]bool)
		done := <-acknowledged
		for _, b := range listed(t) {
			there[b.Program] = true
		}
		for _, program := range done {
			if !there[program] {
				t.Errorf("program %d is lost", program)
			}
		}
		t.Logf("%d registrations", len(done))
	})
}

// set registers a program and tells whether that was answered TRUE.
func set(program uint32) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "unix", rpcbind.SocketPath)
	if err != nil {
		return false
	}
	defer c.Close()
	ok, err := c.Set(ctx, rpcbind.RPCB{Program: program, Version: 1, Netid: rpcbind.TCP, Addr: "0.0.0.0.8.1"})
	return ok && err == nil
}

// TestTakeoverSockets checks that what is inherited is served as what is bound is: on all transports, as often as there
// are takeovers, with the path removed at the end.
func TestTakeoverSockets(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		regs := registerSome(t, ns)
		var d *bed.Daemon
		for range 3 {
			d = takeOver(t, ns)
			for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6, bed.Unix, bed.Abstract} {
				if _, err := ns.Call(t, tr, bed.From{}, bed.NullCall(7, rpcbind.Program, 4)); err != nil {
					t.Errorf("%v: %v", tr, err)
				}
			}
			for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6} {
				if _, err := ns.Call(t, tr, bed.From{Remote: true}, bed.NullCall(7, rpcbind.Program, 4)); err != nil {
					t.Errorf("%v from the remote host: %v", tr, err)
				}
			}
		}
		sameListed(t, "after three takeovers", regs)
		if err := d.Stop(); err != nil {
			t.Errorf("gportmap's end: %v", err)
		}
		control(t, "status") // as root it removes what a daemon without privileges can't
		if _, err := os.Lstat(rpcbind.SocketPath); err == nil {
			t.Errorf("%s is left behind", rpcbind.SocketPath)
		}
	})
}

// TestTakeoverRefused: what isn't a portmapper, or doesn't answer, is left alone, and named.
func TestTakeoverRefused(t *testing.T) {
	bed.NeedRpcbind(t)
	t.Run("foreign", func(t *testing.T) {
		bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
			s, err := net.ListenPacket("udp4", ":111")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			d := ns.StartBare(t, bed.Gportmap, "--takeover")
			var exit *exec.ExitError
			if err := d.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 69 {
				t.Errorf("it ended with %v", err)
			}
			comm, _ := os.ReadFile("/proc/self/comm")
			for _, want := range []string{"udp 0.0.0.0:111 is held by " + strings.TrimSpace(string(comm)), "(pid 1,", "nothing was changed"} {
				if !strings.Contains(d.Log(), want) {
					t.Errorf("it doesn't say %q:\n%s", want, d.Log())
				}
			}
		})
	})
	t.Run("stopped", func(t *testing.T) {
		bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
			stateDir(t)
			from := startOld(t, ns, bed.Rpcbind)
			regs := registerSome(t, ns)
			from.Signal(syscall.SIGSTOP)
			d := ns.StartBare(t, bed.Gportmap, "--takeover")
			if err := d.Wait(); err == nil {
				t.Error("it succeeded")
			}
			if !strings.Contains(d.Log(), "rpcbind (pid ") || !strings.Contains(d.Log(), "doesn't answer") || !strings.Contains(d.Log(), "nothing was changed") {
				t.Errorf("it says:\n%s", d.Log())
			}
			from.Signal(syscall.SIGCONT)
			awaitNull(t)
			sameListed(t, "after the takeover that failed", regs)
		})
	})
	t.Run("nobody", func(t *testing.T) {
		bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
			d := takeOver(t, ns)
			if logLine(d, "there is nothing to take over") == "" {
				t.Errorf("it says:\n%s", d.Log())
			}
		})
	})
}

// TestTakeoverNotEnding: a portmapper that doesn't end is told of after ten seconds, and goes on.
func TestTakeoverNotEnding(t *testing.T) {
	bed.NeedRpcbind(t)
	if testing.Short() {
		t.Skip("short: waits for a limit of ten seconds")
	}
	t.Parallel()
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		path, err := bed.Rpcbind.Path()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("env", "--block-signal=TERM", path, "-f", "-w")
		if err := cmd.Start(); err != nil {
			t.Skipf("needs env of coreutils: %v", err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		awaitNull(t)
		regs := registerSome(t, ns)
		d := ns.StartBare(t, bed.Gportmap, "--takeover")
		if err := d.Wait(); err == nil {
			t.Error("it succeeded")
		}
		if !strings.Contains(d.Log(), "has not ended within 10s of SIGTERM") || !strings.Contains(d.Log(), "is left as it is") {
			t.Errorf("it says:\n%s", d.Log())
		}
		sameListed(t, "after the takeover that failed", regs)
	})
}

// TestTakeoverPutBack lets a takeover fail after rpcbind has ended: what gportmap needs is taken by another process in just
// that moment, for rpcbind is held up in its end by a FIFO in place of its state file. So that file isn't written either,
// and gportmap has to write what rpcbind needs to come back.
func TestTakeoverPutBack(t *testing.T) {
	bed.NeedRpcbind(t)
	for _, args := range []string{"-f -w", "-f", ""} {
		t.Run("rpcbind "+args, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				path, err := bed.Rpcbind.Path()
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(path, strings.Fields(args)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				go cmd.Wait()
				awaitNull(t)
				regs := registerSome(t, ns)
				addNeeded(t)
				release := holdUp(t)
				d := ns.StartBare(t, bed.Gportmap, "--takeover", "-h", needed)
				release()
				if err := d.Wait(); err == nil {
					t.Error("it succeeded")
				}
				if !strings.Contains(d.Log(), "listen on udp 10.1.1.1:111") || !strings.Contains(d.Log(), "was put back with all registrations\n") {
					t.Errorf("it says:\n%s", d.Log())
				}
				t.Log(logLine(d, "was put back"))
				sameListed(t, "after rpcbind was put back", regs)
				comm, err := exec.Command("pidof", "rpcbind").Output()
				if err != nil || len(strings.Fields(string(comm))) != 1 {
					t.Errorf("pidof rpcbind: %q, %v", comm, err)
				}
			})
		})
	}
}

// TestTakeoverCommand runs the command as an administrator would.
func TestTakeoverCommand(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		from := startOld(t, ns, bed.Rpcbind)
		regs := registerSome(t, ns)
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := exec.Command(path, "takeover", "-l")
		cmd.Stderr = &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		t.Log(out.String())
		if !strings.Contains(out.String(), fmt.Sprintf("taken over from rpcbind (pid %d): 6 registrations; ", from.PID())) {
			t.Errorf("it says %q", out.String())
		}
		sameListed(t, "after the command", regs)
		pid, err := os.ReadFile("/run/gportmap.pid")
		if err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline"))
		if want := path + "\x00--takeover\x00-l\x00"; err != nil || string(line) != want {
			t.Errorf("the daemon's command line is %q, %v", line, err)
		}
	})
}
