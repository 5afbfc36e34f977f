// Package portmapper is a portmapper to build into a program: for tests, and for appliances whose host has none. It is
// program 100000 in versions 2, 3 and 4 (RFC 1833), the same code that the daemon gportmap answers with, over a table in
// memory.
//
//	your server ── rpcbind.Register ─┐
//	                                 ├─ sockets ── portmapper ── table
//	your clients ── rpcbind.Dial ────┘
//
// In a test:
//
//	pm, err := portmapper.Start(ctx, "127.0.0.1:0")
//	defer pm.Close()
//	registrar := rpcbind.Registrar{Dial: pm.Dial}
//
// In a server that carries its own, where port 111 is free:
//
//	pm := portmapper.New(portmapper.Options{})
//	err := pm.Register(100003, 3, nfsListener)
//	err = pm.Start(ctx, ":111", rpcbind.SocketPath)
//
// What the daemon does besides is not here: a table on disk, socket activation, dropped privileges, a lock against a
// second portmapper, and remote calls: CALLIT and BCAST are not answered, INDIRECT is refused.
//
// On Linux the kernel tells who registers, as for the daemon, and by which interface a call arrived; on other systems
// callers are judged by their addresses alone, and what they register is owned by "unknown".
//
// # Limits
//
// A call has at most [MaxRecord] octets, a UDP reply to another host no more than its call, GETSTAT 8,000. TCP connections
// are bounded by [Options], and each costs a goroutine and 4 KiB; the table grows with what may register.
//
// # Compatibility
//
// Package oncrpc says what importers may rely on; it holds here as well. What is answered is what gportmap answers, and may
// get closer to RFC 1833 or safer with it.
package portmapper

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// Defaults of [Options], and limits.
const (
	// DefaultMaxConnections is how many TCP connections are held at a time.
	DefaultMaxConnections = 1024
	// DefaultIdleTimeout is after how long a TCP connection that brings no call is closed.
	DefaultIdleTimeout = 6 * time.Minute
	// MaxRecord is the size in octets of the largest call, rpcbind's limit.
	MaxRecord = 9000
	// writeTimeout is how long a client may take to read its replies.
	writeTimeout = 35 * time.Second
	// grace is how long that may take when the portmapper ends.
	grace = time.Second
	// interfacesEvery is how often the host's interfaces are looked at.
	interfacesEvery = 30 * time.Second
)

// ErrServed says that a Portmapper serves or has served already: it does so once.
var ErrServed = errors.New("portmapper: it serves or has served already")

// Options say how a [Portmapper] works. The zero value is good for a host's own portmapper.
type Options struct {
	// MayRegister tells whether a caller may SET and UNSET. Nil stands for what [Caller].OnThisHost says: callers on a local socket,
	// and those from 127.0.0.1 and ::1 that arrived on the loopback interface. It is called from several goroutines.
	MayRegister func(Caller) bool
	// Log takes a line when something is wrong with a socket. Nil: no log.
	Log *slog.Logger
	// MaxConnections is how many TCP connections are held at a time; one more closes the one that was idle longest.
	// Local connections don't count. 0 stands for [DefaultMaxConnections].
	MaxConnections int
	// IdleTimeout closes a TCP connection that brought no whole call for so long. Local connections may idle for ever,
	// as the kernel's does. 0 stands for [DefaultIdleTimeout].
	IdleTimeout time.Duration
}

// Caller is who sent a call: only what the kernel says, nothing that the call claims.
type Caller struct {
	Netid  rpcbind.Netid  // the transport
	Remote netip.AddrPort // the caller's address, zero on a local socket
	Local  netip.AddrPort // the address that the call was sent to, if it is known
	UID    uint32         // the caller's user on a local socket or a TCP connection over loopback, if HasUID is true
	HasUID bool
	// OnThisHost is the judgement that is passed without Options.MayRegister.
	OnThisHost bool
}

// A Portmapper keeps a table of registrations and answers calls. Its methods may be called from any number of
// goroutines.
type Portmapper struct {
	options  Options
	log      *slog.Logger
	table    *registry.Table
	portmap  *portmap.Portmapper
	access   access.Policy
	host     atomic.Pointer[host]
	served   atomic.Bool
	stopping atomic.Bool

	mu    sync.Mutex
	conns map[*conn]bool
	addrs []net.Addr // of the sockets served
	stop  context.CancelFunc
	ended chan struct{} // closed when what Start started has ended; err is set before
	err   error
}

// New returns a Portmapper with an empty table, which serves nothing yet: see [Portmapper.Start] and
// [Portmapper.Serve].
func New(o Options) *Portmapper {
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = DefaultIdleTimeout
	}
	p := &Portmapper{options: o, log: o.Log, table: registry.New(), conns: make(map[*conn]bool)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.host.Store(&host{})
	p.access.RootPort = rootPort
	p.access.OwnAddress = func(a netip.Addr) bool { return p.host.Load().own[a] }
	p.portmap = portmap.New(portmap.Config{
		Table:  p.table,
		Policy: policy{&p.access, p},
		Now:    func() uint32 { return uint32(time.Now().Unix()) },
	})
	return p
}

// policy is what a Portmapper's callers may.
type policy struct {
	*access.Policy
	p *Portmapper
}

func (y policy) MayRegister(from portmap.Caller) bool {
	local := y.Policy.MayRegister(from)
	if y.p.options.MayRegister == nil {
		return local
	}
	return y.p.options.MayRegister(Caller{
		Netid: from.Transport.Netid(), Remote: from.Remote, Local: from.Local,
		UID: from.UID, HasUID: from.HasUID, OnThisHost: local,
	})
}

// Register registers version vers of program prog at the addresses of its listeners, without a socket in between: see
// [rpcbind.Addresses] for what they may be. What is registered for that version on those transports is replaced. The
// owner is "superuser". It is all or nothing.
func (p *Portmapper) Register(prog, vers uint32, listeners ...any) error {
	list, err := rpcbind.Addresses(prog, vers, listeners...)
	if err != nil {
		return err
	}
	for _, b := range list {
		if _, err := registry.Validate(b); err != nil {
			return refused(b, err)
		}
	}
	for _, b := range list {
		p.Unregister(prog, vers, b.Netid)
		b.Owner = rpcbind.OwnerSuperuser
		if err := p.table.Set(b); err != nil {
			return refused(b, err)
		}
	}
	return nil
}

func refused(b rpcbind.RPCB, err error) error {
	return &rpcbind.Error{Op: "SET", About: b, Network: "table", Addr: b.Addr, Err: err}
}

// Unregister removes what is registered for a program, version and netid, with an empty netid for all, whoever registered
// it, except for the portmapper's own registrations. It returns how many there were.
func (p *Portmapper) Unregister(prog, vers uint32, netid rpcbind.Netid) int {
	covers := func(n rpcbind.Netid) bool { return netid == "" || n.Is(netid) }
	removed, err := p.table.Unset(prog, vers, covers, rpcbind.OwnerSuperuser)
	if err != nil {
		return 0
	}
	return removed
}

// Registrations returns all registrations in the order in which they came, the portmapper's own first.
func (p *Portmapper) Registrations() []rpcbind.RPCB {
	d := xdr.NewDecoder(xdr.AppendBool(p.table.RPCBs().Append(nil), false))
	return rpcbind.ReadRPCBList(&d, MaxRecord)
}
