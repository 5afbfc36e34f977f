package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/server"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/internal/warmstart"
)

// heapRoom is how much larger than what is in use the heap may get, in percent.
const heapRoom = 25

// Run serves until ctx ends, and then returns nil. What is taken on the way up is given back in reverse on the way down:
//
//	another portmapper stopped, for a takeover → state directory → instance lock → stale files removed → sockets, handed
//	over, inherited or bound → pid file → privileges dropped → table with our own entries and those of the last daemon, or of
//	the other portmapper → serve → subsys lock → confined → whoever started us is told → READY=1
//
// An error says what was refused, where, and what to do about it, in one line; [ExitCode] has its exit code. Nothing stays
// half started.
func Run(ctx context.Context, c Config) error {
	if os.Getenv("GOGC") == "" {
		// Calls make no garbage: the heap needs no room for twice what the table takes.
		debug.SetGCPercent(heapRoom)
	}
	if runtime.GOMAXPROCS(0) == 1 && os.Getenv("GOMAXPROCS") == "" {
		// With no other P idle, the scheduler takes ours from each system call that lasts 20 µs, as writing a batch of
		// replies does, although nobody waits for it.
		runtime.GOMAXPROCS(2)
	}
	c, err := c.complete()
	if err != nil {
		return err
	}
	other, err := takeOver(ctx, c)
	if err != nil {
		return err
	}
	return other.settle(start(ctx, c, other))
}

// start is Run in the place of the other portmapper, which has ended, if there was one.
func start(ctx context.Context, c Config, other *takeover) error {
	lock, err := acquire(c)
	if err != nil {
		return err
	}
	defer lock.Release()
	state, err := openState(c)
	if err != nil {
		return err
	}
	defer state.Close()
	stale := clearStale(c, lock)
	k := newKeeper(c.Log)
	sockets, err := other.listen(c, k)
	if err != nil {
		return err
	}
	defer closeAll(sockets)
	desk, err := openAdmin(c)
	if err != nil {
		return err
	}
	defer desk.close()
	m := marks{config: c}
	m.note("not every stale file could be removed", stale)
	m.writePID()
	defer m.remove()
	if c.DropPrivileges {
		if err := dropPrivileges(c); err != nil {
			return err
		}
	}
	table, err := newTable(sockets)
	if err != nil {
		return err
	}
	if err := c.setStatics(c.Log, table); err != nil {
		return err
	}
	defer restore(c.Log, table, state, other)()
	own := &ownFiles{config: c, lock: lock, desk: desk, table: table}
	defer own.stop()
	detach := c.Ready
	ready := other.ready(ctx, func() error {
		// Who hears that we serve has to be able to rely on it: nothing that can fail comes after.
		if err := confine(c); err != nil {
			return err
		}
		own.start(ctx)
		if detach == nil {
			return nil
		}
		return detach()
	})
	c.Ready = func() error {
		m.createSubsys()
		return ready()
	}
	return serve(ctx, c, sockets, k, table, state, desk)
}

// acquire takes the instance lock, in the state directory, which is checked before anything is made there.
func acquire(c Config) (*instance.Lock, error) {
	if c.stateless() {
		c.Log.Warn(statelessText)
		return nil, nil
	}
	state, err := openState(c)
	if err != nil {
		return nil, c.needsRoot(err)
	}
	state.Close()
	p := c.paths()
	lock, warning, err := instance.AcquireBeside(p.Lock, p.Rpcbind)
	var running *instance.RunningError
	switch {
	case errors.As(err, &running):
		return nil, alreadyRunning(c, running)
	case errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.ENOSYS):
		err = fmt.Errorf("%w; the file system or the sandbox refuses flock(2): put /run on a tmpfs, choose a --state-dir on a local file system, or allow flock", err)
		fallthrough
	case errors.Is(err, syscall.EROFS):
		err = unwritable(err)
		fallthrough
	case err != nil:
		return nil, c.needsRoot(byCause(ExitCantCreate, fmt.Errorf("instance lock: %w", err)))
	}
	if warning != "" {
		c.Log.Warn(warning)
	}
	return lock, nil
}

// needsRoot says so in an error of another user who starts the system's portmapper.
func (c Config) needsRoot(err error) error {
	if os.Geteuid() == 0 || c.StateDir != "" {
		return err
	}
	return WithExitCode(ExitPermission, fmt.Errorf("%w; the system's portmapper needs root or the units of systemd's, an instance of your own --state-dir and --port", err))
}

// dropPrivileges becomes the first of the users that distributions have for a portmapper.
func dropPrivileges(c Config) error {
	log := c.Log
	if os.Geteuid() != 0 {
		log.Info("there are no privileges to drop", "uid", os.Geteuid())
		return nil
	}
	user, err := c.privilegeless()
	if err != nil {
		return WithExitCode(ExitConfig, fmt.Errorf("drop privileges: the user, or each of _rpc, rpc and daemon, won't do: %w", err))
	}
	if err := sys.DropPrivileges(user.UID, user.GID); err != nil {
		return byCause(ExitSystem, err)
	}
	log.Info("privileges dropped", "uid", user.UID, "gid", user.GID)
	return nil
}

