// Package xdr encodes and decodes the External Data Representation of RFC 4506, as far as ONC RPC and its
// portmapper need it.
//
// Encoding appends: every Append function takes a slice, adds whole four-octet units to it and returns the
// longer slice, as the built-in append does. Decoding moves a cursor: a [Decoder] reads items one after another
// from a slice and remembers the first error, so a caller decodes a whole structure and asks once, with
// [Decoder.Err], whether all of it was there.
//
// Nothing here allocates in proportion to a length that the peer announced: a variable-length item is returned
// as a slice of the input, after its length was checked against the octets that are there.
//
// Neither the functions nor a Decoder are safe for concurrent use of the same slice or Decoder.
package xdr

import (
	"encoding/binary"
	"errors"
)

// Unit is the size in octets that every XDR item is padded to (RFC 4506 section 3).
const Unit = 4

var (
	// ErrTruncated says that the input ended before the item did.
	ErrTruncated = errors.New("xdr: input ends before the item does")
	// ErrTooLong says that a variable-length item announced more octets than its declared maximum.
	ErrTooLong = errors.New("xdr: item is longer than its maximum")
	// ErrBadBool says that a boolean or an optional's discriminant was neither 0 nor 1.
	ErrBadBool = errors.New("xdr: boolean is neither 0 nor 1")
)

// Padded returns n rounded up to a multiple of [Unit]: the octets that n octets of opaque data take, without
// their length word (RFC 4506 section 4.9).
func Padded(n int) int { return (n + Unit - 1) &^ (Unit - 1) }

// OpaqueSize returns the octets that n octets of variable-length opaque or string data take, with the length
// word (RFC 4506 sections 4.10 and 4.11).
func OpaqueSize(n int) int { return Unit + Padded(n) }

// AppendUint32 appends an unsigned integer: 4 octets, big-endian (RFC 4506 section 4.2).
func AppendUint32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// AppendBool appends a boolean: 4 octets, 0 or 1 (RFC 4506 section 4.4).
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return AppendUint32(dst, 1)
	}
	return AppendUint32(dst, 0)
}

// AppendOpaque appends variable-length opaque data: its length in 4 octets, the data, and zero padding to a
// multiple of 4 (RFC 4506 section 4.10). Data of 2^32 octets or more can't be represented; the length wraps.
func AppendOpaque(dst, data []byte) []byte {
	dst = AppendUint32(dst, uint32(len(data)))
	dst = append(dst, data...)
	return appendPadding(dst, len(data))
}

// AppendString appends a string, encoded as variable-length opaque data (RFC 4506 section 4.11).
func AppendString(dst []byte, s string) []byte {
	dst = AppendUint32(dst, uint32(len(s)))
	dst = append(dst, s...)
	return appendPadding(dst, len(s))
}

func appendPadding(dst []byte, n int) []byte {
	const zeros = "\x00\x00\x00"
	return append(dst, zeros[:Padded(n)-n]...)
}

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

// Err returns the first error met, or nil: [ErrTruncated], [ErrTooLong] or [ErrBadBool].
func (d *Decoder) Err() error { return d.err }

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

func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}
