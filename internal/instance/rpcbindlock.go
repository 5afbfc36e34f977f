package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
)

// AcquireBeside takes the lock at path, as [Acquire] does, and rpcbind's lock at rpcbind, unless that is empty. Errors are
// those of Acquire. A portmapper that holds rpcbind's lock is a [*RunningError] as well. Nobody else who holds it keeps us
// from starting, because every user can: root puts a new file in its place, others start without it. Warning, if not empty,
// says in a line what was in the way.
func AcquireBeside(path, rpcbind string) (l *Lock, warning string, err error) {
	l, err = Acquire(path)
	if err != nil || rpcbind == "" {
		return l, "", err
	}
	l.beside, warning, err = acquireRpcbinds(rpcbind, trustedUsers(path))
	if err != nil {
		l.Release()
		return nil, "", err
	}
	return l, warning, nil
}

// acquireRpcbinds takes rpcbind's lock; nil without an error if it can't be had and no portmapper has it.
func acquireRpcbinds(path string, trusted []uint32) (l *Lock, warning string, err error) {
	for {
		l, err = Acquire(path)
		var running *RunningError
		switch {
		case err == nil:
			return l, warning, nil
		case !errors.As(err, &running):
			return nil, fmt.Sprintf("rpcbind's lock can't be taken, so an rpcbind started now doesn't notice this process: %v", err), nil
		case proven(running.PID, trusted):
			return nil, "", running
		case warning != "" || os.Geteuid() != 0:
			return nil, foreign(running), nil
		}
		// Whoever holds it keeps a file without a name.
		warning = foreign(running) + "; a new file was put in its place"
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Sprintf("%s; it can't be replaced: %v", foreign(running), err), nil
		}
	}
}

// foreign describes a holder of rpcbind's lock that is no portmapper.
func foreign(e *RunningError) string {
	who := "a process that can't be seen"
	if e.PID != 0 {
		who = fmt.Sprintf("pid %d (%s", e.PID, printable(e.Command))
		if p, err := sys.LookupProcess(e.PID); err == nil {
			who += ", user " + printable(sys.UserName(p.UID))
		}
		who += ")"
	}
	return fmt.Sprintf("rpcbind's lock %s is held by %s, which is no portmapper", e.Path, who)
}

// portmapperAt returns who holds rpcbind's lock if that is a portmapper. Note tells of another holder.
func (p Paths) portmapperAt() (running *RunningError, note string) {
	if p.Rpcbind == "" {
		return nil, ""
	}
	err := probe(p.Rpcbind)
	if errors.Is(err, fs.ErrPermission) {
		if pid := lockTaker(p.Rpcbind); pid != 0 {
			err = &RunningError{Path: p.Rpcbind, PID: pid}
		}
	}
	switch {
	case !errors.As(err, &running):
		return nil, ""
	case proven(running.PID, trustedUsers(p.Lock)):
		return running, ""
	}
	return nil, foreign(running) + "; it hinders nobody"
}

// trustedUsers returns the uids of portmappers: root, the users that distributions have for rpcbind, and who owns the
// directory of our lock, which only root can give away.
func trustedUsers(lock string) []uint32 {
	uids := []uint32{0}
	for _, name := range []string{"_rpc", "rpc"} {
		if uid, _, err := sys.LookupUser(name); err == nil {
			uids = append(uids, uid)
		}
	}
	var dir syscall.Stat_t
	if syscall.Lstat(filepath.Dir(lock), &dir) == nil {
		uids = append(uids, dir.Uid)
	}
	return uids
}

// proven tells whether a process is a portmapper by what no other user can bring about: it has the name of one, every user
// id of it is a portmapper's, and its program is a file of theirs that gives no privileges. A name alone, or a lock that was
// inherited by a program of root's, is no proof.
func proven(pid int, trusted []uint32) bool {
	p, err := sys.LookupProcess(pid)
	if pid == 0 || err != nil || !isPortmapper(p) {
		return false
	}
	ids, err := sys.UserIDs(pid)
	if err != nil || slices.ContainsFunc(ids, func(uid uint32) bool { return !slices.Contains(trusted, uid) }) {
		return false
	}
	program, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		// Only root may look at another user's; then the user ids and the name are all there is.
		return errors.Is(err, fs.ErrPermission)
	}
	st, ok := program.Sys().(*syscall.Stat_t)
	return ok && slices.Contains(trusted, st.Uid) && program.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 && program.Mode()&0o002 == 0
}
