package server

import (
	"encoding/binary"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// mostParts is how many parts are sent by one system call at most; the kernel takes 1024.
const mostParts = 256

// replies are records to be sent: octets of their own, and between these lists that others send as well and nobody changes.
type replies struct {
	own   []byte
	lists []insert // in the order in which they are sent
	size  int      // octets in all
	sent  int      // of these
}

// An insert is a part of a list and where in the octets of its own it belongs.
type insert struct {
	at   int
	list []byte
}

// clear makes r ready for others. It keeps the room for them, unless that became large.
func (r *replies) clear() {
	if cap(r.own) > outKept {
		r.own = nil
	}
	if cap(r.lists) > mostParts {
		r.lists = nil
	}
	clear(r.lists) // the table may have new ones already
	*r = replies{own: r.own[:0], lists: r.lists[:0]}
}

// add appends the record of a reply that was appended to own[:start], where the octets of its mark are, see
// [Portmapper.AppendReplyAround].
func (r *replies) add(own []byte, start, at int, list [][]byte) {
	oncrpc.EndRecord(own, start)
	octets := 0
	for _, part := range list {
		octets += len(part)
		r.lists = append(r.lists, insert{at, part})
	}
	mark := own[start:]
	binary.BigEndian.PutUint32(mark, binary.BigEndian.Uint32(mark)+uint32(octets))
	r.size += len(own) - start + octets
	r.own = own
}

// parts appends what isn't sent yet to dst, or as much of it as one call takes.
func (r *replies) parts(dst [][]byte) [][]byte {
	skip, from := r.sent, 0
	add := func(b []byte) {
		n := min(skip, len(b))
		if skip -= n; n < len(b) {
			dst = append(dst, b[n:])
		}
	}
	for _, i := range r.lists {
		if len(dst)+2 > mostParts {
			return dst
		}
		add(r.own[from:i.at])
		add(i.list)
		from = i.at
	}
	add(r.own[from:])
	return dst
}

// rest returns what isn't sent yet. It shares nothing with r but the parts of lists, of which the first may be sent in part.
func (r *replies) rest() *replies {
	rest := &replies{}
	skip, from := r.sent, 0
	own := func(to int) {
		n := min(skip, to-from)
		skip -= n
		rest.own = append(rest.own, r.own[from+n:to]...)
		from = to
	}
	for _, i := range r.lists {
		own(i.at)
		if skip >= len(i.list) {
			skip -= len(i.list)
			continue
		}
		rest.lists = append(rest.lists, insert{len(rest.own), i.list})
		rest.size += len(i.list)
		rest.sent, skip = rest.sent+skip, 0
	}
	own(len(r.own))
	rest.size += len(rest.own)
	return rest
}
