package bed_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// portmappers returns the names of the portmappers that run, zombies left out.
func portmappers(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("ps", "-eo", "stat=,comm=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0][0] != 'Z' && (f[1] == "rpcbind" || f[1] == "gportmap") {
			names = append(names, f[1])
		}
	}
	return names
}

// TestTakeoverInterrupted sends signals at any moment of a takeover, twice, as somebody does who is impatient: one portmapper
// serves afterwards, with every registration, unless the daemon had said that it serves, and was ended as one that does.
func TestTakeoverInterrupted(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		regs := registerSome(t, ns)
		rounds, before, between, after := 60, 0, 0, 0
		if testing.Short() {
			rounds = 10
		}
		// How long one takes depends on the machine.
		begun := time.Now()
		d := takeOver(t, ns)
		span := time.Since(begun)
		d.Stop()
		startOld(t, ns, bed.Rpcbind)
		for range rounds {
			d := ns.StartBare(t, bed.Gportmap, "--takeover")
			wait := time.Duration(rand.Int64N(int64(span)))
			time.Sleep(wait)
			sig := []os.Signal{syscall.SIGTERM, syscall.SIGINT}[rand.IntN(2)]
			d.Signal(sig)
			time.Sleep(time.Duration(rand.Int64N(int64(3 * time.Millisecond))))
			d.Signal(sig)
			err := d.Wait()
			what := fmt.Sprintf("%v after %v, it ended with %v and said:\n%s", sig, wait, err, d.Log())
			switch served := strings.Contains(d.Log(), "taken over from"); {
			case served:
				after++
				startOld(t, ns, bed.Rpcbind)
			case strings.Contains(d.Log(), "put back"):
				between++
			default:
				before++
			}
			awaitNull(t)
			if running := portmappers(t); !slices.Equal(running, []string{"rpcbind"}) {
				t.Fatalf("%q run; %s", running, what)
			}
			if got := listed(t); !slices.Equal(got, regs) {
				t.Fatalf("%+v are registered; %s", got, what)
			}
		}
		t.Logf("%d rounds within %v: signalled %d times before rpcbind's end, %d times between that and serving, %d times later", rounds, span, before, between, after)
	})
}

// TestTakeoverInterruptedAtTheEnd: the signal comes when rpcbind is ending, which it is held up in.
func TestTakeoverInterruptedAtTheEnd(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		regs := registerSome(t, ns)
		awaitEnd, goOn := holdEnd(t)
		d := ns.StartBare(t, bed.Gportmap, "--takeover")
		awaitEnd()
		d.Signal(syscall.SIGINT)
		time.Sleep(50 * time.Millisecond)
		d.Signal(syscall.SIGINT)
		goOn()
		if err := d.Wait(); err == nil {
			t.Error("it succeeded")
		}
		if logLine(d, "told to end before everything was served; rpcbind") == "" || logLine(d, "was put back with all registrations") == "" {
			t.Errorf("it says:\n%s", d.Log())
		}
		if running := portmappers(t); !slices.Equal(running, []string{"rpcbind"}) {
			t.Errorf("%q run", running)
		}
		sameListed(t, "after the interruption", regs)
	})
}

// TestTakeoverStarterKilled: the process that was started in the foreground is killed while the other one, in the background,
// takes over. That one serves, with every registration: the portmapper before it has ended.
func TestTakeoverStarterKilled(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		startOld(t, ns, bed.Rpcbind)
		regs := registerSome(t, ns)
		awaitEnd, goOn := holdEnd(t)
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		starter := exec.Command(path, "takeover")
		if err := starter.Start(); err != nil {
			t.Fatal(err)
		}
		awaitEnd()
		if err := starter.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = starter.Wait()
		goOn()
		// It answers before it tells the starter, and would give up right after that.
		awaitNull(t)
		time.Sleep(time.Second)
		awaitNull(t)
		if running := portmappers(t); !slices.Equal(running, []string{"gportmap"}) {
			t.Errorf("%q run", running)
		}
		sameListed(t, "after the starter was killed", regs)
	})
}
