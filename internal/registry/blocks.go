package registry

import (
	"slices"
	"sort"
	"sync/atomic"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// The registrations stand in blocks, in the order of their arrival. Each block keeps its part of DUMP's lists encoded once
// somebody asked for it. A new registration is appended to the last block; a removal throws away what one block has encoded. So a
// change costs the same in a table of any size, and who still reads an older list holds no more than the blocks that changed
// since. Appending in place is safe: a reader's slice ends before the new element, and only the newest slice is ever
// appended to.
type block struct {
	entries []*Entry // by arrival; never empty
	octets  int      // of their elements in the rpcblist
	lists   [kindsOfList][]byte
}

const (
	// blockEntries and blockOctets bound a block that is appended to.
	blockEntries = 512
	blockOctets  = 32 << 10
)

// The lists.
const (
	rpcbList    = iota // of versions 3 and 4: rpcblist
	mappingList        // of version 2: pmaplist, with the registrations on tcp and udp
	kindsOfList
)

// A List is the encoded elements of one of DUMP's lists, without the word 0 that ends it. Neither its parts, which are never
// empty, nor their octets may be changed.
type List struct {
	Parts  [][]byte
	Octets int
}

// ListOf returns a list of encoded elements that stand side by side.
func ListOf(elements []byte) List {
	if len(elements) == 0 {
		return List{}
	}
	return List{[][]byte{elements}, len(elements)}
}

// Append appends the list in one piece.
func (l List) Append(dst []byte) []byte {
	for _, part := range l.Parts {
		dst = append(dst, part...)
	}
	return dst
}

// RPCBs returns the table as versions 3 and 4 dump it: the elements of an rpcblist in the order of their arrival.
func (t *Table) RPCBs() List { return t.list(rpcbList) }

// Mappings returns the table as version 2 dumps it: the elements of a pmaplist, which has the registrations on tcp and udp.
func (t *Table) Mappings() List { return t.list(mappingList) }

// RPCBOctets and MappingOctets return how many octets these lists have, without encoding them. They never wait.
func (t *Table) RPCBOctets() int    { return int(t.blocks.octets[rpcbList].Load()) }
func (t *Table) MappingOctets() int { return int(t.blocks.octets[mappingList].Load()) }

// Encoded tells whether both lists are there, so that nobody who asks for them waits.
func (t *Table) Encoded() bool {
	return t.blocks.lists[rpcbList].Load() != nil && t.blocks.lists[mappingList].Load() != nil
}

// blocks are all of them. They are used with the table's lock held, but for what is atomic.
type blocks struct {
	list    []*block
	arrived uint64 // how many registrations ever came
	octets  [kindsOfList]atomic.Int64
	entries atomic.Int64
	most    int                               // entries since memory was last given back
	lists   [kindsOfList]atomic.Pointer[List] // nil since the last change
}

func (t *Table) list(which int) List {
	if l := t.blocks.lists[which].Load(); l != nil {
		return *l
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for which := range kindsOfList {
		l := t.blocks.encode(which, true)
		t.blocks.lists[which].Store(&l)
	}
	return *t.blocks.lists[which].Load()
}

// encode returns a list. What had to be encoded for it is kept if keep is true.
func (b *blocks) encode(which int, keep bool) List {
	l := List{Octets: int(b.octets[which].Load())}
	if l.Octets == 0 {
		return l
	}
	l.Parts = make([][]byte, 0, len(b.list))
	for _, k := range b.list {
		part := k.lists[which]
		if part == nil {
			size := 0
			for _, e := range k.entries {
				size += elementSize(which, e)
			}
			part = make([]byte, 0, size)
			for _, e := range k.entries {
				part = appendElement(which, part, e)
			}
			if keep {
				k.lists[which] = part
			}
		}
		if len(part) > 0 {
			l.Parts = append(l.Parts, part)
		}
	}
	return l
}

// add puts e behind all others.
func (b *blocks) add(e *Entry) {
	b.arrived++
	e.arrival = b.arrived
	b.note(e, 1)
	size := elementSize(rpcbList, e)
	n := len(b.list)
	if n == 0 || len(b.list[n-1].entries) >= blockEntries || b.list[n-1].octets+size > blockOctets {
		b.list = append(b.list, &block{entries: []*Entry{e}, octets: size})
		return
	}
	last := b.list[n-1]
	last.entries = append(last.entries, e)
	last.octets += size
	for which, part := range last.lists {
		if part != nil {
			last.lists[which] = appendElement(which, part, e)
		}
	}
}

// remove takes e out.
func (b *blocks) remove(e *Entry) {
	b.note(e, -1)
	at := sort.Search(len(b.list), func(i int) bool { return b.list[i].entries[0].arrival > e.arrival }) - 1
	k := b.list[at]
	i := sort.Search(len(k.entries), func(i int) bool { return k.entries[i].arrival >= e.arrival })
	k.entries = slices.Delete(k.entries, i, i+1) // which clears the place behind
	k.octets -= elementSize(rpcbList, e)
	k.lists = [kindsOfList][]byte{}
	if len(k.entries) == 0 {
		b.list = slices.Delete(b.list, at, at+1)
	}
	// Many small blocks become few again. What that costs was paid for by as many removals.
	if most := 4 + 4*int(b.octets[rpcbList].Load())/blockOctets + 4*b.count()/blockEntries; len(b.list) > most {
		old := b.list
		b.list = nil
		for _, k := range old {
			b.merge(k)
		}
	}
}

// merge puts a block behind all others, with the last one if both fit in one.
func (b *blocks) merge(k *block) {
	if n := len(b.list); n > 0 {
		if last := b.list[n-1]; len(last.entries)+len(k.entries) <= blockEntries && last.octets+k.octets <= blockOctets {
			last.entries = append(last.entries, k.entries...)
			last.octets += k.octets
			last.lists = [kindsOfList][]byte{}
			return
		}
	}
	k.entries = slices.Clone(k.entries)
	b.list = append(b.list, k)
}

// note counts an entry that comes or goes.
func (b *blocks) note(e *Entry, change int) {
	b.most = max(b.most, int(b.entries.Add(int64(change))))
	for which := range b.octets {
		b.octets[which].Add(int64(change * elementSize(which, e)))
		b.lists[which].Store(nil)
	}
}

// count returns how many entries there are.
func (b *blocks) count() int { return int(b.entries.Load()) }

// each calls f with every entry in the order of arrival.
func (b *blocks) each(f func(*Entry)) {
	for _, k := range b.list {
		for _, e := range k.entries {
			f(e)
		}
	}
}

// elementSize returns how many octets the element of e has in a list: 0 if it has none.
func elementSize(which int, e *Entry) int {
	if which == rpcbList {
		return xdr.Unit + e.Size()
	}
	if _, ok := e.Netid.Prot(); !ok {
		return 0
	}
	return xdr.Unit + rpcbind.MappingSize
}

func appendElement(which int, dst []byte, e *Entry) []byte {
	if which == rpcbList {
		return rpcbind.AppendRPCBElement(dst, e.RPCB)
	}
	prot, ok := e.Netid.Prot()
	if !ok {
		return dst
	}
	return rpcbind.AppendMappingElement(dst, rpcbind.Mapping{
		Program: e.Program, Version: e.Version, Prot: prot, Port: uint32(e.IP.Port()),
	})
}
