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
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

var (
	// ErrTaken says that the program, version and netid are registered with another address.
	ErrTaken = errors.New("registered with another address")
	// ErrNotOwner says that a registration belongs to somebody else.
	ErrNotOwner = errors.New("registered by another owner")
	// ErrFull says that a bound of [Limits] is reached.
	ErrFull = errors.New("as many registrations as are allowed")
	// ErrTooLong says that a netid or an address is longer than [Limits] allow.
	ErrTooLong = errors.New("netid or address is too long")
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
	// Since is when it was registered, by the table's clock; 0 for what came before the table had one.
	Since uint32

	slot int  // index in Table.order; of interest to writers alone
	kept kept // the same
}

// Table maps programs to addresses. Make one with [New]. All methods may be called at the same time.
type Table struct {
	index atomic.Pointer[index]

	mu     sync.Mutex // held by writers; readers need it only to encode a dump anew
	order  []*Entry   // by arrival; nil where an entry was removed
	holes  int        // nil entries in order
	limits Limits
	own    int            // entries that are our own
	owned  map[string]int // all others, by owner
	random uint32         // odd; keeps the choice of programs from choosing the hash chains

	rpcbs    atomic.Pointer[[]byte] // elements of the rpcblist; nil if it has to be encoded anew
	mappings atomic.Pointer[[]byte] // elements of the pmaplist; the same

	journal   Journal // keeps every change; nil if nothing does
	journaled journaled
	now       func() uint32
}

// New returns an empty table.
func New() *Table {
	t := &Table{random: rand.Uint32() | 1, now: func() uint32 { return 0 }, owned: make(map[string]int)}
	t.index.Store(newIndex(minBuckets, t.random))
	return t
}

// Reserve makes room for so many programs, before they are registered one after the other.
func (t *Table) Reserve(programs int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.index.Load()
	buckets := len(x.buckets)
	for buckets < programs {
		buckets *= 2
	}
	if buckets > len(x.buckets) {
		t.index.Store(x.grown(buckets))
	}
	t.order = slices.Grow(t.order, programs)
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
// now, behind all others. The errors are [ErrTaken], [ErrFull], [ErrTooLong] and those of [Validate].
func (t *Table) Set(b rpcbind.RPCB) error {
	ip, err := Validate(b)
	if err != nil {
		return err
	}
	return t.add(&Entry{RPCB: shared(b), IP: ip})
}

// shared returns b with the netids and owners that most registrations have as the constants that they are, so that not
// every entry has a copy of its own.
func shared(b rpcbind.RPCB) rpcbind.RPCB {
	for _, n := range [...]rpcbind.Netid{rpcbind.UDP, rpcbind.TCP, rpcbind.UDP6, rpcbind.TCP6, rpcbind.Local} {
		if b.Netid == n {
			b.Netid = n
		}
	}
	for _, owner := range [...]string{rpcbind.OwnerSuperuser, rpcbind.OwnerUnknown} {
		if b.Owner == owner {
			b.Owner = owner
		}
	}
	return b
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
	if old := t.exact(e); old != nil {
		if old.Addr != e.Addr {
			return ErrTaken
		}
		return nil
	}
	if err := t.room(e); err != nil {
		return err
	}
	t.keep(e)
	return nil
}

// keep puts e behind all others, and into the journal before anybody sees it. The lock is held.
func (t *Table) keep(e *Entry) {
	e.Since = t.now()
	whole := t.appendJournal(e)
	t.count(e, 1)
	e.slot = len(t.order)
	t.order = append(t.order, e)
	t.index.Store(t.index.Load().with(e))
	t.appendDumps(e)
	if !whole {
		t.rewriteJournal()
	}
}

// Replace registers b in the place of old, which stood in the way of [Table.Set] and whose server is gone; b then comes
// behind all others. Without an error it is registered. Only the owner of old and "superuser" may: the errors are
// [ErrNotOwner], [ErrOwnEntry], those of [Validate], and [ErrTaken] if meanwhile yet another address took old's place.
func (t *Table) Replace(old *Entry, b rpcbind.RPCB) error {
	ip, err := Validate(b)
	if err != nil {
		return err
	}
	e := &Entry{RPCB: shared(b), IP: ip}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch now := t.exact(e); {
	case now == nil: // unregistered meanwhile
		if err := t.room(e); err != nil {
			return err
		}
		t.keep(e)
		return nil
	case now.Addr == e.Addr:
		return nil
	case now != old:
		return ErrTaken
	}
	if err := old.RemovableBy(b.Owner); err != nil {
		return err
	}
	// The new one first: until the old one is gone from the journal that one counts.
	whole := t.appendJournal(e)
	t.remove(e.Program, func(x *Entry) bool { return x == old }, e)
	if whole {
		t.removeFromJournal([]*Entry{old})
	} else {
		t.rewriteJournal()
	}
	return nil
}

// exact returns the entry of the program, version and netid of e, or nil.
func (t *Table) exact(e *Entry) *Entry {
	if found := t.Lookup(e.Program, e.Version, e.Netid); found != nil && found.Version == e.Version {
		return found
	}
	return nil
}

// RemovableBy returns nil if an owner may remove e: "superuser" every one but the portmapper's own, others only theirs.
// The errors are [ErrNotOwner] and [ErrOwnEntry].
func (e *Entry) RemovableBy(owner string) error {
	switch {
	case e.Own:
		return ErrOwnEntry
	case owner != rpcbind.OwnerSuperuser && owner != e.Owner:
		return ErrNotOwner
	}
	return nil
}

// Unset removes the registrations of a program and version on the netids that covers accepts, for an owner:
// "superuser" may remove every one, others only their own. It removes all or, with [ErrNotOwner] or
// [ErrOwnEntry], none. That there was nothing to remove is no error.
func (t *Table) Unset(prog, vers uint32, covers func(rpcbind.Netid) bool, owner string) (removed int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := func(e *Entry) bool { return e.Version == vers && covers(e.Netid) }
	for _, e := range t.Program(prog) {
		if !gone(e) {
			continue
		}
		if err := e.RemovableBy(owner); err != nil {
			return 0, err
		}
		removed++
	}
	if removed > 0 {
		t.removeFromJournal(t.remove(prog, gone, nil))
	}
	return removed, nil
}

// remove takes the entries of a program for which gone is true out of the table, and returns them; unless next is nil it puts
// that one of the same program behind all others, in one step for those who look up. The lock is held.
func (t *Table) remove(prog uint32, gone func(*Entry) bool, next *Entry) (removed []*Entry) {
	var kept []*Entry
	for _, e := range t.Program(prog) {
		if gone(e) {
			t.order[e.slot] = nil
			t.holes++
			t.count(e, -1)
			removed = append(removed, e)
		} else {
			kept = append(kept, e)
		}
	}
	if next != nil {
		next.Since = t.now()
		t.count(next, 1)
		next.slot = len(t.order)
		t.order = append(t.order, next)
		kept = append(kept, next)
	}
	t.index.Load().replace(prog, kept)
	t.closeHoles()
	t.forgetDumps()
	return removed
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

// SetClock lets the table note when what comes from now on is registered, in seconds since 1970.
func (t *Table) SetClock(now func() uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = now
}

// Entries returns the registrations in the order of their arrival.
func (t *Table) Entries() []*Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Entry, 0, len(t.order)-t.holes)
	for _, e := range t.order {
		if e != nil {
			all = append(all, e)
		}
	}
	return all
}

// Len returns the number of registrations.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.order) - t.holes
}
