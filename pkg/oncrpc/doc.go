// Package oncrpc is ONC RPC version 2 (RFC 5531), which NFS, MOUNT, NIS, the portmapper and many others are made of: a
// [Client] and a [Server] over TCP, UDP and local sockets, and below them the messages, credentials and record marking,
// to be used alone.
//
//	  your program: procedures, their arguments and results
//	        │                              │
//	┌───────┴────────┐            ┌────────┴───────┐
//	│ Client         │            │ Server         │  matches xids, sends again over UDP;
//	│  Call          │            │  Register      │  looks up program, version, procedure
//	├────────────────┴────────────┴────────────────┤
//	│ AppendCall ParseReply   ParseCall Append…    │  call and reply headers, AUTH_SYS
//	├──────────────────────────────────────────────┤
//	│ RecordReader BeginRecord EndRecord           │  streams only: record marking
//	├──────────────────────────────────────────────┤
//	│ net.Conn  net.Listener  net.PacketConn       │
//	└──────────────────────────────────────────────┘
//
// and beside the other packages of this module:
//
//	package rpcbind    what a portmapper says       RFC 1833, RFC 5665
//	package oncrpc     calls, replies, transports   RFC 5531
//	package xdr        integers, strings, opaque    RFC 4506
//
// A call in two lines, and a server in four:
//
//	c, err := oncrpc.Dial(ctx, "tcp", "nfs.example:2049")
//	results, err := c.Call(ctx, oncrpc.Call{Program: 100003, Version: 3, Procedure: 0})
//
//	var s oncrpc.Server
//	err := s.Register(100005, 3, oncrpc.Procedures{1: mount})
//	l, err := net.Listen("tcp", ":20048")
//	err = s.Serve(l)
//
// Arguments and results are octets: package xdr appends them and reads them. The package knows no portmapper; package
// rpcbind registers servers and finds ports.
//
// # Limits
//
// No length that a peer announces allocates anything, at either end: memory grows with what has arrived, up to
// [ClientConfig.MaxReply] and [Server.MaxRecord]. Calls in flight, connections and calls that are carried out at a time
// are bounded. Encoding appends to a slice, decoding aliases it; a Server allocates nothing for a call over a stream, a
// Client the results and what it takes to watch a context that can end.
//
// AUTH_NONE and AUTH_SYS are understood. RPCSEC_GSS isn't, and AUTH_SHORT and AUTH_DH are refused. A server doesn't
// remember the replies that it sent over UDP. Clients don't serve calls on the connection that they call by (NFSv4.0
// callbacks come by one of their own; those of NFSv4.1 don't).
//
// # Concurrency
//
// Values of this package may be used by one goroutine at a time, but a [Client] and a [Server] by any number.
//
// # Compatibility
//
// From version 1.0.0 of this module on, no exported name of this package is removed and none changes its meaning before
// version 2: programs that compile go on doing so. Fields are added to structs, so write their literals with field names.
// What is on the wire stays RFC 5531. Texts of errors may change; what [errors.Is] and [errors.As] find doesn't. Limits may
// be raised, and the defaults of timeouts changed. Before 1.0.0 a change that breaks programs is named in the release's
// notes. All packages under pkg/ promise the same; make lint compares what they export with testdata/api.
package oncrpc
