package rpcbind

import "strconv"

// Names of the procedures by number (RFC 1833 sections 2.2.1, 2.2.2 and 3.2).
var (
	pmapProcs  = [...]string{"NULL", "SET", "UNSET", "GETPORT", "DUMP", "CALLIT"}
	rpcb3Procs = [...]string{"NULL", "SET", "UNSET", "GETADDR", "DUMP", "CALLIT", "GETTIME", "UADDR2TADDR", "TADDR2UADDR"}
	rpcb4Procs = [...]string{"NULL", "SET", "UNSET", "GETADDR", "DUMP", "BCAST", "GETTIME", "UADDR2TADDR", "TADDR2UADDR",
		"GETVERSADDR", "INDIRECT", "GETADDRLIST", "GETSTAT"}
)

// ProcedureName returns the name that RFC 1833 has for a procedure of versions 2, 3 and 4, as "GETPORT"; "procedure 7" for
// one that the version doesn't have.
func ProcedureName(version, procedure uint32) string {
	var names []string
	switch version {
	case PMAPVers:
		names = pmapProcs[:]
	case RPCBVers3:
		names = rpcb3Procs[:]
	case RPCBVers4:
		names = rpcb4Procs[:]
	}
	if uint64(procedure) < uint64(len(names)) {
		return names[procedure]
	}
	return "procedure " + strconv.FormatUint(uint64(procedure), 10)
}
