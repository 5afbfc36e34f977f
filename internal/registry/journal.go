package registry

// Journal keeps the changes of a table, each before the change is answered. Its methods are called one at a time and
// return when the change is kept, or when it can't be: that a disk is full is no reason to refuse a registration, so it
// is for the journal to report and to catch up.
type Journal interface {
	// Append keeps a registration that came last: its element of the rpcblist and, if it has one, its element of the
	// pmaplist, encoded. False says that it couldn't; then everything is given to Rewrite once more. The octets are
	// valid only during the call.
	Append(rpcb, mapping []byte) bool
	// Remove keeps that registrations are gone, all of them or none. False is as for Append.
	Remove(r Removal) bool
	// Rewrite keeps both lists in place of everything kept before.
	Rewrite(rpcbs, mappings List)
}

// A Removal names registrations of a journal by the offsets, in octets, at which their elements begin in what was appended
// since, and with, the last Rewrite.
type Removal struct {
	RPCBs, Mappings []int64
	// Record, if not nil, is an element to append to the rpcblist: from the moment that it is kept, all of RPCBs are gone.
	// Without it there is one of them. See [Removed].
	Record []byte
}

// compactAbove is how many octets of removed elements a journal holds at least before it is written anew. Above that it
// holds as many as there are of registrations, so that a removal costs the same in a table of any size.
const compactAbove = 64 << 10

// kept is where the journal has an entry.
type kept struct {
	rpcb    uint32 // offset of its element in the rpcblist, below MaxJournal
	mapping uint32 // and in the pmaplist, if it has one
}

// journaled is what a table knows of its journal's lists.
type journaled struct {
	rpcbs, mappings int64 // octets in each
	removed         int64 // of rpcbs, those that are no registrations any more
}

// SetJournal lets j keep the table as it is and every change from now on.
func (t *Table) SetJournal(j Journal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.journal = j
	t.rewriteJournal()
}

// Save lets the journal keep the whole table once more, after it could not keep a change.
func (t *Table) Save() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rewriteJournal()
}

// Compact lets the journal forget what was removed, if it holds any of that: then its lists are the table's.
func (t *Table) Compact() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.journaled.removed > 0 {
		t.rewriteJournal()
	}
}

// appendJournal lets the journal keep e, which comes behind all others and which nobody sees yet. False says that the
// journal has to be written anew once e is in the table.
func (t *Table) appendJournal(e *Entry) bool {
	if t.journal == nil {
		return true
	}
	// One allocation in most cases: what a registration of an IP transport takes in both lists.
	const usual = 160
	element := appendElement(rpcbList, make([]byte, 0, usual), e)
	both := appendElement(mappingList, element, e)
	t.place(e)
	return t.journal.Append(element, both[len(element):])
}

// place notes where the journal has e: behind everything else.
func (t *Table) place(e *Entry) {
	j := &t.journaled
	e.kept = kept{rpcb: uint32(j.rpcbs), mapping: uint32(j.mappings)}
	j.rpcbs += int64(elementSize(rpcbList, e))
	j.mappings += int64(elementSize(mappingList, e))
}

// removeFromJournal lets the journal forget entries of one program and version that were just taken out of the table; all tells
// that it has no others.
func (t *Table) removeFromJournal(gone []*Entry, all bool) {
	if t.journal == nil {
		return
	}
	r := Removal{}
	j := &t.journaled
	for _, e := range gone {
		r.RPCBs = append(r.RPCBs, int64(e.kept.rpcb))
		if elementSize(mappingList, e) > 0 {
			r.Mappings = append(r.Mappings, int64(e.kept.mapping))
		}
		j.removed += int64(e.element())
	}
	fits := true
	if len(gone) > 1 {
		r.Record, fits = removalRecord(gone, all)
		j.rpcbs += int64(len(r.Record))
		j.removed += int64(len(r.Record))
	}
	if !fits || j.removed > compactAbove && j.removed > j.rpcbs/2 || !t.journal.Remove(r) {
		t.rewriteJournal()
	}
}

// rewriteJournal gives the journal both lists as they are, without the static registrations.
func (t *Table) rewriteJournal() {
	if t.journal == nil {
		return
	}
	t.journaled = journaled{}
	if t.statics == 0 {
		t.blocks.each(t.place)
		t.journal.Rewrite(t.blocks.encode(rpcbList, false), t.blocks.encode(mappingList, false))
		return
	}
	var lists [kindsOfList][]byte
	t.blocks.each(func(e *Entry) {
		if e.Static {
			return
		}
		t.place(e)
		for which := range lists {
			lists[which] = appendElement(which, lists[which], e)
		}
	})
	t.journal.Rewrite(ListOf(lists[rpcbList]), ListOf(lists[mappingList]))
}
