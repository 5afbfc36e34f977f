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
)

// A search looks for the portmapper to take over from.
type search struct {
	lockPath  string
	endpoints []Endpoint
	users     []uint32 // besides root
}

// find returns the one process that holds everything that is taken.
func (s search) find(ctx context.Context) (Holder, error) {
	for until := time.Now().Add(wakePatience); ; {
		holders, err := Holders(s.endpoints...)
		if err != nil {
			return Holder{}, fmt.Errorf("who holds the sockets can't be told: %w", err)
		}
		holders = slices.DeleteFunc(holders, func(h Holder) bool {
			// The port of closed connections can be bound. An abstract name can be anybody's, and we serve without it.
			return h.Unseen == Closed || h.onlyAbstract() && !s.isPortmapper(h)
		})
		if len(holders) != 1 || !holders[0].isSystemdAlone() || !holders[0].socketOfPortmapper() {
			return s.choose(holders)
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

// choose checks that all of holders is one portmapper, and the one that has the lock.
func (s search) choose(holders []Holder) (Holder, error) {
	foreign := slices.DeleteFunc(slices.Clone(holders), func(h Holder) bool { return h.Origin.Runtime == "" && s.isPortmapper(h) })
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
	running, err := s.lockHolder()
	switch {
	case err != nil:
		return Holder{}, fmt.Errorf("instance lock: %w", err)
	case running == nil && len(holders) == 0:
		return Holder{}, ErrNoPredecessor
	case len(holders) == 0:
		return Holder{}, fmt.Errorf("instance lock: %w; it serves nothing that this one would, here: stop it where it runs, as in its network namespace", running)
	case running == nil || running.PID == 0 || running.PID == holders[0].Process.PID:
		return holders[0], nil
	}
	return Holder{}, fmt.Errorf("instance lock: %w, but %s", running, holders[0].String())
}

// lockHolder returns the portmapper that has the lock, nil if none has. Rpcbind's lock file can be opened, and so locked, by
// everybody: who isn't a portmapper doesn't count.
func (s search) lockHolder() (*RunningError, error) {
	err := probe(s.lockPath)
	var running *RunningError
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case !errors.As(err, &running):
		return nil, err
	case running.PID == 0:
		return running, nil
	}
	process, err := sys.LookupProcess(running.PID)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return nil, fmt.Errorf("%w, which has just ended; try again", running)
	case err != nil:
		return nil, err
	case !s.isPortmapper(Holder{Process: process}):
		return nil, nil
	}
	return running, nil
}

// isPortmapper tells whether what holds sockets is certainly a portmapper that the administrator started. The name is what
// anybody gives a process of his own, and anybody can lock rpcbind's lock file. What only root can have is the port, below
// 1024, or a program file of root's that runs for root or the service's user and has the lock as well.
func (s search) isPortmapper(h Holder) bool {
	if h.Unseen != Seen || h.Process.PID == 0 {
		return false
	}
	locks := holdsLock(h.Process.PID, s.lockPath)
	return h.servesPrivileged() && (locks || isPortmapper(h.Process)) || locks && s.isTrusted(h.Process)
}

// servesPrivileged tells whether one of the sockets serves a port that only the privileged may bind.
func (h Holder) servesPrivileged() bool {
	first, err := sys.UnprivilegedPorts()
	return err == nil && slices.ContainsFunc(h.Sockets, func(s sys.BoundSocket) bool {
		return s.Serving && s.Netid != "local" && s.Addr.Port() < first
	})
}

// isTrusted tells whether a process runs a portmapper's program that nobody but its user and root could have changed, for a
// user who may be the portmapper's: root, us, or the service's. The real user counts as well, for everybody can start a
// program that becomes root by its file's mode.
func (s search) isTrusted(p sys.Process) bool {
	us := uint32(os.Geteuid())
	trusted := func(uid uint32) bool { return uid == 0 || uid == us || slices.Contains(s.users, uid) }
	if !trusted(p.UID) || !trusted(p.RealUID) || !isPortmapperName(programName(p)) {
		return false
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.PID))
	return err == nil && onlyOurs(info)
}

// onlyOurs tells whether a file can be changed by nobody but root and us.
func onlyOurs(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || st.Uid == uint32(os.Geteuid())) && info.Mode().Perm()&0o022 == 0
}

// onlyAbstract tells whether the holder has nothing but names in the abstract namespace.
func (h Holder) onlyAbstract() bool {
	return len(h.Sockets) > 0 && !slices.ContainsFunc(h.Sockets, func(s sys.BoundSocket) bool { return !strings.HasPrefix(s.Path, "@") })
}

// socketOfPortmapper tells whether systemd has the sockets for a portmapper's units.
func (h Holder) socketOfPortmapper() bool {
	return slices.ContainsFunc(h.SocketUnits, func(unit string) bool {
		return isPortmapperName(strings.TrimSuffix(unit, filepath.Ext(unit)))
	})
}
