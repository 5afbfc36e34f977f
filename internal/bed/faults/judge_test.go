package faults

import (
	"context"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// judgeEnd judges how the program ended, if it did.
func (tr *trial) judgeEnd() {
	out, _, hung := strings.Cut(tr.daemon.output(), "SIGQUIT: quit")
	if hung {
		return // which was told
	}
	for _, crash := range []string{"panic:", "fatal error:", "goroutine ", "runtime error", "SIGSEGV"} {
		if strings.Contains(out, crash) {
			tr.problem("it crashed")
			return
		}
	}
	if !tr.daemon.ended() {
		return
	}
	state := tr.daemon.cmd.ProcessState
	status := state.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && !(tr.reached && tr.fault.signal == status.Signal()):
		tr.problem("it ended by %v", status.Signal())
	case status.Signaled() || tr.mayEnd():
	case tr.command && tr.judge != nil && tr.judge(tr, state.ExitCode()) != "":
		tr.problem("it %s (exit code %d)", tr.judge(tr, state.ExitCode()), state.ExitCode())
	case state.ExitCode() != 0 && strings.TrimSpace(out) == "":
		tr.problem("it ended with %d and doesn't say why", state.ExitCode())
	case state.ExitCode() == 0 && tr.endsBy() && !tr.ending:
		tr.problem("it ended with 0, and nobody had told it to end")
	}
}

// judgeService judges who serves now, and what.
func (tr *trial) judgeService() {
	// One that has just met an error may be about to end.
	for until := time.Now().Add(promised); len(tr.portmappers()) > 0 && !answers("unix", rpcbind.SocketPath) && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	who := tr.portmappers()
	switch {
	case len(who) > 1:
		tr.problem("%d portmappers run: %v", len(who), who)
	case len(who) == 1:
		tr.judgeList()
	case tr.takesOver() && !tr.mayBeGone():
		tr.problem("no portmapper runs any more")
	}
}

func (tr *trial) takesOver() bool { return tr.from != "" && !tr.command }

// mayBeGone tells whether a takeover may leave no portmapper: it was killed, or had served and was told to end.
func (tr *trial) mayBeGone() bool {
	out := tr.daemon.output()
	return tr.mayEnd() && (tr.fault.signal == syscall.SIGKILL || strings.Contains(out, "started: ") || strings.Contains(out, "taken over from"))
}

// judgeList asks the portmapper that runs on every transport, and for its registrations.
func (tr *trial) judgeList() {
	for _, to := range [][2]string{{"udp", "127.0.0.1"}, {"tcp", "127.0.0.1"}, {"udp", "::1"}, {"tcp", "::1"}} {
		if !answers(to[0], to[1]) {
			tr.problem("it runs and doesn't answer over %v", to)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "unix", rpcbind.SocketPath)
	if err != nil {
		tr.problem("it runs, and: %v", err)
		return
	}
	defer c.Close()
	list, err := c.Dump(ctx)
	if err != nil {
		tr.problem("it runs, and: %v", err)
		return
	}
	tr.compare("the portmapper's list", list)
}

// compare looks for what is missing in a list, or shouldn't be there.
func (tr *trial) compare(what string, list []rpcbind.RPCB) {
	there := make(map[string]bool)
	for _, b := range list {
		if b.Program != rpcbind.Program {
			there[key(b)] = true
		}
	}
	for k := range tr.must {
		if !there[k] {
			tr.problem("%s lacks %s", what, k)
		}
	}
	for k := range there {
		if !tr.must[k] && !tr.may[k] {
			tr.problem("%s has %s", what, k)
		}
	}
}

// next kills what runs and starts gportmap as if nothing had happened: everything acknowledged has to be there, and when it
// has ended nothing may be there that isn't without a fault.
func (tr *trial) next() {
	args := []string{"-f"}
	if slices.Contains(tr.portmappers(), "rpcbind") {
		args = append(args, "--takeover") // it keeps nothing when it is killed
	} else {
		tr.clean()
	}
	p := tr.launch((*exec.Cmd).Start, tr.program(), args...)
	is := func(what string, so func() bool) bool {
		for until := time.Now().Add(2 * patience); !so() && time.Now().Before(until) && !p.ended(); {
			time.Sleep(time.Millisecond)
		}
		if !so() {
			tr.problem("the next start: it doesn't %s:\n%s\nit is in\n%s", what, indent(p.output()), stacks(p))
		}
		return so()
	}
	if !is("serve", func() bool { return strings.Contains(p.output(), "started: ") }) {
		return
	}
	before := tr.failed
	tr.judgeList()
	if tr.failed && !before {
		tr.t.Logf("the next start said:\n%s", indent(p.output()))
	}
	if out, err := exec.Command(tr.program(), "status").CombinedOutput(); err != nil {
		tr.problem("status after the next start: %v\n%s", err, indent(string(out)))
	}
	p.signal(syscall.SIGTERM)
	if !is("end", p.ended) {
		return
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		tr.problem("the next start ended with %d:\n%s", code, indent(p.output()))
	}
	_ = filepath.WalkDir("/run", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != configFile && path != notifySocket && !strings.HasPrefix(path, outputs) {
			tr.left = append(tr.left, path)
		}
		return nil
	})
}
