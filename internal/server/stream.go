package server

import (
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

const (
	// readSize is the room for one read of a connection in octets: some 200 pipelined calls of the usual size.
	readSize = 16 << 10
	// flushSize is how many octets of replies are gathered before they have to be sent. A single reply may be larger.
	flushSize = 64 << 10
	// ownSize is the same for octets that are the connection's own.
	ownSize = 16 << 10
	// earlySize is how many octets read at once count as many calls: the first half of these is answered by a write of its own,
	// so that the client works on the replies while the other half is answered.
	earlySize = 1 << 10
	// outKept is the largest output buffer in octets that is kept for the next turn.
	outKept = 64 << 10
	// heldKept is how many octets of unfinished records a stream may have held before it gives that memory back.
	heldKept = 1 << 10
)

// A stream is the protocol of one connection: records in, replies out. It does no input or output itself and knows no
// time; whoever feeds it decides how to wait.
type stream struct {
	portmapper Portmapper
	from       portmap.Caller
	records    oncrpc.RecordReader
	early      int    // octets of the first half; 0 if it isn't answered apart
	slow       bool   // the turn is over because calls that may wait took too long
	next       []byte // the call that waits for the next one
	held       int    // octets fed that ended inside a record since memory was last given back
}

// verdict is what a stream wants next, after the replies that came with it were sent.
type verdict uint8

const (
	wantInput verdict = iota // every whole record is answered
	wantEarly                // records are left: send what is there, for the client to begin with, then call answer again
	wantFlush                // records are left: send, then call answer again when it is this connection's turn
	wantClose                // what came was no record or no call; the rest of the stream can't be understood
)

// feed hands over octets of the connection. They have to stay as they are until answer says wantInput or wantClose.
func (s *stream) feed(b []byte) {
	s.records.Feed(b)
	s.early = 0
	if len(b) >= earlySize {
		s.early = len(b) / 2
	}
}

// answer adds to the shift's replies, as records of one fragment, those to the records that are there, in their order, until
// none is left or they are longer than flushSize. It also returns how many records it took.
func (s *stream) answer(now *shift) (taken int, next verdict) {
	s.slow = false
	for now.out.size <= flushSize && len(now.out.own) <= ownSize {
		call := s.next
		if call == nil {
			var ok bool
			var err error
			switch call, ok, err = s.records.Next(); {
			case err != nil:
				return taken, wantClose
			case !ok:
				return taken, wantInput
			}
		}
		slow := s.portmapper.MayWait(call)
		if slow && now.tired() {
			s.next, s.slow = call, true
			return taken, wantFlush // everybody else first
		}
		s.next = nil
		taken++
		start := len(now.out.own)
		from := &s.from
		if slow {
			now.wait()
			from = now.caller(from)
		}
		own, at, list := s.portmapper.AppendReplyAround(oncrpc.BeginRecord(now.out.own), call, *from)
		if slow {
			now.done()
		}
		if len(own) == start+oncrpc.RecordMarkSize {
			return taken, wantClose
		}
		now.out.add(own, start, at, list)
		if slow && now.over() {
			return taken, wantFlush // the loop is another's
		}
		if s.early > 0 {
			if s.early -= len(call) + oncrpc.RecordMarkSize; s.early <= 0 {
				s.early = 0
				return taken, wantEarly
			}
		}
	}
	return taken, wantFlush
}

// pending tells whether a record has begun to arrive and isn't whole, after n more octets were answered.
func (s *stream) pending(n int) bool {
	if !s.records.Pending() {
		return false
	}
	s.held += n
	return true
}

// idle is called before a wait. Memory that a long unfinished record took is given back once the record is whole; a few
// octets, of a client that sends record marks by themselves, are kept for the next time.
func (s *stream) idle() {
	if s.held > heldKept && !s.records.Pending() {
		s.records = oncrpc.RecordReader{Limit: s.records.Limit}
		s.held = 0
	}
}
