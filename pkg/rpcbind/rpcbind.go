// Package rpcbind speaks the protocols of the portmapper: PMAP version 2 and RPCBIND versions 3 and 4 (RFC 1833),
// with the transports' names and universal addresses of RFC 5665.
//
// A portmapper is program 100000 on port 111. It maps the number and version of an RPC program, and the transport
// that a client would use, to the address at which that program listens on the portmapper's host:
//
//	(100003, 3, "tcp") -> "10.0.0.5.8.1"    NFS version 3 over TCP: host 10.0.0.5, port 8×256+1 = 2049
//
// # Servers
//
// [Register] makes a program known to the portmapper of its host, keeps it known when that is started again, and takes it
// back at the end:
//
//	registration, err := rpcbind.Register(ctx, 100003, 3, listener)
//	defer registration.Close()
//
// A host without a portmapper, and a test, can have one in the program itself: package portmapper.
//
// # Clients
//
// [Dial] finds where a program of another host listens and connects to it; [Lookup] only finds it, for those who have an
// RPC library of their own:
//
//	nfs, err := rpcbind.Dial(ctx, "tcp", "nfs.example", 100003, 3)
//
// A [Dialer] does it with a credential, as of AUTH_SYS, and from a port of one's choice. [Broadcast] asks all portmappers of
// the local networks. A [Client], which [DialPortmapper] and [DialLocal] open, has every procedure of the protocol.
//
// # Layers
//
//	┌──────────────────────────────┬──────────────────────────────┐
//	│ Register  Registrar          │ Dial  Lookup  Broadcast      │  what servers and clients want
//	├──────────────────────────────┴──────────────────────────────┤
//	│ Client: Set Unset GetAddr Dump Stat CallIt …                │  what a portmapper can be asked   RFC 1833
//	├─────────────────────────────────────────────────────────────┤
//	│ RPCB  Mapping  Entry  Stats  Answer  Netid  ParseUAddr      │  what it answers        RFC 1833, RFC 5665
//	├─────────────────────────────────────────────────────────────┤
//	│ package oncrpc                                              │  calls and replies                RFC 5531
//	├─────────────────────────────────────────────────────────────┤
//	│ package xdr                                                 │  integers, strings, opaque        RFC 4506
//	└─────────────────────────────────────────────────────────────┘
//
// # What can be relied on
//
// Whatever a server sends, it is a result or an error, never a panic; memory is bounded by the octets that arrived, and
// those by [DefaultMaxReply], 36 MB. Every function that waits takes a context and returns when that ends. Every error of a
// conversation is an [*Error]. Text in results is the server's: it may hold anything, and should be escaped before a
// terminal sees it. Nothing here keeps state in package variables, reads files, or logs.
//
// The Read and Append functions are for protocols of the portmapper's family and for tests: they work on octets alone, and
// like all values here, but those that say otherwise, belong to one goroutine at a time.
//
// # Compatibility
//
// Package oncrpc says what importers may rely on; it holds here as well.
package rpcbind

// Program is the program number of the portmapper (RFC 1833 sections 2.1 and 3.1).
const Program = 100000

// Port is the well-known UDP and TCP port of the portmapper (RFC 1833 sections 2.2 and 3.2).
const Port = 111

// The sockets of the portmapper on its own host: a path, and since 2023 the same name in the abstract namespace,
// in Go's notation with a leading @.
const (
	SocketPath     = "/run/rpcbind.sock"
	SocketAbstract = "@/run/rpcbind.sock"
)

// The protocol's versions.
const (
	PMAPVers  = 2 // PMAP, RFC 1833 section 3
	RPCBVers3 = 3 // RPCBIND, RFC 1833 section 2
	RPCBVers4 = 4 // RPCBIND, RFC 1833 section 2
)

// Procedures. Version 2 has 0 to 5, version 3 has 0 to 8, version 4 has 0 to 12. In version 2, procedure 3 is
// called GETPORT; in version 4, procedure 5 is called BCAST (RFC 1833 sections 2.2.1, 2.2.2 and 3.2).
const (
	ProcNull        = 0
	ProcSet         = 1
	ProcUnset       = 2
	ProcGetPort     = 3
	ProcGetAddr     = 3
	ProcDump        = 4
	ProcCallIt      = 5
	ProcBcast       = 5
	ProcGetTime     = 6
	ProcUAddr2TAddr = 7
	ProcTAddr2UAddr = 8
	ProcGetVersAddr = 9
	ProcIndirect    = 10
	ProcGetAddrList = 11
	ProcGetStat     = 12
)

// Protocol numbers of a [Mapping]: those of IP (RFC 1833 section 3.1).
const (
	ProtTCP = 6
	ProtUDP = 17
)

// Owners that aren't a decimal uid, as rpcbind writes them.
const (
	OwnerSuperuser = "superuser" // root
	OwnerStatic    = "static"    // nobody: gportmap's configuration has it
	OwnerUnknown   = "unknown"   // a caller on loopback whose uid can't be told
)

// MulticastGroup is the IPv6 multicast group that portmappers listen to in place of IPv4's broadcasts
// (RFC 2375 section 3 reserves ff0x::202 for it; here the link-local scope).
const MulticastGroup = "ff02::202"
