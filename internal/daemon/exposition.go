package daemon

import (
	"maps"
	"os"
	"runtime"
	"slices"

	"github.com/gportmap/gportmap/internal/metrics"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Metrics tells the same as Status for Prometheus. Its names are an interface: alert rules and dashboards use them.
func (r *reporter) Metrics() []byte {
	const counter, gauge = "counter", "gauge"
	var w metrics.Writer
	w.One("gportmap_build_info", gauge, "Which program this is; always 1.", 1,
		"version", r.version, "commit", Commit(), "go", runtime.Version())
	w.Calls(&r.recorder.Calls, rpcbind.ProcedureName)
	w.Latency(&r.recorder.Latency)
	w.One("gportmap_rate_limited_total", counter, "Datagrams left unanswered because their network sent too many.", float64(r.policy.Limited()))

	const registrations = "gportmap_registrations"
	w.Family(registrations, gauge, "Registrations of others than the portmapper, by kind of owner and whether somebody is bound to their port.")
	counts := r.count()
	for _, owner := range slices.Sorted(maps.Keys(counts)) {
		for _, state := range []string{"alive", "dead", "unknown"} {
			w.Sample(registrations, float64(counts[owner][state]), "owner", owner, "state", state)
		}
	}
	const connections = "gportmap_connections"
	tcp, local, opened := r.server.Connections()
	w.Family(connections, gauge, "Open connections.")
	w.Sample(connections, float64(tcp), "transport", "tcp")
	w.Sample(connections, float64(local), "transport", "local")
	w.One("gportmap_connections_opened_total", counter, "Connections that were accepted.", float64(opened))
	w.One("gportmap_listeners", gauge, "Sockets that are served.", float64(len(r.listeners)))

	s := r.stateDocument()
	behind := 0.0
	if s.Error != "" {
		behind = 1
	}
	w.One("gportmap_state_writes_total", counter, "Changes written to the state directory.", float64(s.Writes))
	w.One("gportmap_state_write_failures_total", counter, "Attempts to write the state that failed.", float64(s.Failures))
	w.One("gportmap_state_behind", gauge, "1 while registrations are not on disk and would be lost in a crash.", behind)

	w.One("go_goroutines", gauge, "Goroutines.", float64(runtime.NumGoroutine()))
	w.One("process_resident_memory_bytes", gauge, "Resident memory.", float64(residentMemory()))
	w.One("process_start_time_seconds", gauge, "When the daemon began, seconds since 1970.", float64(r.started.UnixMilli())/1000)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		w.One("process_open_fds", gauge, "Open file descriptors.", float64(len(fds)-1)) // the one that reads them is closed again
	}
	return w.B
}
