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
	blocks  [3]statBlock
	lookups int // how many elements each list of lookups has at most
	remotes int
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

type statEntry[K comparable] struct {
	key                         K
	success, failure, indirects atomic.Uint32
	real                        atomic.Bool // key's program and version were found, not only another version
}

// outcome is what is counted of one call.
type outcome struct {
	found    bool // there is an address to answer, if only that of another version
	exact    bool // it is that of the version asked for
	indirect bool // the call is INDIRECT
}

// statList is a bounded list of counters. Counting in an element that is there takes no lock.
type statList[K comparable] struct {
	mu   sync.Mutex // held by those who change the list
	list atomic.Pointer[[]*statEntry[K]]
}

func (s *statistics) block(vers uint32) *statBlock { return &s.blocks[vers-rpcbind.PMAPVers] }

func (s *statistics) called(vers, proc uint32) { s.block(vers).calls[proc].Add(1) }

func (s *statistics) lookedUp(vers uint32, k addrKey, o outcome) {
	s.block(vers).addrs.count(k, s.lookups, o)
}

func (s *statistics) calledRemote(vers uint32, k remoteKey, o outcome) {
	s.block(vers).remote.count(k, s.remotes, o)
}

func (l *statList[K]) count(k K, limit int, o outcome) {
	e := l.find(k)
	if e == nil {
		e = l.add(k, limit, o.exact)
	}
	if e == nil {
		return
	}
	if o.found {
		e.success.Add(1)
	} else {
		e.failure.Add(1)
	}
	if o.exact && !e.real.Load() {
		e.real.Store(true)
	}
	if o.indirect {
		e.indirects.Add(1)
	}
}

func (l *statList[K]) entries() []*statEntry[K] {
	if list := l.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (l *statList[K]) find(k K) *statEntry[K] {
	for _, e := range l.entries() {
		if e.key == k {
			return e
		}
	}
	return nil
}

// add puts a new element at the front of the list. In a full list it takes the place of the oldest element whose
// program and version never were registered when it was asked for; if all were, one that isn't either is not
// listed, and one that is takes the place of the oldest. So the made-up programs and versions of a caller push each
// other out, not the programs that are in use. A success alone doesn't tell: a made-up version of a registered
// program has that as well, with the address of another version.
func (l *statList[K]) add(k K, limit int, exact bool) *statEntry[K] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.find(k); e != nil {
		return e
	}
	old := l.entries()
	drop := len(old)
	if len(old) >= limit {
		drop = lastMadeUp(old)
		switch {
		case drop >= 0:
		case exact:
			drop = len(old) - 1
		default:
			return nil
		}
	}
	list := make([]*statEntry[K], 1, len(old)+1)
	list[0] = &statEntry[K]{key: k}
	for i, e := range old {
		if i != drop {
			list = append(list, e)
		}
	}
	l.list.Store(&list)
	return list[0]
}

func lastMadeUp[K comparable](list []*statEntry[K]) int {
	for i, e := range slices.Backward(list) {
		if !e.real.Load() {
			return i
		}
	}
	return -1
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
	for _, e := range b.addrs.entries() {
		dst = xdr.AppendBool(dst, true)
		dst = xdr.AppendUint32(dst, e.key.prog)
		dst = xdr.AppendUint32(dst, e.key.vers)
		dst = xdr.AppendUint32(dst, e.success.Load())
		dst = xdr.AppendUint32(dst, e.failure.Load())
		dst = xdr.AppendString(dst, string(e.key.transport.Netid()))
	}
	dst = xdr.AppendBool(dst, false)
	for _, e := range b.remote.entries() {
		dst = xdr.AppendBool(dst, true)
		dst = xdr.AppendUint32(dst, e.key.prog)
		dst = xdr.AppendUint32(dst, e.key.vers)
		dst = xdr.AppendUint32(dst, e.key.proc)
		dst = xdr.AppendUint32(dst, e.success.Load())
		dst = xdr.AppendUint32(dst, e.failure.Load())
		dst = xdr.AppendUint32(dst, e.indirects.Load())
		dst = xdr.AppendString(dst, string(e.key.transport.Netid()))
	}
	return xdr.AppendBool(dst, false)
}