// newTable returns a table that tells where we are served.
func newTable(sockets []*sys.Socket) (*registry.Table, error) {
	table := registry.New()
	for _, b := range ownEntries(sockets) {
		if err := table.SetOwn(b); err != nil {
			return nil, WithExitCode(ExitConfig, fmt.Errorf("register our own address %s %q: %w", b.Netid, b.Addr, err))
		}
	}
	return table, nil
}

// serve answers calls until ctx ends.
func serve(ctx context.Context, c Config, sockets []*sys.Socket, k *keeper, table *registry.Table, state *warmstart.Store, desk *adminDesk) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	host := newInterfaces(c.Log, sockets)
	whose := newOwners(c.Log)
	defer whose.kernel.Close()
	door, err := newDoor(c, host, whose)
	if err != nil {
		return err
	}
	table.SetLimits(c.Limits.table())
	c.warnOverfull(table.Len() - len(ownEntries(sockets)) - len(c.Static))
	report := &reporter{
		log: c.Log, version: c.Version, started: time.Now(), listeners: names(sockets), table: table, state: state, dir: c.stateDir(),
		dead: newDeadServers(c.Log, host.isOwn, whose.kernel), recorder: admin.NewRecorder(), policy: door.policy,
	}
	refusals := newRefusalLog(c, door.policy)
	pm := portmap.Config{
		Table:       table,
		Policy:      door.policy,
		Now:         func() uint32 { return uint32(time.Now().Unix()) },
		Dead:        report.dead.isDead,
		Refused:     refusals.refused,
		Denied:      refusals.denied,
		LookupStats: c.Limits.LookupStats, RemoteStats: c.Limits.RemoteStats,
		Count: report.recorder.Called,
	}
	table.SetClock(pm.Now)
	var relay *server.Relay
	if c.RemoteCalls {
		relay = server.NewRelay(0)
		relay.SetLimit(c.Limits.CallsInFlight)
		pm.Relay = relay
	}
	if c.LogCalls {
		pm.Observe = observer(c.Log)
	}
	host.portmapper = portmap.New(pm)
	watched, err := host.watch(ctx)
	if err != nil {
		end()
		<-watched
		if errors.Is(err, context.Canceled) {
			return nil // told to end before it served
		}
		return WithExitCode(ExitSystem, err)
	}
	tidy := newTidy()
	sc := server.Config{
		Portmapper: host.portmapper, Relay: relay, Log: c.Log, Loopback: host.isLoopback, Answered: report.recorder.Answered,
		Owner: whose.connection, Keeper: k.forServer(), Connections: k.connections,
		Descriptors: connectionDescriptors(),
		ListOctets:  func() int { return table.RPCBOctets() + table.MappingOctets() }, Freed: tidy.ask,
	}
	table.OnShrunk(tidy.ask)
	s := server.New(c.Limits.server(sc))
	c.setLogRate()
	report.server = s
	defer desk.serve(report)()

	notifier := sys.NewNotifier()
	own := len(ownEntries(sockets))
	h := &health{
		log: c.Log, notifier: notifier, probe: s.Probe,
		status: func() string {
			text := "serving " + describe(sockets) + "; " + counted(table.Len()-own)
			if state.Err() != nil {
				text += ", not all of them on disk, which can't be written"
			}
			return text
		},
		reload:  (&reloader{config: c, door: door, table: table, relay: relay, server: s, serverConfig: sc}).reload,
		reloads: &report.reloads,
	}
	var watching sync.WaitGroup
	lists := door.watch(ctx)
	defer func() {
		end()
		<-watched
		<-lists
	}()
	// Serving goes on until the service manager knows that it is about to end.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		c.Log.Info("stopping")
		told(c.Log, notifier.Stopping())
		stop()
	})()
	var unready error
	err = s.Serve(serving, sockets, func() {
		if ctx.Err() != nil { // told to end: nobody is to hear that we serve, and a takeover puts the other one back
			stop()
			return
		}
		if c.Ready != nil {
			if unready = c.Ready(); unready != nil {
				stop()
				return
			}
		}
		h.ready()
		watching.Go(func() { tidy.run(serving) })
		c.Log.Info("started: serving "+describe(sockets), "pid", os.Getpid(), logging.MessageID, logging.IDStarted)
		watching.Go(func() { h.run(serving, c.Hangups) })
		if os.Getpid() == 1 { // from now on we have no children of our own
			watching.Go(func() { sys.Reap(serving) })
		}
	})
	stop()
	watching.Wait()
	k.settle()
	if err = errors.Join(unready, err); err != nil {
		return WithExitCode(ExitSystem, err)
	}
	c.Log.Info("stopped", logging.MessageID, logging.IDStopped)
	return nil
}

// told logs that the service manager could not be told something, which is no reason not to serve.
func told(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("the service manager can't be told how we are", "err", err)
	}
}
