package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// takeover is the change from another portmapper to this one: first everything is done that may fail without harm, then
// the other one is stopped, and from there on whatever fails puts it back. A nil takeover is a start like any other.
type takeover struct {
	config    Config
	endpoints []instance.Endpoint
	from      *instance.Predecessor
	dump      []rpcbind.RPCB      // what it answered last, its own entries included
	saved     os.FileInfo         // its state file just before that; nil if there was none
	copies    []*sys.CopiedSocket // of its sockets, not yet served
	// connections are those of its local sockets: of the kernel's, which is never made anew, it would miss what it says later.
	connections []*sys.Connection
	inherited   bool     // all of ours are its
	shared      bool     // its were kept until ours were bound beside them
	unit        string   // our unit's real name, if it takes the place
	ownSockets  []string // units of ours that were started
	// stateless: the state directory had been removed, as purging rpcbind's package does. Then one that is our unit is to be
	// taken over from as well: it can't keep any more what it is told.
	stateless bool
	ordered   time.Time // when it was told to end; zero if it wasn't
	restored  int       // registrations that were taken over
	journaled bool      // the state on disk is ours
	serving   bool      // there is no way back
	release   func()    // lets signals end us again; see holdSignals
}

// takeOver stops the portmapper that runs and keeps what is needed to take its place; nil if there is none, or if none is
// to be taken over from. What an error tells has changed nothing that isn't put back.
func takeOver(ctx context.Context, c Config) (*takeover, error) {
	if !c.Takeover {
		return nil, nil
	}
	t, err := findPredecessor(ctx, c)
	if errors.Is(err, instance.ErrNoPredecessor) {
		c.Log.Info("no portmapper is running: there is nothing to take over")
		return nil, nil
	}
	if err != nil {
		return nil, unchanged(err)
	}
	if err := t.replace(ctx); err != nil {
		return nil, t.settle(err)
	}
	return t, nil
}

// unchanged says that a takeover ended before it began.
func unchanged(err error) error {
	text := fmt.Errorf("takeover: %w; nothing was changed", err)
	var coded *codedError
	if errors.As(err, &coded) {
		return WithExitCode(coded.code, text)
	}
	return byCause(ExitUnavailable, text)
}

// findPredecessor finds the portmapper that runs, and makes sure that another one could start in its place.
func findPredecessor(ctx context.Context, c Config) (*takeover, error) {
	if ActivationPending() {
		return nil, WithExitCode(ExitUsage, errors.New("systemd handed sockets over, so nobody else has them; start without --takeover"))
	}
	if c.stateless() {
		return nil, WithExitCode(ExitUsage, errStatelessTakeover)
	}
	addrs, err := addresses(c, sys.IPv6Available())
	if err != nil {
		return nil, err
	}
	t := &takeover{config: c, endpoints: c.endpoints(addrs), release: func() {}}
	if t.from, err = instance.FindPredecessor(ctx, c.predecessorLock(), c.portmapperUIDs(), t.endpoints...); err != nil {
		return nil, err
	}
	if err = t.rehearse(); err == nil {
		err = t.read(ctx)
	}
	if err != nil {
		t.from.Close()
		return nil, err
	}
	return t, nil
}

// portmapperUIDs returns the users, besides root, that a portmapper of this host may have.
func (c Config) portmapperUIDs() []uint32 {
	uids := serviceUIDs()
	if user, err := c.privilegeless(); err == nil {
		uids = append(uids, user.UID)
	}
	return uids
}

// rehearse does what a start does as far as that is possible while another portmapper runs.
func (t *takeover) rehearse() error {
	c := t.config
	state, err := openState(c)
	if err != nil {
		return err
	}
	state.Close()
	if os.Geteuid() == 0 {
		if err := c.checkUser(); err != nil {
			return WithExitCode(ExitConfig, fmt.Errorf("drop privileges: %w", err))
		}
	}
	if c.AdminGroup != "" {
		if _, err := sys.LookupGroup(c.AdminGroup); err != nil {
			return WithExitCode(ExitConfig, fmt.Errorf("admin socket: %w", err))
		}
	}
	if _, err := access.ReadHostsAccess(os.ReadFile, access.HostsAllowPath, access.HostsDenyPath, access.HostsPath); err != nil {
		return WithExitCode(ExitConfig, err)
	}
	lock, err := acquire(c)
	var running *instance.RunningError
	if err != nil && !(errors.As(err, &running) && (running.PID == 0 || running.PID == t.from.Process.PID)) {
		return err
	}
	lock.Release()
	var failed []refused
	for _, e := range t.endpoints {
		// The kernel asks for privileges before it looks whether an address is in use.
		s, err := c.open(e)
		switch {
		case err == nil:
			s.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			failed = append(failed, refused{e, err})
		}
	}
	if failed != nil {
		return refusal(c, failed)
	}
	return nil
}

// read asks the other portmapper for its registrations, and says what is lost if it can't tell all.
func (t *takeover) read(ctx context.Context) (err error) {
	var lossy bool
	t.dump, lossy, err = t.from.Registrations(ctx)
	if lossy {
		t.config.Log.Warn("takeover: the other portmapper speaks version 2 alone, which tells no owners: each registration belongs to who has the socket at its port, else to root",
			"portmapper", t.from.Name())
	}
	return err
}

// replace ends the other portmapper, as late as possible, with the last that it answers at hand.
func (t *takeover) replace(ctx context.Context) error {
	c := t.config
	t.release = holdSignals()
	if err := t.from.ReleaseUnits(ctx); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	copies, err := t.from.CopySockets()
	if err != nil {
		c.Log.Warn("takeover: the sockets can't be inherited, so calls are refused until new ones are bound", "err", err)
	}
	t.copies = copies
	if t.saved, err = os.Stat(t.statePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("takeover: whether the state file is written can't be told: %w", err)
	}
	if err = t.read(ctx); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	// As late as possible, for what it accepts from here on ends with it.
	if t.connections, err = t.from.CopyConnections(mostConnections); err != nil {
		c.Log.Warn("takeover: connections end with the other portmapper", "err", err)
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	t.ordered = time.Now()
	if err := t.from.Stop(); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	c.Log.Debug("takeover: the other portmapper has ended", "after", time.Since(t.ordered))
	return interrupted(ctx)
}

// interrupted is the error of a takeover that a signal ended.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return WithExitCode(ExitSystem, errors.New("takeover: told to end before everything was served"))
}

// holdSignals keeps the signals that end a program from ending it at once, until the function that it returns is called: the
// first has ended the context, and a second one in the middle of a takeover would leave the host without a portmapper.
func holdSignals() (release func()) {
	held := make(chan os.Signal, 1)
	signal.Notify(held, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	return func() { signal.Stop(held) }
}
