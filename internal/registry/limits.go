package registry

import (
	"strconv"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// What is written, kept and sent is bounded by the same constants where it is read.
const (
	// MaxString is the length of the longest netid or address in octets, in calls, in the table and in the state files.
	MaxString = 9000
	// MaxOctets is the size of the largest list, encoded.
	MaxOctets = 64 << 20
	// MaxJournal is the size of the largest list that a journal has: as much as the largest table, as much of what was removed,
	// and what one change adds.
	MaxJournal = 2*MaxOctets + compactAbove + 8*MaxString
)

// Limits bound a table; a zero field is no bound. What is registered already stays, and counts.
type Limits struct {
	// Entries is the number of registrations in all, without the portmapper's own and static ones.
	Entries int
	// Reserve is how many of these only "superuser" and system users may have, half of them "superuser" alone. The superuser may
	// have its half also where the others' are more than they may be, as after a restart with a lower limit.
	Reserve int
	// SystemUID is the largest uid of a system user.
	SystemUID uint32
	// PerOwner is the number of registrations of each owner other than "superuser".
	PerOwner int
	// Octets is the length of a netid and that of an address, MaxString at most.
	Octets int
}

// held is what an owner has.
type held struct {
	owner   string // which all its entries share
	entries int
}

// SetLimits bounds the registrations that come from now on.
func (t *Table) SetLimits(l Limits) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits = l
}

// room returns nil if one more entry may come. The lock is held.
func (t *Table) room(e *Entry) error {
	if err := t.length(e, 0); err != nil || e.Own {
		return err
	}
	l := t.limits
	entries, has := l.Entries, 0
	if owned := t.owned[e.Owner]; owned != nil {
		has = owned.entries
	}
	if e.Owner != rpcbind.OwnerSuperuser {
		if l.PerOwner > 0 && has >= l.PerOwner {
			return ErrFull
		}
		reserve := l.Reserve
		if l.system(e.Owner) {
			reserve /= 2
		}
		entries = max(1, entries-reserve)
	}
	if l.Entries > 0 && t.total() >= entries && (e.Owner != rpcbind.OwnerSuperuser || has >= l.Reserve/2) {
		return ErrFull
	}
	return nil
}

// length returns nil if the strings of an entry may be so long, also together with those of all others, of which so many
// octets are about to go.
func (t *Table) length(e *Entry, going int) error {
	limit := MaxString
	if l := t.limits.Octets; l > 0 {
		limit = min(l, limit)
	}
	switch {
	case max(len(e.Netid), len(e.Addr), len(e.Owner)) > limit:
		return ErrTooLong
	case t.RPCBOctets()-going+e.element() > MaxOctets:
		return ErrFull
	}
	return nil
}

// element returns how many octets e has in the rpcblist.
func (e *Entry) element() int { return elementSize(rpcbList, e) }

// system tells whether an owner is a system user, whose services come with the system.
func (l Limits) system(owner string) bool {
	uid, err := strconv.ParseUint(owner, 10, 32)
	return err == nil && uid <= uint64(l.SystemUID)
}

// total returns the number of registrations without the portmapper's own and static ones. The lock is held.
func (t *Table) total() int { return t.blocks.count() - t.own }

// count takes note of an entry that comes, or of one that goes. The lock is held.
func (t *Table) count(e *Entry, change int) {
	if e.Own || e.Static {
		t.own += change
		return
	}
	has := t.owned[e.Owner]
	if has == nil {
		has = &held{owner: e.Owner}
		t.owned[e.Owner] = has
	}
	if change > 0 {
		e.Owner = has.owner
	}
	if has.entries += change; has.entries == 0 {
		delete(t.owned, e.Owner)
	}
}
