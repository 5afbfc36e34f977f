package registry

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// minBuckets is the size of an empty table's index: more programs than most hosts have.
const minBuckets = 64

// index finds the registrations of a program on one of the five transports. Readers follow atomic pointers to nodes that never
// change; the one writer puts new nodes in their place.
type index struct {
	buckets []atomic.Pointer[node] // a power of two of them
	shift   uint                   // takes a 64-bit product to a bucket
	random  uint64                 // odd multiplier
	nodes   int                    // of interest to the writer alone
}

// node is a program on a transport, in the chain of a bucket. Version and port of the registration that came last are here, so
// that most lookups read nothing else.
type node struct {
	next *node
	last *Entry    // the registration that came last
	all  *versions // with all others; nil if there are none
	prog uint32
	vers uint32 // of last
	port uint16 // the same
	kind kind
}

func newIndex(buckets int, random uint64) *index {
	return &index{
		buckets: make([]atomic.Pointer[node], buckets),
		shift:   uint(64 - bits.TrailingZeros(uint(buckets))),
		random:  random,
	}
}

func (x *index) bucket(prog uint32, k kind) *atomic.Pointer[node] {
	return &x.buckets[(uint64(prog)<<3|uint64(k))*x.random>>x.shift]
}

func (x *index) find(prog uint32, k kind) *node {
	for n := x.bucket(prog, k).Load(); n != nil; n = n.next {
		if n.prog == prog && n.kind == k {
			return n
		}
	}
	return nil
}

// entry returns the registration of a version, or else the one that came last.
func (n *node) entry(vers uint32) *Entry {
	if n.vers != vers && n.all != nil {
		if e := n.all.find(vers); e != nil {
			return e
		}
	}
	return n.last
}

// with adds an entry behind those of its program and transport and returns the index that has it: x itself, or a larger one,
// which takes over from x when the chains get long.
func (x *index) with(e *Entry) *index {
	old := x.find(e.Program, e.kind)
	if old == nil {
		if x.nodes >= len(x.buckets) {
			x = x.sized(2 * len(x.buckets))
		}
		x.put(e.Program, e.kind, nodeOf(e, nil))
		return x
	}
	x.put(e.Program, e.kind, nodeOf(e, old.all.with(old.last, e)))
	return x
}

// without takes an entry out and returns the index that doesn't have it. Unless next is nil that one, of the same program,
// version and transport, comes behind all others in the same step.
func (x *index) without(e, next *Entry) *index {
	n := x.find(e.Program, e.kind)
	e.gone = true
	switch {
	case n.all != nil:
		all, last := n.all.without(e, next)
		x.put(e.Program, e.kind, nodeOf(last, all))
	case next != nil:
		x.put(e.Program, e.kind, nodeOf(next, nil))
	default:
		x.put(e.Program, e.kind, nil)
		if x.nodes < len(x.buckets)/8 && len(x.buckets) > minBuckets {
			x = x.sized(len(x.buckets) / 4)
		}
	}
	return x
}

func nodeOf(last *Entry, all *versions) *node {
	return &node{last: last, all: all, prog: last.Program, vers: last.Version, port: last.IP.Port(), kind: last.kind}
}

// put puts a node in the place of that of a program and transport; nil takes it out.
func (x *index) put(prog uint32, k kind, next *node) {
	b := x.bucket(prog, k)
	var before []*node // those before it in its chain, which have to be linked anew
	old := b.Load()
	for ; old != nil && (old.prog != prog || old.kind != k); old = old.next {
		before = append(before, old)
	}
	if old == nil {
		x.nodes++
		next.next = b.Load()
		b.Store(next)
		return
	}
	chain := old.next
	if next != nil {
		next.next, chain = chain, next
	} else {
		x.nodes--
	}
	for _, m := range slices.Backward(before) {
		again := *m
		again.next, chain = chain, &again
	}
	b.Store(chain)
}

// sized returns an index of so many buckets with the nodes of x.
func (x *index) sized(buckets int) *index {
	y := newIndex(max(buckets, minBuckets), x.random)
	for i := range x.buckets {
		for n := x.buckets[i].Load(); n != nil; n = n.next {
			b := y.bucket(n.prog, n.kind)
			again := *n
			again.next = b.Load()
			b.Store(&again)
		}
	}
	y.nodes = x.nodes
	return y
}
