package daemon

import (
	"strings"

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

// reload reads the whole configuration, and if all of it is right lets it count from the next call on; else the one before
// stays. Then it has the state written, whatever became of it.
func (r *reloader) reload() error {
	defer r.table.Save()
	if r.config.Reread == nil {
		return nil
	}
	c, restart, err := r.config.Reread()
	if err == nil {
		c, err = c.complete()
	}
	if err != nil {
		return err
	}
	r.door.policy.Limit.SetRate(c.Limits.AnswerRate)
	r.table.SetLimits(c.Limits.table())
	r.server.SetLimits(c.Limits.server(r.serverConfig))
	if r.relay != nil {
		r.relay.SetLimit(c.Limits.CallsInFlight)
	}
	c.setLogRate()
	r.door.reload(c.Rules)
	if len(restart) > 0 {
		r.config.Log.Warn("these settings take a restart: " + strings.Join(restart, ", "))
	}
	return nil
}
