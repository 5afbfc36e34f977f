package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
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
	// Holder tells who it is. Without sockets, if it serves nothing of what was asked for and only holds the lock.
	Holder
	endpoints []Endpoint
	handle    *sys.ProcessHandle
	asks      []question
	service   string   // the unit that is to be stopped; "" if the process is
	sockets   []string // units of systemd's that hold sockets for it
	released  bool     // the units in sockets are stopped
	ordered   bool     // Stop was called
}

// FindPredecessor finds the portmapper that holds the lock at lockPath or any of the endpoints, and verifies it: one process
// alone has them, it has the name of a portmapper, isn't in a container, may be signalled, and answers. One that systemd
// starts on demand is woken for that. Nothing is changed.
//
// The error is [ErrNoPredecessor] if nobody serves; a [*PortHeldError] if others than a portmapper are in the way; any other
// says why the portmapper can't be taken over from.
func FindPredecessor(ctx context.Context, lockPath string, endpoints ...Endpoint) (*Predecessor, error) {
	h, err := findHolder(ctx, lockPath, endpoints)
	if err != nil {
		return nil, err
	}
	p := &Predecessor{Holder: h, endpoints: endpoints, asks: questions(h)}
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

// findHolder returns the one process that has everything that is taken.
func findHolder(ctx context.Context, lockPath string, endpoints []Endpoint) (Holder, error) {
	for until := time.Now().Add(wakePatience); ; {
		holders, err := Holders(endpoints...)
		if err != nil {
			return Holder{}, fmt.Errorf("who holds the sockets can't be told: %w", err)
		}
		// The port of closed connections can be bound.
		holders = slices.DeleteFunc(holders, func(h Holder) bool { return h.Unseen == Closed })
		if len(holders) != 1 || !holders[0].isSystemdAlone() || !holders[0].socketOfPortmapper() {
			return oneHolder(lockPath, holders)
		}
		// Whoever is asked first is started by systemd with what it has in its state files.
		if time.Now().After(until) {
			return Holder{}, fmt.Errorf("%s: the service that it starts on demand doesn't come up; see systemctl status %s",
				holders[0].String(), strings.Join(holders[0].SocketUnits, " "))
		}
		_ = answers(ctx, questions(holders[0]))
		if err := pause(ctx, wakePause); err != nil {
			return Holder{}, err
		}
	}
}

// oneHolder checks that all of holders is one portmapper, and the one that has the lock.
func oneHolder(lockPath string, holders []Holder) (Holder, error) {
	foreign := slices.DeleteFunc(slices.Clone(holders), func(h Holder) bool {
		// Who holds rpcbind's lock is a portmapper, whatever its name.
		return h.Unseen == Seen && h.Origin.Runtime == "" && (isPortmapper(h.Process) || holdsLock(h.Process.PID, lockPath))
	})
	if slices.ContainsFunc(foreign, func(h Holder) bool { return h.Unseen == Denied }) && os.Geteuid() != 0 {
		return Holder{}, fmt.Errorf("%w: %s, and take over from it", syscall.EPERM, foreign[0].String())
	}
	if len(foreign) > 0 {
		return Holder{}, fmt.Errorf("not a portmapper of this host: %w", &PortHeldError{Holders: foreign})
	}
	if len(holders) > 1 {
		return Holder{}, fmt.Errorf("several portmappers serve: %s; %s: stop all but one",
			holders[0].String(), holders[1].String())
	}
	err := probe(lockPath)
	var running *RunningError
	switch {
	case errors.As(err, &running):
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Holder{}, fmt.Errorf("instance lock: %w", err)
	case len(holders) == 0:
		return Holder{}, ErrNoPredecessor
	default:
		return holders[0], nil // portmap has no lock
	}
	switch {
	case len(holders) == 1 && (running.PID == 0 || running.PID == holders[0].Process.PID):
		return holders[0], nil
	case len(holders) == 1:
		return Holder{}, fmt.Errorf("instance lock: %w, but %s", running, holders[0].String())
	case running.PID == 0:
		return Holder{}, fmt.Errorf("instance lock: %w", running)
	}
	process, err := sys.LookupProcess(running.PID)
	if err != nil {
		return Holder{}, fmt.Errorf("instance lock: %w; try again", err)
	}
	if !isPortmapper(process) {
		return Holder{}, fmt.Errorf("instance lock: %w; it is no portmapper", running)
	}
	return Holder{Process: process, User: sys.UserName(process.UID), Origin: parseOrigin(process.Cgroups)}, nil
}

// socketOfPortmapper tells whether systemd has the sockets for a portmapper's units.
func (h Holder) socketOfPortmapper() bool {
	return slices.ContainsFunc(h.SocketUnits, func(unit string) bool {
		return isPortmapperName(strings.TrimSuffix(unit, filepath.Ext(unit)))
	})
}

func isPortmapperName(name string) bool {
	return slices.Contains([]string{"rpcbind", "portmap", "rpc.portmap", "gportmap"}, name)
}

// verify makes sure that the process is still the one that was found, that we may stop it, and that it answers.
func (p *Predecessor) verify(ctx context.Context) error {
	if p.handle.StartTicks != p.Process.StartTicks {
		return fmt.Errorf("process %d has ended meanwhile; try again", p.Process.PID)
	}
	if err := p.handle.Signal(0); err != nil {
		return fmt.Errorf("%s can't be stopped: %w; become root", p.Name(), err)
	}
	if err := p.findUnits(ctx); err != nil {
		return err
	}
	if err := answers(ctx, p.asks); err != nil {
		return fmt.Errorf("%s doesn't answer, so its registrations can't be taken over: %w; if it hangs, kill %d and start without a takeover",
			p.Name(), err, p.Process.PID)
	}
	return nil
}

// A question is a way to ask a portmapper.
type question struct{ network, address string }

// questions returns the ways to ask the portmapper that has these sockets, the best first: a local socket, TCP, UDP. Without
// any they are those of the system's.
func questions(h Holder) []question {
	var local, tcp, udp []question
	for _, s := range h.Sockets {
		if !s.Serving {
			continue
		}
		addr := s.Addr.Addr()
		host := addr.String()
		if addr.IsUnspecified() {
			host = "127.0.0.1"
			if addr.Is6() {
				host = "::1"
			}
		}
		switch at := fmt.Sprintf("%s:%d", host, s.Addr.Port()); {
		case s.Netid == "local" && s.Path[0] == '@':
			local = append(local, question{"unix", s.Path})
		case s.Netid == "local":
			local = slices.Insert(local, 0, question{"unix", s.Path})
		case strings.HasSuffix(s.Netid, "6"):
			at = fmt.Sprintf("[%s]:%d", host, s.Addr.Port())
			fallthrough
		default:
			if strings.HasPrefix(s.Netid, "tcp") {
				tcp = append(tcp, question{"tcp", at})
			} else {
				udp = append(udp, question{"udp", at})
			}
		}
	}
	if all := slices.Concat(local, tcp, udp); len(all) > 0 {
		return all
	}
	return []question{{"unix", rpcbind.SocketPath}, {"unix", rpcbind.SocketAbstract}, {"tcp", "127.0.0.1"}, {"udp", "127.0.0.1"}}
}

// ask opens a connection for one question and lets f use it, for as long as an answer may take.
func (q question) ask(ctx context.Context, f func(context.Context, *rpcbind.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, q.network, q.address)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

// answers asks one after another until a portmapper answers; the error is that of the first, the best.
func answers(ctx context.Context, asks []question) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var first error
	for _, q := range asks {
		err := q.ask(ctx, func(ctx context.Context, c *rpcbind.Client) error { return c.Null(ctx, rpcbind.PMAPVers) })
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
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
