// Package oncrpc reads and writes the messages of ONC RPC version 2 (RFC 5531): calls, replies, credentials, and
// the record marking that carries them over streams.
//
//	package rpcbind    what a portmapper says       RFC 1833, RFC 5665
//	package oncrpc     calls and replies            RFC 5531
//	package xdr        integers, strings, opaque    RFC 4506
//
// Encoding appends to a slice, decoding aliases it: nothing is copied and nothing is allocated by a length that a
// peer announced. Values of this package may be used by one goroutine at a time, but a [Client] by several.
package oncrpc
