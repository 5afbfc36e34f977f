package daemon

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/server"
	"github.com/gportmap/gportmap/internal/sys"
)

// Of what the service manager keeps, root's connections may take half while we serve, because the kernel's is one of them,
// and those of all other users together a quarter. The rest is for listeners, and for what else is there at the end.
const (
	rootsShare  = 2
	othersShare = 4
)

// settleLimit is how long the end waits for the service manager to have taken everything.
const settleLimit = 2 * time.Second

// What the service manager takes in a second while we serve, of root's connections and of those of all others: it has other
// work. A connection that is refused for this is tried again.
const (
	rootsRate  = 32
	othersRate = 8
)

// A pace lets so many events pass in a second, and as many at once.
type pace struct {
	rate int
	next time.Time // when all that passed would have, one by one
}

// pass tells whether an event may pass now.
func (p *pace) pass(now time.Time) bool {
	if now.Before(p.next.Add(-time.Second)) {
		return false
	}
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Second / time.Duration(p.rate))
	return true
}

// stallPause is how long nothing more is given to a service manager that didn't take something in time.
const stallPause = 10 * time.Second

// keeper gives the service manager what is to outlive this process, within bounds, and takes back what an earlier one had
// given. It is a server.Keeper.
type keeper struct {
	log   *slog.Logger
	store *sys.Store // nil keeps nothing
	once  sync.Once  // the log's line on a failure

	connections []*sys.Connection // that an earlier process had

	mu    sync.Mutex
	roots int // connections of root's that are kept
	all   int // descriptors that are kept
	kept  map[syscall.Conn]bool
	over  bool // at the end something couldn't be kept: others aren't to wait for it as well

	rootsPace, othersPace pace
	stalled               time.Time // when it last didn't take something in time
}

func newKeeper(log *slog.Logger) *keeper {
	store, err := sys.NewStore()
	if err != nil {
		log.Warn("connections end with this process", "err", err)
	}
	return &keeper{log: log, store: store, kept: make(map[syscall.Conn]bool),
		rootsPace: pace{rate: rootsRate}, othersPace: pace{rate: othersRate}}
}

// forServer returns what the server is to use, nil if nothing is kept.
func (k *keeper) forServer() server.Keeper {
	if k.store == nil {
		return nil
	}
	return k
}

// Keep keeps a connection, if there is room, and while we serve not too many in a second.
func (k *keeper) Keep(c syscall.Conn, from *portmap.Caller, atEnd bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.hasRoom(from, atEnd) {
		return false
	}
	if now := time.Now(); !atEnd {
		pace := &k.othersPace
		if isRoot(from) {
			pace = &k.rootsPace
		}
		if now.Sub(k.stalled) < stallPause || !pace.pass(now) {
			return false
		}
	}
	return k.keep(c, from, atEnd)
}

func isRoot(from *portmap.Caller) bool {
	return from.Transport == portmap.Local && from.HasUID && from.UID == 0
}

// hasRoom tells whether there is room for a connection. The lock is held.
func (k *keeper) hasRoom(from *portmap.Caller, atEnd bool) bool {
	limit := k.store.Limit()
	switch {
	case k.all >= limit, k.over:
		return false
	case atEnd:
		return true
	case isRoot(from):
		return k.roots < limit/rootsShare
	}
	return len(k.kept)-k.roots < limit/othersShare
}

// keep gives a connection to the service manager. The lock is held.
func (k *keeper) keep(c syscall.Conn, from *portmap.Caller, atEnd bool) bool {
	if err := k.store.Keep(c); err != nil {
		k.failed(err)
		k.over = atEnd
		if errors.Is(err, os.ErrDeadlineExceeded) {
			k.stalled = time.Now()
		}
		return false
	}
	k.add(c, isRoot(from))
	return true
}

// add takes note of a connection. The lock is held.
func (k *keeper) add(c syscall.Conn, root bool) {
	k.kept[c] = root
	k.all++
	if root {
		k.roots++
	}
}

// Forget ends the keeping of a connection.
func (k *keeper) Forget(c syscall.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	root, ok := k.kept[c]
	if !ok {
		return
	}
	delete(k.kept, c)
	k.all--
	if root {
		k.roots--
	}
	if err := k.store.Forget(c); err != nil {
		k.failed(err)
	}
}

// failed logs the first failure.
func (k *keeper) failed(err error) {
	k.once.Do(func() { k.log.Warn("the service manager doesn't keep what it should", "err", err) })
}

// takeBack takes note of what an earlier process had given to the service manager.
func (k *keeper) takeBack(conns []*sys.Connection, lost []string) {
	k.connections = conns
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range conns {
		root := false
		if _, _, _, local := conn.Ends(); local {
			cred, err := sys.PeerCred(conn)
			root = err == nil && cred.UID == 0
		}
		k.add(conn, root)
	}
	for _, name := range lost {
		if err := k.store.ForgetName(name); err != nil {
			k.failed(err)
		}
	}
	if len(conns) > 0 {
		k.log.Info("connections are served on that an earlier process had", "count", len(conns))
	}
}

// adopt adds connections that another portmapper had, which has ended, at most each of one user but root, and has them kept.
// What there is no room for is closed: its clients make another.
func (k *keeper) adopt(conns []*sys.Connection, each int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	users := make(map[uint32]int)
	adopted := 0
	for _, conn := range conns {
		cred, err := sys.PeerCred(conn)
		if err == nil {
			err = conn.Serve()
		}
		from := portmap.Caller{Transport: portmap.Local, UID: cred.UID, HasUID: true}
		if users[cred.UID]++; err != nil || cred.UID != 0 && users[cred.UID] > each || k.store != nil && !(k.hasRoom(&from, false) && k.keep(conn, &from, false)) {
			conn.Close()
			continue
		}
		k.connections = append(k.connections, conn)
		adopted++
	}
	if len(conns) > 0 {
		k.log.Info("connections are served on that the other portmapper had", "count", adopted, "closed", len(conns)-adopted)
	}
}

// keepListeners keeps the sockets that we bound ourselves, so that calls wait in them while no process serves. They are few.
func (k *keeper) keepListeners(sockets []*sys.Socket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range sockets {
		if s.Activated {
			continue
		}
		if !s.Kept && k.all < k.store.Limit() {
			if err := k.store.Keep(s); err != nil {
				k.failed(err)
				continue
			}
			s.Kept = true
		}
		k.all++
	}
}

// choose takes from those that an earlier process had bound the socket that is to be bound now, and nil if none is.
func choose(kept []*sys.Socket, e instance.Endpoint) *sys.Socket {
	i := slices.IndexFunc(kept, func(s *sys.Socket) bool {
		return s.Netid == e.Netid && s.Addr == e.Addr && s.Path == e.Path && !s.DualStack
	})
	if i < 0 {
		return nil
	}
	return kept[i]
}

// leave gives up sockets that an earlier process had bound and nobody wants any more, before others are bound in their
// place.
func (k *keeper) leave(sockets []*sys.Socket) {
	for _, s := range sockets {
		if err := k.store.Forget(s); err != nil {
			k.failed(err)
		}
		s.Close()
	}
	if len(sockets) > 0 {
		k.settle()
	}
}

// settle waits until the service manager has done what it was told.
func (k *keeper) settle() {
	if err := k.store.Settle(settleLimit); err != nil {
		k.failed(err)
	}
}
