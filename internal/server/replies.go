package server

import (
	"encoding/binary"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// replies are records to be sent: octets of their own, and between these lists that others send as well and nobody changes.
type replies struct {
	own   []byte
	lists []insert // in the order in which they are sent
	size  int      // octets in all
	sent  int      // of these
}

// An insert is a list and where in the octets of its own it belongs.
type insert struct {
	at   int
	list []byte
}

// clear makes r ready for others. It keeps the room for them, unless that became large.
func (r *replies) clear() {
	if cap(r.own) > outKept {
		r.own = nil
	}
	clear(r.lists) // the table may have new ones already
	*r = replies{own: r.own[:0], lists: r.lists[:0]}
}

// add appends the record of a reply that was appended to own[:start], where the octets of its mark are, see
// [Portmapper.AppendReplyAround].
func (r *replies) add(own []byte, start, at int, list []byte) {
	oncrpc.EndRecord(own, start)
	if list != nil {
		mark := own[start:]
		binary.BigEndian.PutUint32(mark, binary.BigEndian.Uint32(mark)+uint32(len(list)))
		r.lists = append(r.lists, insert{at, list})
	}
	r.size += len(own) - start + len(list)
	r.own = own
}

// parts appends what isn't sent yet to dst.
func (r *replies) parts(dst [][]byte) [][]byte {
	skip, from := r.sent, 0
	add := func(b []byte) {
		n := min(skip, len(b))
		if skip -= n; n < len(b) {
			dst = append(dst, b[n:])
		}
	}
	for _, i := range r.lists {
		add(r.own[from:i.at])
		add(i.list)
		from = i.at
	}
	add(r.own[from:])
	return dst
}

// rest returns what isn't sent yet. It shares nothing with r but the lists.
func (r *replies) rest() *replies {
	rest := &replies{size: r.size - r.sent}
	skip, from := r.sent, 0
	own := func(to int) {
		n := min(skip, to-from)
		skip -= n
		rest.own = append(rest.own, r.own[from+n:to]...)
		from = to
	}
	for _, i := range r.lists {
		own(i.at)
		n := min(skip, len(i.list))
		if skip -= n; n < len(i.list) {
			rest.lists = append(rest.lists, insert{len(rest.own), i.list[n:]})
		}
	}
	own(len(r.own))
	return rest
}
