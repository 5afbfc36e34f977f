package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// settle ends a takeover when everything that was ours is given up. If we never served, the other portmapper is put back,
// and the error, which otherwise is returned as it is, tells how that went.
func (t *takeover) settle(err error) error {
	if t == nil {
		return err
	}
	defer t.from.Close()
	defer t.release()
	t.closeCopies()
	t.closeConnections()
	if t.serving {
		return err
	}
	if err == nil {
		err = WithExitCode(ExitSystem, errors.New("takeover: told to end before everything was served"))
	}
	return WithExitCode(ExitCode(err), fmt.Errorf("%w; %s", err, t.putBack()))
}

func (t *takeover) closeCopies() {
	for _, s := range t.copies {
		s.Close()
	}
}

func (t *takeover) closeConnections() {
	for _, conn := range t.connections {
		conn.Close()
	}
	t.connections = nil
}

// putBack starts the other portmapper again, with every registration, and says how that went.
func (t *takeover) putBack() string {
	name := t.from.Name()
	regs := t.dump
	ended := t.from.Ended()
	if ended && t.from.Answered(context.Background()) {
		return "another portmapper serves by now, which was started at the same time; this one changed nothing more"
	}
	if ended {
		if written, ok := t.written(); ok {
			regs = written
		} else if !t.journaled {
			t.writeState()
		}
	}
	// Not to be interrupted: a signal for us is no reason to leave the host without a portmapper.
	reowned, lost, err := t.from.PutBack(context.Background(), regs)
	switch {
	case err != nil && os.Geteuid() != 0:
		return fmt.Sprintf("%s can't be put back, because privileges are dropped: start it, every registration is in %s (%v)", name, t.config.stateDir(), err)
	case err != nil:
		return fmt.Sprintf("%s can't be put back: %v; start it, every registration is in %s", name, err, t.config.stateDir())
	case t.ordered.IsZero():
		return name + " serves as before"
	case !ended:
		return name + " is left as it is, and would still end by that signal; nothing else was changed"
	case len(lost) > 0:
		return fmt.Sprintf("%s was put back, but %s of %d are lost: start their services again", name, counted(len(lost)), len(regs))
	case len(reowned) > 0:
		return fmt.Sprintf("%s was put back with all registrations, of which %d belong to root now", name, len(reowned))
	}
	return name + " was put back with all registrations"
}

// writeState writes what the other portmapper had to its state files, for it to read when it starts again. What can't be
// written is registered again afterwards.
func (t *takeover) writeState() {
	if err := t.config.writeState(t.dump); err != nil {
		t.config.Log.Warn("takeover: the state can't be written", "err", err)
	}
}
