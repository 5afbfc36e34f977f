package daemon

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/metrics"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/server"
	"github.com/gportmap/gportmap/internal/warmstart"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A reporter knows how the daemon is: it is what the admin socket tells of.
type reporter struct {
	log       *slog.Logger
	version   string
	started   time.Time
	listeners []string
	table     *registry.Table
	state     *warmstart.Store
	dir       string // of the state
	dead      *deadServers
	server    *server.Server
	recorder  *admin.Recorder
	policy    *access.Policy
	reloads   reloads
}

var _ admin.Source = (*reporter)(nil)

// Status tells everything but the single registrations.
func (r *reporter) Status() admin.Status {
	s := admin.Status{
		Version: r.version, Commit: Commit(), Go: runtime.Version(), PID: os.Getpid(), Started: r.started, Now: time.Now(),
		Listeners: r.listeners, Goroutines: runtime.NumGoroutine(), MemoryBytes: residentMemory(),
		Clients: r.recorder.Clients(), RateLimited: r.policy.Limited(), State: r.stateDocument(),
	}
	for _, states := range r.count() {
		s.Registrations.Alive += states[admin.Alive]
		s.Registrations.Dead += states[admin.Dead]
		s.Registrations.Unknown += states[admin.Unknown]
	}
	r.recorder.Calls.Each(func(n metrics.CallCount) {
		c := admin.CallCount{Version: "other", Procedure: "other", Transport: n.Transport, Verdict: n.Verdict.String(), Count: n.Count}
		if n.Known {
			c.Version, c.Procedure = strconv.FormatUint(uint64(n.Version), 10), rpcbind.ProcedureName(n.Version, n.Procedure)
		}
		s.Calls = append(s.Calls, c)
	})
	s.Connections.TCP, s.Connections.Local, s.Connections.Opened = r.server.Connections()
	s.Changes, s.Refused = r.recorder.Events()
	return s
}

// Reload tells what became of the last reload.
func (r *reporter) Reload() admin.Reload { return r.reloads.document() }

func (r *reporter) stateDocument() admin.State {
	stats := r.state.Stats()
	s := admin.State{Dir: r.dir, Writes: stats.Writes, Failures: stats.Failures, Written: stats.Written}
	if err := r.state.Err(); err != nil {
		s.Error = err.Error()
	}
	return s
}

// count counts the registrations of others by kind of owner and state.
func (r *reporter) count() map[string]map[string]int {
	counts := map[string]map[string]int{"superuser": {}, "user": {}, "unknown": {}, rpcbind.OwnerStatic: {}}
	now := r.dead.atOnce()
	for _, e := range r.table.Entries() {
		if !e.Own {
			counts[ownerKind(e.Owner)][now.state(e)]++
		}
	}
	return counts
}

func ownerKind(owner string) string {
	switch owner {
	case rpcbind.OwnerSuperuser, rpcbind.OwnerUnknown, rpcbind.OwnerStatic:
		return owner
	}
	return "user"
}

// Registrations tells of every registration, and of the processes behind them as far as they can be seen.
func (r *reporter) Registrations() []admin.Registration {
	entries := r.table.Entries()
	now := r.dead.atOnce()
	all := make([]admin.Registration, len(entries))
	for i, e := range entries {
		g := admin.Registration{
			Program: e.Program, Version: e.Version, Netid: string(e.Netid), Address: e.Addr, Owner: e.Owner, Own: e.Own, Static: e.Static,
			Port: e.IP.Port(), State: now.state(e),
		}
		if e.Since != 0 {
			g.Since = time.Unix(int64(e.Since), 0)
		}
		all[i] = g
	}
	FindServers(all)
	return all
}

// FindServers fills in the processes behind registrations that are alive and have none yet. Root sees all; others see their
// own.
func FindServers(all []admin.Registration) {
	var asked []int
	var endpoints []instance.Endpoint
	for i, g := range all {
		if at, ok := rpcbind.ParseUAddr(g.Address); ok && g.State == admin.Alive && g.Server == nil {
			asked, endpoints = append(asked, i), append(endpoints, instance.Endpoint{Netid: strings.ToLower(g.Netid), Addr: at})
		}
	}
	if asked == nil {
		return
	}
	holders, err := instance.ServersOf(endpoints)
	if err != nil {
		return // the kernel doesn't tell; the registrations are told without
	}
	for i, h := range holders {
		all[asked[i]].Server = processDocument(h)
	}
}

func processDocument(h instance.Holder) *admin.Process {
	switch {
	case h.Process.PID != 0:
		p := &admin.Process{PID: h.Process.PID, Command: h.Process.Command, User: h.User, Unit: h.Origin.Unit}
		if p.Unit == "" && h.Origin.Container != "" {
			p.Unit = h.Origin.Runtime + " " + h.Origin.Container
		}
		return p
	case h.Unseen == instance.Kernel:
		return &admin.Process{Command: "kernel"}
	}
	return nil
}

// Commit returns the revision that the program was built from, if that is known.
func Commit() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, modified := "", ""
	for _, s := range b.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-modified"
		}
	}
	return revision + modified
}

// residentMemory returns the resident set in octets, 0 if /proc isn't there (proc_pid_statm(5)).
func residentMemory() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}
