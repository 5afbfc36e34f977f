package daemon

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// How often the service manager is told how we are: as often as pulse, or often enough that of its waits for a sign of life
// two may be missed.
const (
	pulse          = 10 * time.Second
	signsPerWait   = 3
	shortestChance = 100 * time.Millisecond // that a question of ours gets to be answered
)

// health tells the service manager how the daemon is, from the start to the end of serving. Without a service manager it
// does nothing but to reload.
type health struct {
	log      *slog.Logger
	notifier *sys.Notifier
	probe    func(context.Context) error          // asks every socket whether it is served
	status   func() string                        // one line for systemctl status
	reload   func() (restart []string, err error) // reads again what can be read again
	reloads  *reloads

	told string // the last status
	owed bool   // the service manager didn't take that everything is served
	hung bool   // the last probe failed
}

// ready tells that everything is served. A service manager that doesn't take it is told again with the next beat, because it
// waits for this.
func (h *health) ready() {
	h.told = h.status()
	err := h.notifier.Ready(h.told)
	h.owed = err != nil
	told(h.log, err)
}

// run watches until ctx ends. Each value of hangups has the configuration read again.
func (h *health) run(ctx context.Context, hangups <-chan os.Signal) {
	every := pulse
	if wait := h.notifier.WatchdogInterval(); wait > 0 {
		every = max(min(pulse, wait/signsPerWait), shortestChance)
	}
	var tick <-chan time.Time
	if h.notifier != nil {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			h.beat(ctx, every)
		case <-hangups:
			h.reloading()
		}
	}
}

// beat gives a sign of life if there is life, and tells what has changed.
func (h *health) beat(ctx context.Context, limit time.Duration) {
	if h.notifier.WatchdogInterval() > 0 && h.alive(ctx, limit) {
		told(h.log, h.notifier.Alive())
	}
	if h.owed {
		h.ready()
		return
	}
	if now := h.status(); now != h.told {
		h.told = now
		told(h.log, h.notifier.Status(now))
	}
}

// alive asks whether every socket is served. Where one isn't, the service manager is to end us when its patience does: the
// descriptors that we share with it stay open, and a new process serves them.
func (h *health) alive(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := h.probe(ctx)
	if err != nil && ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
		return true // we end
	}
	switch {
	case err != nil:
		h.log.Error("a part of the daemon hangs: unless it recovers the watchdog ends the process", "err", oneLine(err))
	case h.hung:
		h.log.Info("everything is served again")
	}
	h.hung = err != nil
	return !h.hung
}

// reloading reads the configuration again, and says so before and after: systemctl reload waits for it.
func (h *health) reloading() {
	h.reloads.begin()
	told(h.log, h.notifier.Reloading())
	restart, err := h.reload()
	if err != nil {
		h.log.Error("SIGHUP: the configuration stays as it was", "err", oneLine(err))
	} else {
		h.log.Info("SIGHUP: reloaded")
	}
	if len(restart) > 0 {
		h.log.Warn("these settings take a restart: " + strings.Join(restart, ", "))
	}
	h.ready()
	h.reloads.end(restart, err)
}
