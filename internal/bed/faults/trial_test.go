package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

const (
	stateDir     = "/run/rpcbind"
	configFile   = "/run/gportmap.toml"
	notifySocket = "/run/notify"
	outputs      = "/run/output." // and a number
)

// A trial is one walk through a scenario, with a fault at a point, and what came of it.
type trial struct {
	*scenario
	t        *testing.T
	at       point
	fault    fault
	sv       *supervisor
	daemon   *process // or the command
	launched []*process
	must     map[string]bool // registrations that have to be there
	may      map[string]bool // and those that may
	ending   bool            // the daemon was told to end, without the fault
	left     []string        // what is in /run at the end
	failed   bool
	walk     []point
	reached  bool
}

func (tr *trial) problem(format string, args ...any) {
	tr.t.Helper()
	tr.failed = true
	tr.t.Errorf("%s, %v at %v: %s\n%s", tr.name, tr.fault, tr.at, fmt.Sprintf(format, args...), indent(tr.daemon.output()))
}

// indent marks the lines of a program's output, those before it was told to show where it hangs.
func indent(s string) string {
	s, _, _ = strings.Cut(s, "SIGQUIT: quit")
	return "        " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n        ")
}

// try makes the trial.
func (tr *trial) try() {
	tr.reset()
	switch tr.from {
	case "rpcbind":
		path, err := bed.Rpcbind.Path()
		if err != nil {
			tr.t.Skipf("needs rpcbind: %v", err)
		}
		tr.serving(tr.launch((*exec.Cmd).Start, path, "-f", "-w"))
	case "gportmap":
		tr.serving(tr.launch((*exec.Cmd).Start, tr.program(), "-f"))
	}
	begin := func(cmd *exec.Cmd) (err error) {
		if tr.manager {
			cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notifySocket)
		}
		tr.sv, err = start(cmd, tr.act == nil, tr.at, tr.fault)
		return err
	}
	begun := time.Now()
	tr.daemon = tr.launch(begin, tr.program(), tr.args...)
	if tr.act == nil {
		tr.settle()
	} else {
		tr.serving(tr.daemon)
		tr.sv.arm()
		begun = time.Now()
		tr.act(tr)
	}
	if tr.act != nil {
		tr.await("the last system call", func() bool { return tr.daemon.ended() || tr.calm() })
	}
	if tr.mayEnd() && tr.endsBy() {
		tr.await("the end by the signal", tr.daemon.ended)
	}
	tr.told(begun, "the end")
	tr.walk, tr.reached = tr.sv.disarm()
	if tr.at.nth == 0 && !tr.command && !tr.ending && len(tr.portmappers()) != 1 {
		tr.t.Fatalf("%s: without a fault it ends:\n%s", tr.name, tr.daemon.output())
	}
	tr.judgeEnd()
	tr.judgeService()
	tr.next()
	tr.clean()
}

// program is the path of gportmap.
func (tr *trial) program() string {
	path, err := bed.Gportmap.Path()
	if err != nil {
		tr.t.Fatal(err)
	}
	return path
}

// mayEnd tells whether the fault is one that ends the program.
func (tr *trial) mayEnd() bool {
	_, hit := tr.sv.state()
	return hit && tr.fault.signal != 0 && tr.fault.signal != syscall.SIGHUP
}

// endsBy tells whether the launched process is the one that has to end by a signal: that of a daemon in the foreground.
func (tr *trial) endsBy() bool { return slices.Contains(tr.args, "-f") }

// calm tells whether nothing happens any more.
func (tr *trial) calm() bool { return tr.calmFor(50 * time.Millisecond) }

func (tr *trial) calmFor(d time.Duration) bool {
	last, _ := tr.sv.state()
	return time.Since(last) > d
}

// settle waits until a program that starts serves, or has ended.
func (tr *trial) settle() {
	tr.await("that it serves, or ends", func() bool {
		switch {
		case tr.daemon.ended():
			// One in the background goes on.
			return tr.command || tr.endsBy() || len(tr.portmappers()) < 2 && tr.calmFor(300*time.Millisecond)
		case tr.command || tr.mayEnd() || !answers("unix", rpcbind.SocketPath):
			return false
		case strings.Contains(tr.daemon.output(), "started: "):
			return true
		}
		// What says so may have failed.
		_, hit := tr.sv.state()
		return hit && tr.calmFor(time.Second) && len(tr.portmappers()) == 1
	})
}

// await waits until something is so, and tells if it doesn't become so.
func (tr *trial) await(what string, is func() bool) {
	limit := patience
	if tr.from != "" {
		limit *= 4 // some waits of a takeover and of stop are as long as patience
	}
	for until := time.Now().Add(limit); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			tr.problem("not within %v: %s; it is in\n%s", limit, what, stacks(tr.daemon))
			return
		}
	}
}

// stacks ends a program that hangs, and returns where its goroutines are in our own code.
func stacks(p *process) string {
	said := p.output()
	p.signal(syscall.SIGQUIT) // what a daemon does with the first is to end
	time.Sleep(100 * time.Millisecond)
	p.signal(syscall.SIGQUIT)
	time.Sleep(100 * time.Millisecond)
	var ours []string
	for line := range strings.Lines(strings.TrimPrefix(p.output(), said)) {
		if strings.HasPrefix(line, "goroutine ") || strings.HasPrefix(line, "github.com/gportmap/") {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "(0x")
			ours = append(ours, name)
		}
	}
	return indent(strings.Join(ours, "\n"))
}

// told tells of what took longer than it should.
func (tr *trial) told(begun time.Time, what string) {
	if d := time.Since(begun); d > promised {
		tr.t.Logf("slow: %s, %v at %v: %v until %s", tr.name, tr.fault, tr.at, d.Round(10*time.Millisecond), what)
	}
}

// serving waits until a program that has to serve does.
func (tr *trial) serving(p *process) {
	tr.t.Helper()
	serves := func() bool {
		return answers("unix", rpcbind.SocketPath) && (tr.from == "rpcbind" || strings.Contains(p.output(), "started: "))
	}
	for until := time.Now().Add(2 * patience); !serves(); time.Sleep(2 * time.Millisecond) {
		if p.ended() || time.Now().After(until) {
			tr.t.Fatalf("%s, %v at %v: %v doesn't serve:\n%s", tr.name, tr.fault, tr.at, p.cmd.Args, p.output())
		}
	}
}

func answers(network, address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, network, address)
	if err != nil {
		return false
	}
	defer c.Close()
	return c.Null(ctx, rpcbind.PMAPVers) == nil
}
