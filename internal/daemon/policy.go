package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// ErrNotBound says that no socket of the caller's is bound to the port that it wants to register.
var ErrNotBound = errors.New("no socket of the caller is bound to that port")

// ErrAskedTooOften says that an owner's registrations have taken too much of the daemon's time for now.
var ErrAskedTooOften = errors.New("the kernel was asked too often whose port that is; try again in a second")

// door decides who may do what: the configuration's rules together with hosts.allow and hosts.deny as they are now.
type door struct {
	log    *slog.Logger
	policy *access.Policy
	paths  [3]string // hosts.allow, hosts.deny, hosts

	mu    sync.Mutex // held from when the lists are read until they count: what was read first must not replace what came later
	rules access.Rules
	hosts *access.HostsAccess
}

// newDoor returns the door of a configuration. An error is about an access list that is there and can't be read.
func newDoor(c Config, host *interfaces, whose *owners) (*door, error) {
	if c.Insecure {
		c.Log.Warn("insecure: callers of every host may register and unregister")
	}
	began := time.Now()
	d := &door{log: c.Log, paths: [3]string{access.HostsAllowPath, access.HostsDenyPath, access.HostsPath}}
	d.policy = &access.Policy{
		Insecure:      c.Insecure,
		RootPort:      whose.rootPort,
		OwnAddress:    host.isOwn,
		InterfaceName: host.name,
		Connected:     host.connected,
		Bound:         boundTo(c.Log, whose.kernel),
		Limit:         access.NewLimiter(c.Limits.AnswerRate, func() int64 { return int64(time.Since(began)) }),
	}
	if err := d.reload(c.Rules); err != nil {
		return nil, WithExitCode(ExitConfig, err)
	}
	return d, nil
}

// read reads the access lists.
func (d *door) read() (*access.HostsAccess, error) {
	return access.ReadHostsAccess(os.ReadFile, d.paths[0], d.paths[1], d.paths[2])
}

// set lets rules and access lists count from now on, and tells what in the lists is not honoured if they are new. The lock is
// held.
func (d *door) set(rules access.Rules, hosts *access.HostsAccess) {
	if hosts != d.hosts {
		for _, w := range hosts.Warnings() {
			d.log.Warn(w)
		}
	}
	d.rules, d.hosts = rules, hosts
	rules.Hosts = hosts
	d.policy.SetRules(rules)
}

// reload reads the access lists, and lets them and the rules count. After an error nothing has changed.
func (d *door) reload(rules access.Rules) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	hosts, err := d.read()
	if err != nil {
		return err
	}
	d.set(rules, hosts)
	return nil
}

// reread reads the access lists again, and lets them count if they have changed. Lists that can't be read leave those before in
// force. It returns the files to watch.
func (d *door) reread() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := d.read()
	switch {
	case err != nil:
		d.log.Error("hosts.allow and hosts.deny as they were stay in force", "err", err)
	case !now.Same(d.hosts):
		d.log.Info("hosts.allow and hosts.deny were read again")
		d.set(d.rules, now)
	}
	return d.hosts.Files()
}

// watch reads the access lists again when one of their files has changed, until ctx ends; done is closed then.
func (d *door) watch(ctx context.Context) (done <-chan struct{}) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil {
			if err := d.watchOnce(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("changes of hosts.allow and hosts.deny are not noticed for a while", "err", err, "pause", watchPause)
				sleep(ctx, watchPause)
			}
		}
	}()
	return over
}

// watchOnce reads the lists once they are watched, so that no change is missed in between, and with each change until other
// files are to be watched.
func (d *door) watchOnce(ctx context.Context) error {
	watched := d.reread()
	w, err := sys.WatchFiles(watched)
	if err != nil {
		return err
	}
	defer w.Close()
	for slices.Equal(d.reread(), watched) {
		if err := w.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// boundTo returns a function that returns nil if a socket of an owner is bound to the port of a registration, any socket
// for "superuser". What has no port passes. What the kernel doesn't tell, or was asked about for too long, doesn't.
func boundTo(log *slog.Logger, kernel *sys.Owners) func(owner string, b rpcbind.RPCB) error {
	share := newShare()
	var untold sync.Once
	return func(owner string, b rpcbind.RPCB) error {
		transport, ok := b.Netid.Transport()
		if !ok || !transport.IP() {
			return nil
		}
		at, ok := rpcbind.ParseUAddr([]byte(b.Addr))
		if !ok {
			return nil // the table refuses it
		}
		isOwners := func(s sys.BoundSocket) bool {
			return owner == rpcbind.OwnerSuperuser || s.HasUID && strconv.FormatUint(uint64(s.UID), 10) == owner
		}
		netid := string(transport.Netid)
		var sockets []sys.BoundSocket
		var err error
		if !share.spend(owner, func() {
			if s, found, _ := kernel.Receiver(netid, at); found && isOwners(s) {
				sockets = []sys.BoundSocket{s}
				return
			}
			sockets, err = sys.BoundBy(netid, at)
		}) {
			return ErrAskedTooOften
		}
		if err != nil {
			untold.Do(func() {
				log.Warn("the kernel doesn't tell which ports are bound: strict-set refuses every registration; allow AF_NETLINK or /proc/net, or do without strict-set", "err", err)
			})
			return fmt.Errorf("%w, as far as the kernel tells: %w", ErrNotBound, err)
		}
		if slices.ContainsFunc(sockets, isOwners) {
			return nil
		}
		return ErrNotBound
	}
}
