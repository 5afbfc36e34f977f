package daemon

import (
	"errors"
	"fmt"

	"github.com/gportmap/gportmap/internal/instance"
)

// NoStateDir is the StateDir of a daemon that needs no writable directory: it has no instance lock, no pid file, no state
// files and no admin socket, and serves its local socket only where that can be made.
const NoStateDir = "none"

// statelessText says what that means, in the log, in status and from the doctor.
const statelessText = "no state directory (--state-dir none): registrations are lost when the daemon ends, and only the ports keep a second one from starting"

var errStatelessTakeover = errors.New("a takeover needs a state directory, where registrations are kept in case it fails; start without --takeover or without --state-dir none")

func (c Config) stateless() bool { return c.StateDir == NoStateDir }

// unwritable adds to an error what to do where the directory can't be written.
func unwritable(err error) error {
	return fmt.Errorf("%w; mount a tmpfs there, choose a --state-dir that can be written, or serve without one by --state-dir none", err)
}

// statelessPaths are the files that tell whether such an instance runs.
func (c Config) statelessPaths() instance.Paths {
	return instance.Paths{Socket: c.Socket, Serves: c.wildcards()}
}

// state tells how the instance is: by its lock, or without one by who serves its ports.
func (c Config) state() (instance.Status, error) {
	if !c.stateless() {
		return instance.State(c.paths())
	}
	holders, err := instance.Holders(c.wildcards()...)
	if err != nil {
		return instance.Status{Condition: instance.Unknown, Note: err.Error()}, nil
	}
	for _, h := range holders {
		if !h.Systemd && !onlyOptional(h) {
			return instance.Status{Condition: instance.Running, Process: h.Process}, nil
		}
	}
	return instance.Status{Condition: instance.Stopped}, nil
}
