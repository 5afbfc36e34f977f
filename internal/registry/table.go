// Package registry is the portmapper's table: which program, version and transport is at which address, in the
// order in which the registrations came.
//
// Lookups and dumps take no lock and wait for nobody; changes are made one at a time. What a lookup returns never
// changes afterwards.
package registry

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

var (
	// ErrTaken says that the program, version and netid are registered with another address.
	ErrTaken = errors.New("registered with another address")
	// ErrNotOwner says that a registration belongs to somebody else.
	ErrNotOwner = errors.New("registered by another owner")
	// ErrOwnEntry says that a registration is the portmapper's own and stays as long as it serves.
	ErrOwnEntry = errors.New("the portmapper's own registration")
)

// Entry is a registration. What is exported of it never changes after it was made. Keep a pointer, not a copy: the
// rest belongs to the table, which changes it.
type Entry struct {
	rpcbind.RPCB
	// IP is the address and port of Addr, if the netid is one of the four IP transports; else the zero value.
	IP netip.AddrPort
	// Own tells that the entry is the portmapper's own: nobody can UNSET it.
	Own bool

	slot int // index in Table.order; of interest to writers alone
}

// Table maps programs to addresses. Make one with [New]. All methods may be called at the same time.
type Table struct {
	index atomic.Pointer[index]

	mu     sync.Mutex // held by writers; readers need it only to encode a dump anew
	order  []*Entry   // by arrival; nil where an entry was removed
	holes  int        // nil entries in order
	random uint32     // odd; keeps the choice of programs from choosing the hash chains

	rpcbs    atomic.Pointer[[]byte] // elements of the rpcblist; nil if it has to be encoded anew
	mappings atomic.Pointer[[]byte] // elements of the pmaplist; the same
}

// New returns an empty table.
func New() *Table {
	t := &Table{random: rand.Uint32() | 1}
	t.index.Store(newIndex(minBuckets, t.random))
	return t
}

// Lookup returns the registration of a program, version and netid; if that version has none, the one that came
// last of the program's other versions on that netid; else nil. A caller of the wrong version thereby learns
// from the program itself which versions it serves (RFC 1833 section 2.2.1, GETADDR).
func (t *Table) Lookup(prog, vers uint32, netid rpcbind.Netid) *Entry {
	entries := t.index.Load().entries(prog)
	var last *Entry
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		if !e.Netid.Is(netid) {
			continue
		}
		if e.Version == vers {
			return e
		}
		if last == nil {
			last = e
		}
	}
	return last
}

// Program returns the registrations of a program in the order of their arrival. The slice must not be changed.
func (t *Table) Program(prog uint32) []*Entry { return t.index.Load().entries(prog) }

// Set registers b for b.Owner. Without an error it is registered: it already was, with the same address, or it is
// now, behind all others. The errors are [ErrTaken] and those of [Validate].
func (t *Table) Set(b rpcbind.RPCB) error {
	ip, err := Validate(b)
	if err != nil {
		return err
	}
	return t.add(&Entry{RPCB: b, IP: ip})
}

// SetOwn registers an address of the portmapper itself, as [Table.Set] does.
func (t *Table) SetOwn(b rpcbind.RPCB) error {
	ip, err := Validate(b)
	if err != nil {
		return err
	}
	return t.add(&Entry{RPCB: b, IP: ip, Own: true})
}

func (t *Table) add(e *Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.Lookup(e.Program, e.Version, e.Netid); old != nil && old.Version == e.Version {
		if old.Addr != e.Addr {
			return ErrTaken
		}
		return nil
	}
	e.slot = len(t.order)
	t.order = append(t.order, e)
	t.index.Store(t.index.Load().with(e))
	t.appendDumps(e)
	return nil
}

// Unset removes the registrations of a program and version on the netids that covers accepts, for an owner:
// "superuser" may remove every one, others only their own. It removes all or, with [ErrNotOwner] or
// [ErrOwnEntry], none. That there was nothing to remove is no error.
func (t *Table) Unset(prog, vers uint32, covers func(rpcbind.Netid) bool, owner string) (removed int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := func(e *Entry) bool { return e.Version == vers && covers(e.Netid) }
	entries := t.Program(prog)
	for _, e := range entries {
		switch {
		case !gone(e):
		case e.Own:
			return 0, ErrOwnEntry
		case owner != rpcbind.OwnerSuperuser && owner != e.Owner:
			return 0, ErrNotOwner
		default:
			removed++
		}
	}
	if removed == 0 {
		return 0, nil
	}
	kept := make([]*Entry, 0, len(entries)-removed)
	for _, e := range entries {
		if gone(e) {
			t.order[e.slot] = nil
			t.holes++
		} else {
			kept = append(kept, e)
		}
	}
	t.index.Load().replace(prog, kept)
	t.closeHoles()
	t.forgetDumps()
	return removed, nil
}

// closeHoles moves the entries together when more than half of their places are empty, so that the order takes
// memory in proportion to the entries and removing one costs the same in a table of any size.
func (t *Table) closeHoles() {
	if t.holes <= len(t.order)/2 {
		return
	}
	order := make([]*Entry, 0, len(t.order)-t.holes)
	for _, e := range t.order {
		if e != nil {
			e.slot = len(order)
			order = append(order, e)
		}
	}
	t.order, t.holes = order, 0
}

// Len returns the number of registrations.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.order) - t.holes
}
