// Package registry is the portmapper's table: which program, version and transport is at which address, in the
// order in which the registrations came.
//
// Lookups wait for no change; changes are made one at a time. What a lookup returns never changes afterwards.
package registry

import (
	"cmp"
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
	// ErrStatic says that the configuration has a registration, which no caller changes.
	ErrStatic = errors.New("a static registration of the configuration")
)

// Entry is a registration. What is exported of it never changes after it was made. Keep a pointer, not a copy: the
// rest belongs to the table, which changes it.
type Entry struct {
	rpcbind.RPCB
	// IP is the address and port of Addr, if the netid is one of the four IP transports; else the zero value.
	IP netip.AddrPort
	// Since is when it was registered, by the table's clock; 0 for what came before the table had one.
	Since uint32
	// Own tells that the entry is the portmapper's own: nobody can UNSET it.
	Own bool
	// Static tells that the entry comes from the configuration: see [Table.SetStatic].
	Static bool

	kind    kind
	gone    bool // of interest to writers alone, as what follows
	kept    kept
	arrival uint64 // rises in the order of arrival
}

// Table maps programs to addresses. Make one with [New]. All methods may be called at the same time.
type Table struct {
	index atomic.Pointer[index]

	mu      sync.Mutex // held by writers; readers need it only to encode a list, and for netids that nobody looks up
	blocks  blocks     // by arrival
	others  others
	limits  Limits
	statics int
	own     int              // entries that are our own, or static
	owned   map[string]*held // all others, by owner

	journal   Journal // keeps every change; nil if nothing does
	journaled journaled
	now       func() uint32
	shrunk    func() // called with the lock held; nil if nobody wants to know
}

// New returns an empty table.
func New() *Table {
	t := &Table{now: func() uint32 { return 0 }, owned: make(map[string]*held)}
	// A random multiplier keeps the choice of programs from choosing the hash chains.
	t.index.Store(newIndex(minBuckets, rand.Uint64()|1))
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
		t.index.Store(x.sized(buckets))
	}
}

// Lookup returns the registration of a program, version and netid; if that version has none, the one that came last of the
// program's other versions on that netid; else nil. A caller of the wrong version thereby learns from the program itself which
// versions it serves (RFC 1833 section 2.2.1, GETADDR). On other netids than the five that callers come by there is only the
// exact version, and a Lookup may wait for a change.
func (t *Table) Lookup(prog, vers uint32, netid rpcbind.Netid) *Entry {
	k := kindOf(netid)
	if k == noKind {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.others.find(prog, vers, netid)
	}
	if n := t.index.Load().find(prog, k); n != nil {
		return n.entry(vers)
	}
	return nil
}

// Port is Lookup for who wants no more than the port and whether it is that of the very version. For a program with one
// registration on the netid, one of "tcp" and "udp", it reads one node.
func (t *Table) Port(prog, vers uint32, netid rpcbind.Netid) (port uint16, exact bool) {
	n := t.index.Load().find(prog, kindOf(netid))
	switch {
	case n == nil:
		return 0, false
	case n.vers == vers || n.all == nil:
		return n.port, n.vers == vers
	}
	e := n.entry(vers)
	return e.IP.Port(), e.Version == vers
}

// Versions returns the lowest and the highest version of a program on one of the five netids that callers come by, and false if
// there is none.
func (t *Table) Versions(prog uint32, netid rpcbind.Netid) (low, high uint32, ok bool) {
	n := t.index.Load().find(prog, kindOf(netid))
	switch {
	case n == nil:
		return 0, 0, false
	case n.all == nil:
		return n.vers, n.vers, true
	}
	low, high = n.all.span()
	return low, high, true
}

// Version returns the registrations of a program and version on every netid, in the order of their arrival. It may wait for a
// change.
func (t *Table) Version(prog, vers uint32) []*Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := t.version(prog, vers)
	slices.SortFunc(entries, func(a, b *Entry) int { return cmp.Compare(a.arrival, b.arrival) })
	return entries
}

// version is Version with the lock held, and in no order.
func (t *Table) version(prog, vers uint32) (entries []*Entry) {
	for k := range noKind {
		if e := t.exact(prog, vers, netids[k]); e != nil {
			entries = append(entries, e)
		}
	}
	for o := t.others.first[programVersion{prog, vers}]; o != nil; o = o.next {
		entries = append(entries, o.Entry)
	}
	return entries
}

// Before tells whether e came before other.
func (e *Entry) Before(other *Entry) bool { return e.arrival < other.arrival }

// Set registers b for b.Owner. Without an error it is registered: it already was, with the same address, or it is
// now, behind all others. The errors are [ErrTaken], [ErrFull], [ErrTooLong] and those of [Validate].
func (t *Table) Set(b rpcbind.RPCB) error {
	ip, err := Validate(b)
	if err != nil {
		return err
	}
	return t.add(newEntry(b, ip))
}

