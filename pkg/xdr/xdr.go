// Package xdr encodes and decodes the External Data Representation of RFC 4506, without reflection and without
// generated code.
//
//	package rpcbind    what a portmapper says       RFC 1833, RFC 5665
//	package oncrpc     calls, replies, transports   RFC 5531
//	package xdr        integers, strings, opaque    RFC 4506
//
// Encoding appends: every Append function takes a slice, adds whole four-octet units to it and returns the
// longer slice, as the built-in append does. Decoding moves a cursor: a [Decoder] reads items one after another
// from a slice and remembers the first error, so a caller decodes a whole structure and asks once, with
// [Decoder.Err], whether all of it was there.
//
// XDR's types and what to use for them:
//
//	int, enum               4 octets                 AppendInt32      Int32
//	unsigned int            4 octets                 AppendUint32     Uint32
//	bool                    4 octets                 AppendBool       Bool
//	hyper                   8 octets                 AppendInt64      Int64
//	unsigned hyper          8 octets                 AppendUint64     Uint64
//	float, double           4, 8 octets              AppendFloat32    Float32 and the same with 64
//	opaque x[n]             n, padded                AppendFixed      Fixed
//	opaque x<m>             4 + n, padded            AppendOpaque     Opaque
//	string x<m>             4 + n, padded            AppendString     String
//	T x[n]                  n items                  a loop           a loop
//	T x<m>                  4 + n items              AppendUint32     Count, and a loop
//	T *x                    4, or 4 + an item        AppendBool       Bool, and an if
//	union switch (T d)      the discriminant's,      as for T         as for T, and a switch with
//	                        and the chosen arm's                      Fail in its default
//	struct                  the fields in order
//
// quadruple, which C compilers don't agree on and no RPC program in use has, isn't here.
//
// # Limits
//
// Nothing here allocates in proportion to a length that the peer announced: variable-length opaque data is returned
// as a slice of the input, a string as a copy of it, after the length was checked against the octets that are there and
// against the limit that the caller gives. Give the limit of the protocol's specification (the m above); where that
// says none, [math.MaxUint32]. [Decoder.Count] does the same for arrays: what it returns may be allocated. An item can
// have up to 2^32-1 octets on the wire; on 32-bit systems what is longer than an int fits in no slice and so is
// truncated input.
//
// # Concurrency and errors
//
// Neither the functions nor a Decoder are safe for concurrent use of the same slice or Decoder. Encoding has no errors.
// Those of decoding are [ErrTruncated], [ErrTooLong], [ErrBadBool], and what [Decoder.Fail] was given.
//
// # Compatibility
//
// Package oncrpc says what importers may rely on; it holds here as well.
package xdr

import (
	"encoding/binary"
	"errors"
	"math"
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
	// ErrBadEnum is for [Decoder.Fail]: an enumeration or a union's discriminant has a value that its declaration
	// doesn't have.
	ErrBadEnum = errors.New("xdr: enumeration has no such value")
)

// Padded returns n rounded up to a multiple of [Unit]: the octets that n octets of opaque data take, without
// their length word (RFC 4506 section 4.9).
func Padded(n int) int { return (n + Unit - 1) &^ (Unit - 1) }

// OpaqueSize returns the octets that n octets of variable-length opaque or string data take, with the length
// word (RFC 4506 sections 4.10 and 4.11).
func OpaqueSize(n int) int { return Unit + Padded(n) }

// AppendUint32 appends an unsigned integer: 4 octets, big-endian (RFC 4506 section 4.2).
func AppendUint32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// AppendInt32 appends an integer or an enumeration: 4 octets, big-endian, two's complement (RFC 4506 sections 4.1 and
// 4.3).
func AppendInt32(dst []byte, v int32) []byte { return AppendUint32(dst, uint32(v)) }

// AppendUint64 appends an unsigned hyper integer: 8 octets, big-endian (RFC 4506 section 4.5).
func AppendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// AppendInt64 appends a hyper integer: 8 octets, big-endian, two's complement (RFC 4506 section 4.5).
func AppendInt64(dst []byte, v int64) []byte { return AppendUint64(dst, uint64(v)) }

// AppendFloat32 appends a single-precision number of IEEE 754: 4 octets (RFC 4506 section 4.6).
func AppendFloat32(dst []byte, v float32) []byte { return AppendUint32(dst, math.Float32bits(v)) }

// AppendFloat64 appends a double-precision number of IEEE 754: 8 octets (RFC 4506 section 4.7).
func AppendFloat64(dst []byte, v float64) []byte { return AppendUint64(dst, math.Float64bits(v)) }

// AppendBool appends a boolean: 4 octets, 0 or 1 (RFC 4506 section 4.4).
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return AppendUint32(dst, 1)
	}
	return AppendUint32(dst, 0)
}

// AppendFixed appends fixed-length opaque data: the octets and zero padding to a multiple of 4, no length (RFC 4506
// section 4.9).
func AppendFixed(dst, data []byte) []byte {
	dst = append(dst, data...)
	return appendPadding(dst, len(data))
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
