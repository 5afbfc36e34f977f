package xdr

import (
	"encoding/binary"
	"math"
)

// Decoder is a cursor over encoded data. The zero value has nothing to read; make one with [NewDecoder].
//
// After the first error every method returns a zero value and moves no further; [Decoder.Err] tells the error.
// Slices that a Decoder returns alias its input.
type Decoder struct {
	rest []byte
	err  error
}

// NewDecoder returns a Decoder that reads from b, which it keeps and never changes.
func NewDecoder(b []byte) Decoder { return Decoder{rest: b} }

// Err returns the first error met, or nil: [ErrTruncated], [ErrTooLong], [ErrBadBool] or one given to [Decoder.Fail].
func (d *Decoder) Err() error { return d.err }

// Fail makes err the Decoder's error, unless it has one already: for what only the caller can judge, as the values of an
// enumeration ([ErrBadEnum]). A nil err does nothing.
func (d *Decoder) Fail(err error) {
	if err != nil {
		d.fail(err)
	}
}

// Rest returns the octets that were not read yet; after an error, nil.
func (d *Decoder) Rest() []byte { return d.rest }

// Uint32 reads an unsigned integer of 4 octets (RFC 4506 section 4.2).
func (d *Decoder) Uint32() uint32 {
	if len(d.rest) < Unit {
		d.fail(ErrTruncated)
		return 0
	}
	v := binary.BigEndian.Uint32(d.rest)
	d.rest = d.rest[Unit:]
	return v
}

// Int32 reads an integer or an enumeration of 4 octets (RFC 4506 sections 4.1 and 4.3).
func (d *Decoder) Int32() int32 { return int32(d.Uint32()) }

// Uint64 reads an unsigned hyper integer of 8 octets (RFC 4506 section 4.5).
func (d *Decoder) Uint64() uint64 {
	if len(d.rest) < 2*Unit {
		d.fail(ErrTruncated)
		return 0
	}
	v := binary.BigEndian.Uint64(d.rest)
	d.rest = d.rest[2*Unit:]
	return v
}

// Int64 reads a hyper integer of 8 octets (RFC 4506 section 4.5).
func (d *Decoder) Int64() int64 { return int64(d.Uint64()) }

// Float32 reads a single-precision number of 4 octets (RFC 4506 section 4.6).
func (d *Decoder) Float32() float32 { return math.Float32frombits(d.Uint32()) }

// Float64 reads a double-precision number of 8 octets (RFC 4506 section 4.7).
func (d *Decoder) Float64() float64 { return math.Float64frombits(d.Uint64()) }

// Bool reads a boolean of 4 octets (RFC 4506 section 4.4). It reads as well the discriminant of optional data
// (section 4.19), of which XDR's linked lists are made.
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.fail(ErrBadBool)
	}
	return d.err == nil && v == 1
}

// Opaque reads variable-length opaque data of at most limit octets (RFC 4506 section 4.10) and returns it
// without its padding. The padding has to be there, its content is not looked at, as in every implementation
// in use.
func (d *Decoder) Opaque(limit uint32) []byte {
	n := d.Uint32()
	if d.err != nil {
		return nil
	}
	if n > limit {
		d.fail(ErrTooLong)
		return nil
	}
	return d.Fixed(n)
}

// String reads a string of at most limit octets, as [Decoder.Opaque] does, and returns a copy of it: any octets, for the
// caller to judge (RFC 4506 section 4.11).
func (d *Decoder) String(limit uint32) string { return string(d.Opaque(limit)) }

// Count reads the length of a variable-length array of at most limit items (RFC 4506 section 4.13). Every item takes at
// least size octets on the wire, and a length for which not as many octets are left fails with [ErrTruncated]: what is
// returned may be allocated, and the items may be read in a loop without asking for the error each time. The size of an
// item is at least [Unit]; a smaller size counts as that.
func (d *Decoder) Count(limit, size uint32) int {
	n := d.Uint32()
	switch {
	case n > limit:
		d.fail(ErrTooLong)
	case uint64(n)*uint64(max(size, Unit)) > uint64(len(d.rest)):
		d.fail(ErrTruncated)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

// Fixed reads n octets of fixed-length opaque data and their padding (RFC 4506 section 4.9).
func (d *Decoder) Fixed(n uint32) []byte {
	// Compared as 64-bit numbers: rounding up a length near 2^32 must not wrap to a small one.
	if (uint64(n)+Unit-1)&^(Unit-1) > uint64(len(d.rest)) {
		d.fail(ErrTruncated)
		return nil
	}
	data := d.rest[:n:n]
	d.rest = d.rest[Padded(int(n)):]
	return data
}

// fail keeps the first error and takes away what was left to read.
func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}
