package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/internal/warmstart"
)

// systemStateDir is the state directory of a system's portmapper, rpcbind's own.
const systemStateDir = "/run/rpcbind"

// savePause is how long to wait before the state is written again that couldn't be.
const savePause = time.Second

// stateDir returns the directory of the state.
func (c Config) stateDir() string {
	if c.StateDir == "" {
		return systemStateDir
	}
	return c.StateDir
}

// openState makes and checks the state directory. In it nothing is read or written yet, so it may be called before the
// instance lock is held, but not after privileges were dropped.
func openState(c Config) (*warmstart.Store, error) {
	if c.stateless() {
		return warmstart.Nowhere(), nil
	}
	w := warmstart.Config{Dir: c.stateDir(), BootID: bootID(c.Log), BootTime: bootTime(), Served: serverSeen(c.Log), Log: c.Log}
	w.Container, w.ContainerTime = containerLife()
	if os.Geteuid() == 0 {
		w.Trusted = serviceUIDs()
		switch {
		case c.DropPrivileges:
			if w.Account, _ = c.privilegeless(); w.Account != nil { // dropPrivileges tells if there is none
				w.Trusted = append(w.Trusted, w.Account.UID)
			}
		case c.StateDir == "":
			w.Account, _ = account(serviceUsers()...)
			if user := c.serviceUser(); user != nil {
				w.Trusted = append(w.Trusted, user.UID)
			}
		}
		w.Adopt = c.StateDir == ""
	}
	s, err := warmstart.Open(w)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, warmstart.ErrUntrusted):
		return nil, WithExitCode(ExitStateDir, err)
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EROFS):
		err = unwritable(err)
	}
	return nil, byCause(ExitCantCreate, err)
}

// serviceUsers are the names of the user that distributions have for rpcbind, to whom its state belongs.
func serviceUsers() []string { return []string{"_rpc", "rpc"} }

// serviceUIDs returns the uids of the service users that this host has.
func serviceUIDs() []uint32 {
	var uids []uint32
	for _, name := range serviceUsers() {
		if uid, _, err := sys.LookupUser(name); err == nil {
			uids = append(uids, uid)
		}
	}
	return uids
}

// account returns the first of the named users that this host has.
func account(names ...string) (*warmstart.Account, error) {
	var missing error
	for _, name := range names {
		uid, gid, err := sys.LookupUser(name)
		if err == nil {
			return &warmstart.Account{UID: uid, GID: gid}, nil
		}
		missing = err
	}
	return nil, missing
}

// privilegeless returns the user to become when privileges are dropped.
func (c Config) privilegeless() (*warmstart.Account, error) {
	if c.User != "" {
		return account(c.User)
	}
	return account(append(serviceUsers(), "daemon")...)
}

// serviceUser returns the user that the system's instance becomes once it serves, nil if it stays with root: it is one beside
// the system's, or the host has none of these users.
func (c Config) serviceUser() *warmstart.Account {
	if c.StateDir != "" {
		return nil
	}
	user, _ := c.privilegeless()
	return user
}

// bootID returns the kernel's name for this boot, "" if it can't be read.
func bootID(log *slog.Logger) string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		log.Info("the boot can't be told from earlier ones but by the clock", "err", err)
	}
	return string(bytes.TrimSpace(b))
}

// bootTime returns when this boot began by the clock as it is now, at most a second too early; the zero time if the
// kernel doesn't tell.
func bootTime() time.Time {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(info.Uptime) * time.Second)
}

// restoreRoom is heapRoom while registrations are restored.
const restoreRoom = 200

// restore registers what an earlier daemon kept, and lets every change be kept from now on. The function that it returns
// ends that, with a last attempt to write what could not be written before.
func restore(log *slog.Logger, table *registry.Table, state *warmstart.Store, other *takeover) (end func()) {
	if state.IsNowhere() {
		return func() {}
	}
	if os.Getenv("GOGC") == "" {
		// What is made here is small and stays: collecting garbage on the way to a heap of its size would be most of the work.
		debug.SetGCPercent(restoreRoom)
		defer debug.SetGCPercent(heapRoom)
	}
	restored := 0
	regs := restorable(other.merge(state.Restore()))
	table.Reserve(len(regs))
	for _, b := range regs {
		if err := table.Set(b); err != nil {
			log.Warn("a registration can't be restored", "program", b.Program, "version", b.Version, "netid", string(b.Netid),
				"address", b.Addr, "err", err)
			continue
		}
		restored++
	}
	if restored > 0 {
		log.Info("registrations restored", "count", restored)
	}
	table.SetJournal(state)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		keepSaving(ctx, table, state)
	}()
	return func() {
		cancel()
		<-done
		behind := state.Err() != nil
		if behind {
			table.Save()
		} else {
			table.Compact()
		}
		switch err := state.Err(); {
		case err == nil:
		case behind:
			log.Error("the last registrations are lost, because they can't be written", "err", err)
		default:
			// The files as they were before have everything.
			log.Warn("removed registrations stay in the state as some of program 0, until it is written anew", "err", err)
		}
	}
}

// After a removal the state is written anew so much later, and at most so often.
const (
	compactDelay = 100 * time.Millisecond
	compactPause = time.Second
)

// keepSaving writes the state again and again while it is behind the table, and anew after removals.
func keepSaving(ctx context.Context, table *registry.Table, state *warmstart.Store) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-state.Removed():
			sleep(ctx, compactDelay)
			if ctx.Err() == nil {
				table.Compact()
			}
			sleep(ctx, compactPause)
		case <-state.Trouble():
		}
		for state.Err() != nil && ctx.Err() == nil {
			sleep(ctx, savePause)
			if ctx.Err() == nil && state.Err() != nil {
				table.Save()
			}
		}
	}
}