// newEntry returns an entry whose netid is the constant that most are, so that not every entry has a copy of its own.
func newEntry(b rpcbind.RPCB, ip netip.AddrPort) *Entry {
	e := &Entry{RPCB: b, IP: ip, kind: kindOf(b.Netid)}
	if e.kind != noKind && b.Netid == netids[e.kind] {
		e.Netid = netids[e.kind]
	}
	return e
}

// SetOwn registers an address of the portmapper itself, as [Table.Set] does.
func (t *Table) SetOwn(b rpcbind.RPCB) error {
	ip, err := Validate(b)
	if err != nil {
		return err
	}
	e := newEntry(b, ip)
	e.Own = true
	return t.add(e)
}

func (t *Table) add(e *Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.exact(e.Program, e.Version, e.Netid); old != nil {
		switch {
		case old.Static:
			return ErrStatic
		case old.Addr != e.Addr:
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
	t.count(e, 1)
	whole := t.appendJournal(e)
	t.blocks.add(e)
	if e.kind == noKind {
		t.others.add(e)
	} else {
		t.index.Store(t.index.Load().with(e))
	}
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
	e := newEntry(b, ip)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch now := t.exact(e.Program, e.Version, e.Netid); {
	case now == nil: // unregistered meanwhile
		if err := t.room(e); err != nil {
			return err
		}
		t.keep(e)
		return nil
	case now.Static:
		return ErrStatic
	case now.Addr == e.Addr:
		return nil
	case now != old:
		return ErrTaken
	}
	if err := old.RemovableBy(b.Owner); err != nil {
		return err
	}
	if err := t.length(e, old.element()); err != nil {
		return err
	}
	// The new one first: until the old one is gone from the journal that one counts.
	e.Since = t.now()
	t.count(e, 1)
	whole := t.appendJournal(e)
	t.blocks.add(e)
	t.remove(old, e)
	if whole {
		t.removeFromJournal([]*Entry{old}, false)
	} else {
		t.rewriteJournal()
	}
	return nil
}

// exact returns the entry of the program, version and netid, or nil. The lock is held.
func (t *Table) exact(prog, vers uint32, netid rpcbind.Netid) *Entry {
	k := kindOf(netid)
	if k == noKind {
		return t.others.find(prog, vers, netid)
	}
	n := t.index.Load().find(prog, k)
	if n == nil {
		return nil
	}
	if e := n.entry(vers); e.Version == vers {
		return e
	}
	return nil
}

// RemovableBy returns nil if an owner may remove e: "superuser" every one but the portmapper's own and static ones,
// others only theirs. The errors are [ErrNotOwner], [ErrOwnEntry] and [ErrStatic].
func (e *Entry) RemovableBy(owner string) error {
	switch {
	case e.Own:
		return ErrOwnEntry
	case e.Static:
		return ErrStatic
	case owner != rpcbind.OwnerSuperuser && owner != e.Owner:
		return ErrNotOwner
	}
	return nil
}

// Unset removes the registrations of a program and version on the netids that covers accepts, for an owner:
// "superuser" may remove every one, others only their own. It removes all or, with an error of
// [Entry.RemovableBy], none. That there was nothing to remove is no error.
func (t *Table) Unset(prog, vers uint32, covers func(rpcbind.Netid) bool, owner string) (removed int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []*Entry
	all := t.version(prog, vers)
	for _, e := range all {
		if !covers(e.Netid) {
			continue
		}
		if err := e.RemovableBy(owner); err != nil {
			return 0, err
		}
		gone = append(gone, e)
	}
	for _, e := range gone {
		t.remove(e, nil)
	}
	t.noteShrunk()
	if len(gone) > 0 {
		t.removeFromJournal(gone, len(gone) == len(all))
	}
	return len(gone), nil
}

// muchShrunk is how many registrations a table had at least that is worth to be told when half of them are gone.
const muchShrunk = 4096

// OnShrunk has f called whenever half of a large table is gone, and so has memory that can be given back. It may not use the
// table.
func (t *Table) OnShrunk(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shrunk = f
}

// noteShrunk is called after a removal, with the lock held.
func (t *Table) noteShrunk() {
	b := &t.blocks
	if n := b.count(); b.most >= muchShrunk && n < b.most/2 && t.shrunk != nil {
		b.most = n
		t.shrunk()
	}
}

// remove takes e out of the table; unless next is nil, that one takes its place in the same step for those who look up. The
// lock is held.
func (t *Table) remove(e, next *Entry) {
	t.count(e, -1)
	t.blocks.remove(e)
	if e.kind != noKind {
		t.index.Store(t.index.Load().without(e, next))
		return
	}
	t.others.remove(e)
	if next != nil {
		t.others.add(next)
	}
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
	all := make([]*Entry, 0, t.blocks.count())
	t.blocks.each(func(e *Entry) { all = append(all, e) })
	return all
}

// Len returns the number of registrations. It never waits.
func (t *Table) Len() int { return t.blocks.count() }
