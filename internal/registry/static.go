package registry

import "github.com/gportmap/gportmap/pkg/rpcbind"

// SetStatic makes regs the static registrations of the table, in place of those before. Callers can neither SET nor UNSET
// them, the journal never has them, and no limit counts them. A static registration takes the place of another one with the
// same program, version and netid; replaced are those. If one of regs can't be a registration, nothing changes: the errors are
// those of [Validate], and [ErrOwnEntry].
func (t *Table) SetStatic(regs []rpcbind.RPCB) (replaced []*Entry, err error) {
	wanted := make([]*Entry, len(regs))
	for i, b := range regs {
		ip, err := Validate(b)
		switch {
		case err != nil:
			return nil, err
		case b.Program == rpcbind.Program:
			return nil, ErrOwnEntry
		}
		b.Owner = rpcbind.OwnerStatic
		wanted[i] = newEntry(b, ip)
		wanted[i].Static = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	stay := make(map[*Entry]bool)
	for _, e := range wanted {
		old := t.exact(e.Program, e.Version, e.Netid)
		switch {
		case old != nil && old.Static && old.Addr == e.Addr:
			stay[old] = true
			continue
		case old != nil && !old.Static:
			replaced = append(replaced, old)
		}
		t.putStatic(e, old)
		stay[e] = true
	}
	t.blocks.each(func(e *Entry) {
		if e.Static && !stay[e] {
			wanted = append(wanted, e)
		}
	})
	for _, e := range wanted[len(regs):] {
		t.remove(e, nil)
		t.statics--
	}
	t.noteShrunk()
	return replaced, nil
}

// putStatic puts e in the place of old, which may be nil. The lock is held.
func (t *Table) putStatic(e, old *Entry) {
	e.Since = t.now()
	t.count(e, 1)
	t.statics++
	t.blocks.add(e)
	switch {
	case old != nil:
		t.remove(old, e)
		if old.Static {
			t.statics--
		} else {
			t.removeFromJournal([]*Entry{old}, false)
		}
	case e.kind == noKind:
		t.others.add(e)
	default:
		t.index.Store(t.index.Load().with(e))
	}
}
