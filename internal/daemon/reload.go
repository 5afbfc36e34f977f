package daemon

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/server"
)

// reloader reads the configuration again when it is told to.
type reloader struct {
	config Config // of the start
	door   *door
	table  *registry.Table
	relay  *server.Relay // or nil
	server *server.Server
	// serverConfig is what the server was made with.
	serverConfig server.Config
}

// setLogRate bounds the log.
func (c Config) setLogRate() {
	if c.LogRate != nil {
		c.LogRate(c.Limits.LogLines)
	}
}

// reload reads the whole configuration, hosts.allow and hosts.deny included, and if all of it is right lets it count from the
// next call on; else the one before stays. Then it has the state written, whatever became of it. It returns the settings that
// only a start applies.
func (r *reloader) reload() (restart []string, err error) {
	defer r.table.Save()
	c := r.config
	if r.config.Reread != nil {
		if c, restart, err = r.config.Reread(); err == nil {
			c, err = c.complete()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := r.door.reload(c.Rules); err != nil {
		return nil, err
	}
	if err := c.setStatics(r.config.Log, r.table); err != nil {
		return nil, err // not of a configuration that was parsed
	}
	r.door.policy.Limit.SetRate(c.Limits.AnswerRate)
	r.table.SetLimits(c.Limits.table())
	r.server.SetLimits(c.Limits.server(r.serverConfig))
	if r.relay != nil {
		r.relay.SetLimit(c.Limits.CallsInFlight)
	}
	c.setLogRate()
	return restart, nil
}

// reloads is what became of the times that the configuration was read again. Its methods may be called concurrently.
type reloads struct {
	mu   sync.Mutex
	last admin.Reload
}

func (r *reloads) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Begun++
}

func (r *reloads) end(restart []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = admin.Reload{Begun: r.last.Begun, Ended: r.last.Begun, Restart: restart}
	if err != nil {
		r.last.Error = oneLine(err).Error()
	}
}

func (r *reloads) document() admin.Reload {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// How long a reload may take: the daemon may be asking itself whether it hangs.
const (
	reloadLimit = 20 * time.Second
	reloadPause = 10 * time.Millisecond
)

// Reload has the gportmap that is the instance of this configuration read its configuration again, by SIGHUP, and returns when
// it did that: the settings that only a start applies, or an error if everything stays as it was, or if that can't be told.
func Reload(ctx context.Context, c Config) (restart []string, err error) {
	c, err = c.complete()
	if err != nil {
		return nil, err
	}
	h, err := c.gportmap()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	var before, now admin.Reload
	askErr := admin.Ask(ctx, c.adminSocket(), "/v1/reload", &before)
	if err := h.Signal(syscall.SIGHUP); err != nil {
		return nil, byCause(ExitSystem, err)
	}
	// What begins from now on finds the configuration as it was when we were called. Hangups that come while one waits to be
	// handled are one.
	for askErr == nil && now.Ended <= before.Begun {
		sleep(ctx, reloadPause)
		now = admin.Reload{} // what is empty isn't in the answer
		askErr = admin.Ask(ctx, c.adminSocket(), "/v1/reload", &now)
	}
	switch {
	case askErr != nil:
		return nil, WithExitCode(ExitUnavailable,
			fmt.Errorf("reload: SIGHUP was sent, but pid %d doesn't report the result: %w; see its log", h.PID, askErr))
	case now.Error != "":
		return nil, WithExitCode(ExitConfig, fmt.Errorf("reload: the configuration stays as it was: %s", now.Error))
	}
	return now.Restart, nil
}
