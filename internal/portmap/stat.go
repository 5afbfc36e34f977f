package portmap

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// Bounds of the lists of GETSTAT. Every caller can put made-up programs into them, so they don't grow
// (CVE-2026-94640); with them full, GETSTAT's result has at most 8,000 octets:
// 3 × (68 + 48 × 32 + 24 × 40) + the header of 24.
const (
	MaxLookupStats = 48
	MaxRemoteStats = 24
)

// statProcs is the number of procedure counters of each version in GETSTAT's result (RFC 1833 section 2.1,
// RPCBSTAT_HIGHPROC).
const statProcs = 13

// statistics is what GETSTAT answers: a block for each of the versions 2, 3 and 4.
type statistics struct {
	blocks [3]statBlock
}

type statBlock struct {
	calls  [statProcs]atomic.Uint32
	sets   atomic.Uint32 // SETs answered TRUE
	unsets atomic.Uint32 // UNSETs answered TRUE
	addrs  statList[addrKey]
	remote statList[remoteKey]
}

// addrKey names an element of a block's list of lookups.
type addrKey struct {
	prog, vers uint32
	transport  Transport
}

// remoteKey names an element of a block's list of remote calls.
type remoteKey struct {
	prog, vers, proc uint32
	transport        Transport
}

// outcome is what is counted of one call.
type outcome struct {
	found    bool // there is an address to answer, if only that of another version
	exact    bool // it is that of the version asked for
	indirect bool // the call is INDIRECT
}

// statList is a bounded list of counters. Its elements are slots that are used again, so counting allocates nothing, whatever
// is asked for. The keys stand side by side, because each lookup searches them.
type statList[K comparable] struct {
	mu     sync.Mutex
	keys   []K
	counts []statCounts // of the keys
	order  []uint8      // the slots, that of the oldest element first
}

type statCounts struct {
	success, failure, indirects uint32
	real                        bool // key's program and version were found, not only another version
}

// init makes room for so many elements in each list of lookups and of remote calls.
func (s *statistics) init(lookups, remotes int) {
	for i := range s.blocks {
		s.blocks[i].addrs.init(lookups)
		s.blocks[i].remote.init(remotes)
	}
}

func (l *statList[K]) init(limit int) {
	l.keys, l.counts, l.order = make([]K, 0, limit), make([]statCounts, 0, limit), make([]uint8, 0, limit)
}

func (s *statistics) block(vers uint32) *statBlock { return &s.blocks[vers-rpcbind.PMAPVers] }

func (s *statistics) called(vers, proc uint32) { s.block(vers).calls[proc].Add(1) }

func (s *statistics) lookedUp(vers uint32, k addrKey, o outcome) { s.block(vers).addrs.count(k, o) }

func (s *statistics) calledRemote(vers uint32, k remoteKey, o outcome) {
	s.block(vers).remote.count(k, o)
}

func (l *statList[K]) count(k K, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := slices.Index(l.keys, k)
	if slot < 0 {
		if slot = l.add(k, o.exact); slot < 0 {
			return
		}
	}
	c := &l.counts[slot]
	if o.found {
		c.success++
	} else {
		c.failure++
	}
	c.real = c.real || o.exact
	if o.indirect {
		c.indirects++
	}
}

// add returns the slot of a new element. In a full list that is the slot of the oldest element whose program and version never
// were registered when it was asked for. If all were, one that isn't either is not listed, which -1 stands for, and one that is
// takes the slot of the oldest. So the made-up programs and versions of a caller push each other out, not the programs that are
// in use. A success alone doesn't tell: a made-up version of a registered program has that as well, with the address of another
// version.
func (l *statList[K]) add(k K, exact bool) int {
	if n := len(l.keys); n < cap(l.order) {
		l.keys, l.counts, l.order = append(l.keys, k), append(l.counts, statCounts{}), append(l.order, uint8(n))
		return n
	}
	at := slices.IndexFunc(l.order, func(slot uint8) bool { return !l.counts[slot].real })
	if at < 0 {
		if !exact {
			return -1
		}
		at = 0
	}
	slot := l.order[at]
	l.order = append(slices.Delete(l.order, at, at+1), slot)
	l.keys[slot], l.counts[slot] = k, statCounts{}
	return int(slot)
}

// each calls f with every element, the newest first.
func (l *statList[K]) each(f func(K, statCounts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, slot := range slices.Backward(l.order) {
		f(l.keys[slot], l.counts[slot])
	}
}

// getStat is GETSTAT of version 4: for each of the versions 2, 3 and 4 the calls of each procedure, the successful
// SETs and UNSETs, the lookups and the remote calls, newest first (RFC 1833 section 2.1, rpcb_stat_byvers).
func (p *Portmapper) getStat(dst []byte, r *request) []byte {
	dst = appendSuccess(dst, r)
	for i := range p.stats.blocks {
		dst = p.stats.blocks[i].append(dst)
	}
	return dst
}

func (b *statBlock) append(dst []byte) []byte {
	for i := range b.calls {
		dst = xdr.AppendUint32(dst, b.calls[i].Load())
	}
	dst = xdr.AppendUint32(dst, b.sets.Load())
	dst = xdr.AppendUint32(dst, b.unsets.Load())
	b.addrs.each(func(k addrKey, c statCounts) {
		dst = xdr.AppendBool(dst, true)
		dst = xdr.AppendUint32(dst, k.prog)
		dst = xdr.AppendUint32(dst, k.vers)
		dst = xdr.AppendUint32(dst, c.success)
		dst = xdr.AppendUint32(dst, c.failure)
		dst = xdr.AppendString(dst, string(k.transport.Netid()))
	})
	dst = xdr.AppendBool(dst, false)
	b.remote.each(func(k remoteKey, c statCounts) {
		dst = xdr.AppendBool(dst, true)
		dst = xdr.AppendUint32(dst, k.prog)
		dst = xdr.AppendUint32(dst, k.vers)
		dst = xdr.AppendUint32(dst, k.proc)
		dst = xdr.AppendUint32(dst, c.success)
		dst = xdr.AppendUint32(dst, c.failure)
		dst = xdr.AppendUint32(dst, c.indirects)
		dst = xdr.AppendString(dst, string(k.transport.Netid()))
	})
	return xdr.AppendBool(dst, false)
}
