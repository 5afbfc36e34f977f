package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/gportmap/gportmap/internal/sys"
)

// owners asks the kernel who calls over loopback. What the kernel doesn't say it logs once; the caller then counts as nobody.
type owners struct {
	log    *slog.Logger
	kernel *sys.Owners

	untold sync.Once
}

func newOwners(log *slog.Logger) *owners { return &owners{log: log, kernel: sys.NewOwners()} }

// connection returns the uid at the other end of a TCP connection, and false if that isn't proved.
func (o *owners) connection(fd int, remote, local netip.AddrPort) (uid uint32, ok bool) {
	uid, err := o.kernel.Connection(fd, remote, local)
	o.tell(err)
	return uid, err == nil
}

// rootPort tells whether a datagram may be taken for root's.
func (o *owners) rootPort(remote, local netip.AddrPort) bool {
	ok, err := o.kernel.RootPort(remote, local)
	o.tell(err)
	return ok
}

func (o *owners) tell(err error) {
	if err == nil || errors.Is(err, sys.ErrNoSocket) {
		return
	}
	o.untold.Do(func() {
		o.log.Warn("the kernel doesn't tell who calls over loopback: over TCP and UDP nobody is root, and registrations are owned by \"unknown\"; "+
			"servers should register by the local socket, or allow AF_NETLINK and /proc/sys", "err", err)
	})
}
