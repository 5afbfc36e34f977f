package registry

import "github.com/gportmap/gportmap/pkg/rpcbind"

// Limits bound a table; a zero field is no bound. What is registered already stays, and counts.
type Limits struct {
	// Entries is the number of registrations in all, without the portmapper's own.
	Entries int
	// Reserve is how many of these only "superuser" may have. It may have so many also where the others' are more than they
	// may be, as after a restart with a lower limit.
	Reserve int
	// PerOwner is the number of registrations of each owner other than "superuser".
	PerOwner int
	// Octets is the length of a netid and that of an address.
	Octets int
}

// SetLimits bounds the registrations that come from now on.
func (t *Table) SetLimits(l Limits) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits = l
}

// room returns nil if one more entry may come. The lock is held.
func (t *Table) room(e *Entry) error {
	l := t.limits
	if l.Octets > 0 && max(len(e.Netid), len(e.Addr)) > l.Octets {
		return ErrTooLong
	}
	if e.Own {
		return nil
	}
	entries := l.Entries
	if e.Owner != rpcbind.OwnerSuperuser {
		if l.PerOwner > 0 && t.owned[e.Owner] >= l.PerOwner {
			return ErrFull
		}
		entries = max(1, entries-l.Reserve)
	}
	if l.Entries > 0 && t.total() >= entries && (e.Owner != rpcbind.OwnerSuperuser || t.owned[e.Owner] >= l.Reserve) {
		return ErrFull
	}
	return nil
}

// total returns the number of registrations without the portmapper's own. The lock is held.
func (t *Table) total() int { return len(t.order) - t.holes - t.own }

// count takes note of an entry that comes, or of one that goes. The lock is held.
func (t *Table) count(e *Entry, change int) {
	if e.Own {
		t.own += change
		return
	}
	if t.owned[e.Owner] += change; t.owned[e.Owner] == 0 {
		delete(t.owned, e.Owner)
	}
}
