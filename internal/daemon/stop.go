package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// How long a daemon may take to end before it is killed, and how long that may take.
const (
	endLimit  = 10 * time.Second
	killLimit = 5 * time.Second
)

// ErrNotRunning says that there is no gportmap to do something with.
var ErrNotRunning = errors.New("gportmap is not running")

// Stop ends the gportmap that is the instance of this configuration, and returns when it has ended and what it may have
// left is removed. It never touches another portmapper. The error is [ErrNotRunning] if there is nothing to stop; one with
// [ExitOK] says that it has ended and what couldn't be removed.
func Stop(ctx context.Context, c Config) error {
	c, err := c.complete()
	if err != nil {
		return err
	}
	h, err := c.gportmap()
	if err != nil {
		return err
	}
	defer h.Close()
	unsaved := c.unsaved(ctx)
	if err := h.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return byCause(ExitSystem, err)
	}
	if err := waitEnd(ctx, h, endLimit); err != nil {
		// It serves no more, or hangs: what it has promised is on disk already.
		if err := h.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return byCause(ExitSystem, err)
		}
		if err := waitEnd(ctx, h, killLimit); err != nil {
			return WithExitCode(ExitSystem, fmt.Errorf("%w; it was told to end and then killed: see whether it hangs in the kernel", err))
		}
	}
	if len(unsaved) > 0 && absent(c.statePath()) {
		if err := c.writeState(unsaved); err != nil {
			return WithExitCode(ExitSystem, fmt.Errorf("gportmap has ended; its state directory was removed, and its %s can't be written there: %w", counted(countOthers(unsaved)), err))
		}
	}
	// What a daemon without privileges may not remove is left to us. It has ended: whatever stays is no failure.
	if _, err := instance.Clear(c.paths()); err != nil && !errors.Is(err, instance.ErrRunning) {
		return WithExitCode(ExitOK, fmt.Errorf("gportmap has ended; a file stays, which doesn't keep it from starting: %w", err))
	}
	return nil
}

// unsaved returns the registrations of a daemon whose state file was removed: they are in its memory alone if it can't make the
// directory anew. Nil if there is a file.
func (c Config) unsaved(ctx context.Context) []rpcbind.RPCB {
	if c.stateless() || !absent(c.statePath()) {
		return nil
	}
	all, err := c.ask(ctx)
	if err != nil {
		c.Log.Warn("the state was removed, and the daemon gives no answer: registrations are lost", "err", err)
	}
	return all
}

// gportmap opens the process of the instance. That it is the one meant is certain: it holds the instance lock, or the pid
// file names it, and its start time and program were looked at through the handle.
func (c Config) gportmap() (*sys.ProcessHandle, error) {
	s, err := c.state()
	switch {
	case err != nil:
		return nil, byCause(ExitConfig, err)
	case s.Condition == instance.Unknown:
		return nil, WithExitCode(ExitPermission, errors.New(s.Note))
	case s.Condition != instance.Running:
		return nil, ErrNotRunning
	case s.Process.PID == 0:
		if h, err := c.tellsItself(); err == nil {
			return h, nil
		}
		return nil, WithExitCode(ExitPermission, fmt.Errorf("a portmapper holds %s that can't be seen from here: look as root, or outside this pid namespace", c.lockPath()))
	}
	h, err := sys.OpenProcess(s.Process.PID)
	if errors.Is(err, syscall.ESRCH) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, byCause(ExitSystem, err)
	}
	holder, err := instance.HolderOf(h.PID)
	if err != nil || h.StartTicks != s.Process.StartTicks || holder.Process.StartTicks != h.StartTicks {
		h.Close()
		return nil, ErrNotRunning
	}
	if p := c.processOf(holder); !p.Gportmap {
		h.Close()
		return nil, fmt.Errorf("%w: %s (pid %d) is serving", ErrNotRunning, p.Command, p.PID)
	}
	return h, nil
}

// tellsItself opens the process that has the admin socket, which only root and the service's user can make. For who has no /proc
// that is all there is to know the daemon by.
func (c Config) tellsItself() (*sys.ProcessHandle, error) {
	before, err := AskStatus(context.Background(), c)
	if err != nil {
		return nil, err
	}
	h, err := sys.OpenPID(before.PID)
	if err != nil {
		return nil, err
	}
	// Its number is another's, at the other end of the handle, if it has ended meanwhile or is in another PID namespace.
	conn, err := net.Dial("unix", c.adminSocket())
	if err == nil {
		var peer sys.Cred
		peer, err = sys.PeerCred(conn.(*net.UnixConn))
		conn.Close()
		if err == nil && int(peer.PID) != before.PID {
			err = ErrNotRunning
		}
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func waitEnd(ctx context.Context, h *sys.ProcessHandle, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return h.Wait(ctx)
}
