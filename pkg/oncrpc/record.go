package oncrpc

import (
	"encoding/binary"
	"errors"
)

// Record marking, for streams (RFC 5531 section 11). A message is sent as a record of one or more fragments,
// each behind a record mark of 4 octets:
//
//	 0 1                             31
//	+-+-------------------------------+
//	|L| octets in this fragment       |   L: 1 in the record's last fragment
//	+-+-------------------------------+
const (
	// RecordMarkSize is the size of a record mark in octets.
	RecordMarkSize = 4
	lastFragment   = 1 << 31
)

var (
	// ErrRecordTooLong says that a record has more octets than its reader takes.
	ErrRecordTooLong = errors.New("oncrpc: record is longer than the limit")
	// ErrEmptyFragment says that a fragment without octets was not its record's last: no sender has a reason
	// for one, and a stream of them would keep a reader busy for nothing.
	ErrEmptyFragment = errors.New("oncrpc: empty fragment that is not the last of its record")
)

// BeginRecord appends room for a record mark, which [EndRecord] fills in when the message is there.
func BeginRecord(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndRecord fills in the record mark at offset start of b for a record of one fragment, which reaches to the
// end of b. The fragment has to be shorter than 2^31 octets.
func EndRecord(b []byte, start int) {
	n := len(b) - start - RecordMarkSize
	binary.BigEndian.PutUint32(b[start:], lastFragment|uint32(n))
}

// keepBetweenRecords is the size in octets of the largest buffer that a RecordReader keeps when no record is on its
// way, so that a connection that once sent something long costs little while it is idle.
const keepBetweenRecords = 4096

// RecordReader cuts a stream of octets into records, however the stream was split into reads and the records
// into fragments. An announced length allocates nothing: it holds the octets of one unfinished record, at most
// Limit, and between records at most 4096 octets. A record that arrives in one fragment and one read is not
// copied.
//
// Hand over each read with [RecordReader.Feed] and take records with [RecordReader.Next] until it has none; then
// the slice that was fed may be used again. The zero value takes only empty records; set Limit.
type RecordReader struct {
	// Limit is the size in octets of the largest record that is accepted, all fragments together.
	Limit int

	in     []byte // fed and not yet cut; aliases the caller's slice
	record []byte // our copy of what has arrived of an unfinished record
	mark   [RecordMarkSize]byte
	marked int  // octets of mark that have arrived
	left   int  // octets of the fragment that have not arrived
	last   bool // the fragment is its record's last
	inside bool // the mark has arrived and the fragment isn't whole
	whole  bool // record was returned by Next and is to be forgotten
	err    error
}

// Feed hands over octets as they came from the stream. They must stay as they are until [RecordReader.Next] has
// returned false. To feed before that is a mistake of the caller that loses the octets not yet cut.
func (r *RecordReader) Feed(b []byte) {
	if r.err == nil {
		r.in = b
	}
}

// Pending tells whether a record has begun to arrive and isn't whole yet. After an error it is false.
func (r *RecordReader) Pending() bool {
	return len(r.in) > 0 || r.marked > 0 || r.inside || (len(r.record) > 0 && !r.whole)
}

// Next returns the next whole record, or false if the stream has not brought it yet. The record is valid until
// the next call of Next or Feed, and until the slice that was fed changes. An error, [ErrRecordTooLong] or
// [ErrEmptyFragment], ends the stream: its framing is lost, and every later Next returns the error again.
func (r *RecordReader) Next() (record []byte, ok bool, err error) {
	if r.whole {
		r.forget()
	}
	for r.err == nil {
		if !r.inside {
			if !r.cutMark() {
				return nil, false, r.err
			}
			if r.last && len(r.record) == 0 && len(r.in) >= r.left {
				return r.cut(), true, nil
			}
		}
		r.record = append(r.record, r.cut()...)
		if r.inside {
			return nil, false, nil
		}
		if r.last {
			r.whole = true
			return r.record, true, nil
		}
	}
	return nil, false, r.err
}

// cutMark takes a record mark off the input and judges it: false if it hasn't arrived or r.err was set.
func (r *RecordReader) cutMark() bool {
	n := copy(r.mark[r.marked:], r.in)
	r.in = r.in[n:]
	r.marked += n
	if r.marked < RecordMarkSize {
		return false
	}
	mark := binary.BigEndian.Uint32(r.mark[:])
	r.marked = 0
	r.left, r.last = int(mark&^uint32(lastFragment)), mark&lastFragment != 0
	switch {
	case r.left > r.Limit-len(r.record):
		r.fail(ErrRecordTooLong)
	case r.left == 0 && !r.last:
		r.fail(ErrEmptyFragment)
	default:
		r.inside = true
	}
	return r.inside
}

// cut takes off the input what there is of the fragment.
func (r *RecordReader) cut() []byte {
	n := min(r.left, len(r.in))
	b := r.in[:n:n]
	r.in = r.in[n:]
	r.left -= n
	r.inside = r.left > 0
	return b
}

func (r *RecordReader) forget() {
	r.record, r.whole = r.record[:0], false
	if cap(r.record) > keepBetweenRecords {
		r.record = nil
	}
}

func (r *RecordReader) fail(err error) {
	*r = RecordReader{Limit: r.Limit, err: err}
}
