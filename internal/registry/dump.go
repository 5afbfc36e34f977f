package registry

import (
	"sync/atomic"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// The two lists are kept encoded. A new registration is appended to them; a removal throws them away, and who
// asks next encodes them anew. Appending in place is safe: a reader's slice ends before the new element, and only
// the newest slice is ever appended to.

// RPCBs returns the table as versions 3 and 4 dump it: the encoded elements of an rpcblist in the order of their
// arrival, without the word 0 that ends the list. The octets must not be changed.
func (t *Table) RPCBs() []byte { return t.dump(&t.rpcbs, rpcbs) }

// Mappings returns the table as version 2 dumps it: the encoded elements of a pmaplist, which has the
// registrations on tcp and udp, without the word 0 that ends the list. The octets must not be changed.
func (t *Table) Mappings() []byte { return t.dump(&t.mappings, mappings) }

// An encoding is how entries stand in a list: how many octets each takes, and what they are.
type encoding struct {
	size   func(e *Entry) int
	append func(dst []byte, e *Entry) []byte
}

var (
	rpcbs    = encoding{func(e *Entry) int { return rpcbSize(e.RPCB) }, appendRPCB}
	mappings = encoding{mappingSize, appendMapping}
)

func (t *Table) dump(cache *atomic.Pointer[[]byte], as encoding) []byte {
	if b := cache.Load(); b != nil {
		return *b
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.encode(cache, as)
}

// encode is dump with the lock held.
func (t *Table) encode(cache *atomic.Pointer[[]byte], as encoding) []byte {
	if b := cache.Load(); b != nil {
		return *b
	}
	size := 0
	for _, e := range t.order {
		if e != nil {
			size += as.size(e)
		}
	}
	// With room for a few more, which are appended.
	list := make([]byte, 0, size+size/16)
	for _, e := range t.order {
		if e != nil {
			list = as.append(list, e)
		}
	}
	cache.Store(&list)
	return list
}

func (t *Table) appendDumps(e *Entry) {
	if b := t.rpcbs.Load(); b != nil {
		list := appendRPCB(*b, e)
		t.rpcbs.Store(&list)
	}
	if b := t.mappings.Load(); b != nil {
		list := appendMapping(*b, e)
		t.mappings.Store(&list)
	}
}

func (t *Table) forgetDumps() {
	t.rpcbs.Store(nil)
	t.mappings.Store(nil)
}

func appendRPCB(dst []byte, e *Entry) []byte { return rpcbind.AppendRPCBElement(dst, e.RPCB) }

// rpcbSize returns how many octets the element of b in an rpcblist has.
func rpcbSize(b rpcbind.RPCB) int {
	size := 3 * xdr.Unit
	for _, octets := range [...]int{len(b.Netid), len(b.Addr), len(b.Owner)} {
		size += xdr.Unit + (octets+xdr.Unit-1)/xdr.Unit*xdr.Unit
	}
	return size
}

// mappingSize returns how many octets the element of e in a pmaplist has: 0 if it has none.
func mappingSize(e *Entry) int {
	if _, ok := e.Netid.Prot(); !ok {
		return 0
	}
	return xdr.Unit + rpcbind.MappingSize
}

func appendMapping(dst []byte, e *Entry) []byte {
	prot, ok := e.Netid.Prot()
	if !ok {
		return dst
	}
	return rpcbind.AppendMappingElement(dst, rpcbind.Mapping{
		Program: e.Program, Version: e.Version, Prot: prot, Port: uint32(e.IP.Port()),
	})
}
