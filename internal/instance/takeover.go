package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// How long a takeover waits. All but the last pass before anything is stopped.
const (
	answerPatience = 3 * time.Second // for one answer of the portmapper
	askPatience    = 5 * time.Second // for all ways to ask it the same
	wakePatience   = 10 * time.Second
	wakePause      = 20 * time.Millisecond
)

// ErrNoPredecessor says that nobody serves: there is nothing to take over.
var ErrNoPredecessor = errors.New("no portmapper is running")

// A Predecessor is the running portmapper whose place another one is to take. These are the steps, each of which may fail:
//
//	FindPredecessor → Registrations → ReleaseUnits → Registrations → CopySockets, CopyConnections → Stop → … → PutBack, if need be
//
// Until ReleaseUnits nothing is changed, and until Stop it serves.
type Predecessor struct {
	// Holder tells who it is.
	Holder
	endpoints []Endpoint
	lockPath  string
	lockFile  os.FileInfo // at lockPath; nil if there is none
	handle    *sys.ProcessHandle
	asks      []question
	service   string   // the unit that is to be stopped; "" if the process is
	sockets   []string // units of systemd's that hold sockets for it
	released  bool     // the units in sockets are stopped
	ordered   bool     // Stop was called
}

// FindPredecessor finds the portmapper that holds the lock at lockPath and the endpoints, and verifies it: one process alone
// has them, only root can have made it a portmapper, it isn't in a container or another network namespace, may be signalled,
// and answers. One that systemd starts on demand is woken for that. Nothing is changed. Users are the uids besides root that
// a portmapper may have.
//
// The error is [ErrNoPredecessor] if nobody serves; a [*PortHeldError] if others than a portmapper are in the way; any other
// says why the portmapper can't be taken over from.
func FindPredecessor(ctx context.Context, lockPath string, users []uint32, endpoints ...Endpoint) (*Predecessor, error) {
	h, err := search{lockPath, endpoints, users}.find(ctx)
	if err != nil {
		return nil, err
	}
	p := &Predecessor{Holder: h, endpoints: endpoints, lockPath: lockPath, asks: questions(h)}
	if p.lockFile, err = os.Lstat(lockPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("instance lock: %w", err)
	}
	if p.handle, err = sys.OpenProcess(h.Process.PID); err != nil {
		return nil, fmt.Errorf("%s: %w; try again", h.who(), err)
	}
	if err := p.verify(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close gives the handle of the process back; the process isn't touched.
func (p *Predecessor) Close() { p.handle.Close() }

// Name says who it is in a few words, as in "rpcbind (pid 4568, unit rpcbind.service)".
func (p *Predecessor) Name() string {
	name := fmt.Sprintf("%s (pid %d", printable(p.Process.Command), p.Process.PID)
	if p.service != "" {
		name += ", unit " + printable(p.service)
	}
	return name + ")"
}

// verify makes sure that the process is still the one that was found, that we may stop it, and that it answers.
func (p *Predecessor) verify(ctx context.Context) error {
	if p.handle.StartTicks != p.Process.StartTicks {
		return fmt.Errorf("process %d has ended meanwhile; try again", p.Process.PID)
	}
	if err := p.handle.Signal(0); err != nil {
		return fmt.Errorf("%s can't be stopped: %w; become root", p.Name(), err)
	}
	switch same, err := sys.SameNetwork(p.Process.PID); {
	case err != nil:
		return fmt.Errorf("whether %s serves this network can't be told: %w; become root", p.Name(), err)
	case !same:
		return fmt.Errorf("%s is in another network namespace: take over there, or stop it", p.Name())
	}
	if err := p.findUnits(ctx); err != nil {
		return err
	}
	if err := answers(ctx, p.asks); err != nil {
		return fmt.Errorf("%s doesn't answer, so its registrations can't be taken over: %w; if it hangs, kill -9 %d and start without a takeover",
			p.Name(), err, p.Process.PID)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
