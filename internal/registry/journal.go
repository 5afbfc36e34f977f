package registry

// Journal keeps the changes of a table, each before the change is answered. Its methods are called one at a time and
// return when the change is kept, or when it can't be: that a disk is full is no reason to refuse a registration, so it
// is for the journal to report and to catch up.
type Journal interface {
	// Append keeps a registration that came last: its element of the rpcblist and, if it has one, its element of the
	// pmaplist, encoded. False says that it couldn't; then everything is given to Rewrite once more. The octets are
	// valid only during the call.
	Append(rpcb, mapping []byte) bool
	// Rewrite keeps the encoded elements of both lists in place of everything kept before. They must not be changed.
	Rewrite(rpcbs, mappings []byte)
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

// appendJournal lets the journal keep e, which comes behind all others and which nobody sees yet.
func (t *Table) appendJournal(e *Entry) (kept bool) {
	if t.journal == nil {
		return true
	}
	// One allocation in most cases: what a registration of an IP transport takes in both lists.
	const usual = 160
	element := appendRPCB(make([]byte, 0, usual), e)
	both := appendMapping(element, e)
	return t.journal.Append(element, both[len(element):])
}

func (t *Table) rewriteJournal() {
	if t.journal != nil {
		t.journal.Rewrite(t.encode(&t.rpcbs, appendRPCB), t.encode(&t.mappings, appendMapping))
	}
}
