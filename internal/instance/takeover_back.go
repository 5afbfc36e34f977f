package instance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// startPatience is how long a portmapper that is put back may take until it answers.
const startPatience = 15 * time.Second

// PutBack starts the portmapper again, as it was: its units, or its program with its arguments and none of our environment;
// rpcbind also with -w, to make it read its state files, which the caller has written. It returns when it answers. What it
// then lacks of regs, as one without state files does, is registered anew, but belongs to root: that is returned as
// reowned, and what it doesn't take as lost. The caller has given up the lock and every socket.
//
// If it didn't end, or wasn't told to, its sockets' units alone are started again.
func (p *Predecessor) PutBack(ctx context.Context, regs []rpcbind.RPCB) (reowned, lost []rpcbind.RPCB, err error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if !p.Ended() {
		if p.released {
			if _, err := systemctl(ctx, append([]string{"start", "--"}, p.sockets...)...); err != nil {
				return nil, nil, fmt.Errorf("it serves, but without %s: %w", strings.Join(p.sockets, " "), err)
			}
		}
		return nil, nil, nil
	}
	p.removeLock() // if it has ended only now
	if p.service != "" {
		_, err = systemctl(ctx, append([]string{"start", "--"}, p.Units()...)...)
		if err == nil {
			err = awaitAnswer(ctx, p.asks, nil)
		}
	} else {
		err = p.startProgram(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return p.complete(ctx, regs)
}

// Ended tells whether the process was stopped and is gone, be it that its parent hasn't taken note yet.
func (p *Predecessor) Ended() bool {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return p.ordered && p.handle.Wait(now) == nil
}

// Answered tells whether a portmapper answers in its place.
func (p *Predecessor) Answered(ctx context.Context) bool { return answers(ctx, p.asks) == nil }

// startProgram starts the program as it was started, and waits until it answers.
func (p *Predecessor) startProgram(ctx context.Context) error {
	if p.released {
		if _, err := systemctl(ctx, append([]string{"start", "--"}, p.sockets...)...); err != nil {
			return err
		}
	}
	path := strings.TrimSuffix(p.Process.Program, deletedMark)
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("start it again: %w", err)
	} else if !onlyOurs(info) {
		return fmt.Errorf("start it again: others than root can write to %s; start it as its user", printable(path))
	}
	args := restartArgs(path, p.Process.Args)
	ended, err := startDetached(path, args)
	if err != nil {
		return fmt.Errorf("start it again: %w", err)
	}
	if err := awaitAnswer(ctx, p.asks, ended); err != nil {
		return fmt.Errorf("`%s` was started again: %w", shellWords(args), err)
	}
	return nil
}

// restartArgs returns the arguments to start a portmapper with that ran with args: rpcbind is to read its state, and a
// gportmap that took over from another one has nobody to take over from now.
func restartArgs(path string, args []string) []string {
	if len(args) == 0 {
		args = []string{path}
	}
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--takeover" || a == "--takeover=true" })
	warm := slices.ContainsFunc(args[1:], func(a string) bool {
		return strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "-h") && strings.Contains(a, "w")
	})
	if filepath.Base(path) == "rpcbind" && !warm {
		args = slices.Insert(args, 1, "-w")
	}
	return args
}

// startDetached starts a daemon in a session of its own, with the standard streams closed and an environment that only
// says where programs are. What it returns is closed when the process that was started has ended without success: one
// that goes into the background ends with it.
func startDetached(path string, args []string) (failed <-chan error, err error) {
	cmd := &exec.Cmd{
		Path:        path,
		Args:        args,
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Dir:         "/",
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		if err := cmd.Wait(); err != nil {
			ended <- err
		}
	}()
	return ended, nil
}

// awaitAnswer returns when the portmapper answers.
func awaitAnswer(ctx context.Context, asks []question, failed <-chan error) error {
	for {
		err := answers(ctx, asks)
		if err == nil {
			return nil
		}
		select {
		case end := <-failed:
			return fmt.Errorf("it ended: %w", end)
		default:
		}
		if pause(ctx, wakePause) != nil {
			return fmt.Errorf("it doesn't answer: %w", err)
		}
	}
}

// complete registers what is missing.
func (p *Predecessor) complete(ctx context.Context, regs []rpcbind.RPCB) (reowned, lost []rpcbind.RPCB, err error) {
	has, _, err := registrations(ctx, p.asks)
	if err != nil {
		return nil, nil, err
	}
	there := make(map[rpcbind.RPCB]bool)
	for _, b := range has {
		there[withoutOwner(b)] = true
	}
	for _, b := range regs {
		if b.Program == rpcbind.Program || there[withoutOwner(b)] {
			continue
		}
		if register(ctx, p.asks, b) {
			reowned = append(reowned, b)
		} else {
			lost = append(lost, b)
		}
	}
	return reowned, lost, nil
}

func withoutOwner(b rpcbind.RPCB) rpcbind.RPCB {
	b.Netid, b.Owner = rpcbind.Netid(strings.ToLower(string(b.Netid))), ""
	return b
}

// register registers b by version 4, else 2.
func register(ctx context.Context, asks []question, b rpcbind.RPCB) bool {
	for _, q := range asks {
		done := false
		_ = q.ask(ctx, answerPatience, func(ctx context.Context, c *rpcbind.Client) (err error) {
			if done, err = c.Set(ctx, b); err == nil {
				return nil
			}
			prot, ok := b.Netid.Prot()
			at, valid := rpcbind.ParseUAddr(b.Addr)
			if !ok || !valid {
				return err
			}
			done, err = c.SetMapping(ctx, rpcbind.Mapping{Program: b.Program, Version: b.Version, Prot: prot, Port: uint32(at.Port())})
			return err
		})
		if done {
			return true
		}
	}
	return false
}
