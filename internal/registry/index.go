package registry

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// minBuckets is the size of an empty table's index: more programs than most hosts have.
const minBuckets = 64

// index finds the entries of a program. Readers follow atomic pointers to nodes that never change; the one writer
// puts new nodes in their place.
type index struct {
	buckets  []atomic.Pointer[node] // a power of two of them
	shift    uint                   // takes a 32-bit product to a bucket
	random   uint32                 // odd multiplier
	programs int                    // of interest to the writer alone
}

// node is a program in the chain of a bucket.
type node struct {
	prog    uint32
	entries []*Entry // by arrival; never empty
	next    *node
}

func newIndex(buckets int, random uint32) *index {
	return &index{
		buckets: make([]atomic.Pointer[node], buckets),
		shift:   uint(32 - bits.TrailingZeros(uint(buckets))),
		random:  random,
	}
}

func (x *index) bucket(prog uint32) *atomic.Pointer[node] {
	return &x.buckets[prog*x.random>>x.shift]
}

func (x *index) entries(prog uint32) []*Entry {
	for n := x.bucket(prog).Load(); n != nil; n = n.next {
		if n.prog == prog {
			return n.entries
		}
	}
	return nil
}

// with adds an entry behind those of its program and returns the index that has it: x itself, or one twice its
// size, which it takes over from x when the chains get long.
func (x *index) with(e *Entry) *index {
	old := x.entries(e.Program)
	if old == nil && x.programs >= len(x.buckets) {
		x = x.grown(2 * len(x.buckets))
	}
	// Appending in place is safe: a reader's slice ends before the new element, and only the newest slice of a
	// program is ever appended to.
	x.replace(e.Program, append(old, e))
	return x
}

// replace puts entries in the place of those of prog; none takes the program out.
func (x *index) replace(prog uint32, entries []*Entry) {
	b := x.bucket(prog)
	var before []*node // what stands before prog in its chain, and has to be linked anew
	n := b.Load()
	for n != nil && n.prog != prog {
		before = append(before, n)
		n = n.next
	}
	if n == nil {
		if len(entries) > 0 {
			x.programs++
			b.Store(&node{prog: prog, entries: entries, next: b.Load()})
		}
		return
	}
	chain := n.next
	if len(entries) > 0 {
		chain = &node{prog: prog, entries: entries, next: chain}
	} else {
		x.programs--
	}
	for _, m := range slices.Backward(before) {
		chain = &node{prog: m.prog, entries: m.entries, next: chain}
	}
	b.Store(chain)
}

// grown returns an index of so many buckets with what is in x.
func (x *index) grown(buckets int) *index {
	y := newIndex(buckets, x.random)
	for i := range x.buckets {
		for n := x.buckets[i].Load(); n != nil; n = n.next {
			b := y.bucket(n.prog)
			b.Store(&node{prog: n.prog, entries: n.entries, next: b.Load()})
		}
	}
	y.programs = x.programs
	return y
}
