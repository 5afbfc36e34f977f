// Package daemon puts the portmapper together: in which order it starts and stops.
package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// maxSocketPath is the longest path of a local socket in octets: struct sockaddr_un has 108, and the abstract socket of
// the same name needs one for its mark.
const maxSocketPath = 107

// Config says what a daemon serves and how. The zero value is a system's portmapper as rpcbind serves without flags.
type Config struct {
	// Hosts are the addresses to bind UDP and TCP sockets to; 127.0.0.1 and ::1 are added. None is every address.
	Hosts []netip.Addr
	// FreeBind binds to Hosts that are no addresses of this host yet.
	FreeBind bool
	// Port of the UDP and TCP sockets; 0 is 111.
	Port uint16
	// Socket is the path of the local socket, which is served in the abstract namespace as well. Empty is rpcbind.sock in
	// StateDir if that is given, else /run/rpcbind.sock.
	Socket string
	// StateDir is the directory of everything that an instance of its own has on disk, which is made if its parent
	// exists. Empty says that this is the system's instance, whose lock and registrations are in /run/rpcbind. It must belong to us, root or rpcbind's user, and nobody else may write in it.
	StateDir string // [NoStateDir]: none
	// Insecure lets callers of every host register.
	Insecure bool
	// RemoteCalls serves CALLIT, BCAST and INDIRECT.
	RemoteCalls bool
	// DropPrivileges gives root up once every socket is bound. At the end the lock file, the pid file and the local socket
	// then stay behind where only root may remove them: the next start takes them over, and [Stop] removes them.
	DropPrivileges bool
	// User is the name of the user to become then; empty: the first of those that distributions have for a portmapper.
	User string
	// Takeover stops the portmapper that runs, if any, and takes its place with everything that is registered there. If
	// that fails the other one is put back.
	Takeover bool
	// TakenOver, if not nil, is called with a sentence that tells how that went, before Ready.
	TakenOver func(text string)
	// AdminGroup is the name or number of the group that may ask how the daemon is, by the admin socket in the state
	// directory. Empty: root, and the user that the daemon runs as, alone.
	AdminGroup string
	// Metrics is where metrics are served over TCP; the zero value is nowhere.
	Metrics netip.AddrPort
	// Version is what the program calls itself.
	Version string
	// Rules say who may do what. Hosts.allow and hosts.deny count beside them.
	Rules access.Rules
	// Static are registrations that the configuration has: see [ParseStatic].
	Static []rpcbind.RPCB
	// Limits bound what callers can use up.
	Limits Limits
	// Reread, if not nil, returns the configuration as it is now, for Hangups, and the names of settings in it that differ
	// from those at the start and that only a start applies.
	Reread func() (Config, []string, error)
	// LogRate, if not nil, bounds the lines that Log takes in a second, 0 for no bound.
	LogRate func(lines int)
	// RPCBindMessages logs refused calls in rpcbind's words.
	RPCBindMessages bool
	// LogCalls logs every call.
	LogCalls bool
	// Log is where the daemon logs; nil discards.
	Log *slog.Logger
	// Hangups, if not nil, has the configuration read again with each value: SIGHUP.
	Hangups <-chan os.Signal
	// Ready, if not nil, is called once every socket is served, before the service manager is told. An error ends Run.
	Ready func() error
}

// complete returns c with its defaults filled in and its paths made absolute, because a daemon in the background
// leaves the directory it was started in.
func (c Config) complete() (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.complete()
	if c.Port == 0 {
		c.Port = rpcbind.Port
	}
	if c.StateDir != "" && !c.stateless() {
		dir, err := filepath.Abs(c.StateDir)
		if err != nil {
			return c, WithExitCode(ExitSystem, fmt.Errorf("state directory %s: %w", c.StateDir, err))
		}
		c.StateDir = dir
	}
	switch {
	case strings.HasPrefix(c.Socket, "@"):
		return c, WithExitCode(ExitUsage, fmt.Errorf("socket %s: give the path alone; the abstract socket of that name is always served as well", c.Socket))
	case c.Socket != "":
		path, err := filepath.Abs(c.Socket)
		if err != nil {
			return c, WithExitCode(ExitSystem, fmt.Errorf("socket %s: %w", c.Socket, err))
		}
		c.Socket = path
	case c.StateDir != "" && !c.stateless():
		c.Socket = filepath.Join(c.StateDir, "rpcbind.sock")
	default:
		c.Socket = rpcbind.SocketPath
	}
	if len(c.Socket) > maxSocketPath {
		return c, WithExitCode(ExitUsage, fmt.Errorf("socket %s: %d octets are too long for a local socket, at most %d; choose a shorter path",
			c.Socket, len(c.Socket), maxSocketPath))
	}
	return c, nil
}

// lockPath returns the path of the instance lock.
func (c Config) lockPath() string {
	switch {
	case c.stateless():
		return ""
	case c.StateDir == "":
		return instance.SystemPaths().Lock
	}
	return filepath.Join(c.StateDir, "rpcbind.lock")
}

// checkUser returns an error if root could not become the user that the configuration names.
func (c Config) checkUser() error {
	if !c.DropPrivileges {
		return nil
	}
	_, err := c.privilegeless()
	if err != nil && c.User == "" {
		err = fmt.Errorf("none of the users _rpc, rpc and daemon: %w", err)
	}
	return err
}

// checkGroup returns an error if there is no such group as the admin socket's.
func (c Config) checkGroup() error {
	if c.AdminGroup == "" {
		return nil
	}
	_, err := sys.LookupGroup(c.AdminGroup)
	return err
}
