package daemon

import (
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// containerLife names the life of the container that this process is in by when its process 1 began. It is "" outside of a
// container, where boot_id says it all, and where process 1 can't be seen: systemd hides it from services, and makes /run anew.
func containerLife() (name string, began time.Time) {
	if sys.InInitialPIDNamespace() {
		return "", time.Time{}
	}
	first, err := sys.LookupProcess(1)
	if err != nil {
		return "", time.Time{}
	}
	return strconv.FormatUint(first.StartTicks, 10), first.Started
}

// serverSeen returns a function that reports whether a socket is seen at the address of a registration. It looks when it is first
// called. What can't be seen counts as gone.
func serverSeen(log *slog.Logger) func(rpcbind.RPCB) bool {
	table := sync.OnceValue(func() sys.BoundTable {
		t, err := sys.BoundSockets()
		if err != nil {
			log.Warn("the kernel doesn't tell which ports are bound: no registration of an earlier life of this container is restored", "err", err)
		}
		return t
	})
	return func(b rpcbind.RPCB) bool {
		transport, ok := b.Netid.Transport()
		if !ok {
			return false
		}
		if !transport.IP() {
			sockets, err := sys.LocalSockets(b.Addr)
			return err == nil && len(sockets) > 0
		}
		at, ok := rpcbind.ParseUAddr([]byte(b.Addr))
		return ok && table().Covers(string(transport.Netid), at)
	}
}
