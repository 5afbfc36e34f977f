package bed_test

import (
	"encoding/binary"
	"strings"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// message builds a call of program 100000 with AUTH_NONE; its xid is filled in
// when it is sent.
func message(version, procedure uint32, args []byte) []byte {
	return oncrpc.AppendCall(nil, oncrpc.Call{Program: rpcbind.Program, Version: version, Procedure: procedure, Args: args})
}

// withXID returns the message with another xid; messages shorter than one stay
// as they are.
func withXID(message []byte, xid uint32) []byte {
	m := append([]byte{}, message...)
	if len(m) >= 4 {
		binary.BigEndian.PutUint32(m, xid)
	}
	return m
}

func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = xdr.AppendUint32(b, v)
	}
	return b
}

func str(s string) []byte { return xdr.AppendString(nil, s) }

// rpcb encodes the arguments of versions 3 and 4; the owner is what a client
// claims and a portmapper ignores.
func rpcb(program, version uint32, netid, addr string) []byte {
	return rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: program, Version: version, Netid: rpcbind.Netid(netid), Addr: addr, Owner: "claimed"})
}

func mapping(program, version, prot, port uint32) []byte {
	return rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: program, Version: version, Prot: prot, Port: port})
}

// remoteCall encodes the arguments of CALLIT, BCAST and INDIRECT.
func remoteCall(program, version, procedure uint32, args []byte) []byte {
	return xdr.AppendOpaque(words(program, version, procedure), args)
}

// netbuf encodes the argument of TADDR2UADDR.
func netbuf(maxlen uint32, octets []byte) []byte { return xdr.AppendOpaque(words(maxlen), octets) }

// Calls by name, as tests use them.

func setPort(program, version, prot, port uint32) []byte {
	return message(2, rpcbind.ProcSet, mapping(program, version, prot, port))
}

func unsetPort(program, version uint32) []byte {
	return message(2, rpcbind.ProcUnset, mapping(program, version, 0, 0))
}

func getPort(program, version, prot uint32) []byte {
	return message(2, rpcbind.ProcGetPort, mapping(program, version, prot, 0))
}

func setAddr(rpcbVersion, program, version uint32, netid, addr string) []byte {
	return message(rpcbVersion, rpcbind.ProcSet, rpcb(program, version, netid, addr))
}

func unsetAddr(rpcbVersion, program, version uint32, netid string) []byte {
	return message(rpcbVersion, rpcbind.ProcUnset, rpcb(program, version, netid, ""))
}

func getAddr(rpcbVersion, program, version uint32, netid, hint string) []byte {
	return message(rpcbVersion, rpcbind.ProcGetAddr, rpcb(program, version, netid, hint))
}

func getVersAddr(program, version uint32, hint string) []byte {
	return message(4, rpcbind.ProcGetVersAddr, rpcb(program, version, "", hint))
}

func getAddrList(program, version uint32) []byte {
	return message(4, rpcbind.ProcGetAddrList, rpcb(program, version, "", ""))
}

func dump(version uint32) []byte { return message(version, rpcbind.ProcDump, nil) }

// results is what follows an accepted reply's header, or nil.
func results(reply []byte) []byte {
	r, err := oncrpc.ParseReply(reply)
	if err != nil || r.Denied || r.Accept != oncrpc.Success {
		return nil
	}
	return r.Results
}

// accepted builds an accepted reply with its results.
func accepted(xid uint32, stat oncrpc.AcceptStat, results []byte) []byte {
	return append(oncrpc.AppendAccepted(nil, xid, stat), results...)
}

// describe puts a reply into words for a failure message.
func describe(reply []byte) string {
	r, err := oncrpc.ParseReply(reply)
	switch {
	case err != nil:
		return err.Error()
	case r.Denied && r.Reject == oncrpc.RPCMismatch:
		return "RPC_MISMATCH"
	case r.Denied:
		return "AUTH_ERROR " + authStats[r.Auth]
	case r.Accept != oncrpc.Success:
		return acceptStats[r.Accept]
	}
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '.'
		}
		return c
	}, string(r.Results))
	return "SUCCESS " + text
}

var authStats = map[oncrpc.AuthStat]string{1: "BADCRED", 2: "REJECTEDCRED", 5: "TOOWEAK", 7: "FAILED"}

var acceptStats = map[oncrpc.AcceptStat]string{
	oncrpc.ProgUnavail: "PROG_UNAVAIL", oncrpc.ProgMismatch: "PROG_MISMATCH", oncrpc.ProcUnavail: "PROC_UNAVAIL",
	oncrpc.GarbageArgs: "GARBAGE_ARGS", oncrpc.SystemErr: "SYSTEM_ERR",
}

// decodeRPCBs decodes the results of a DUMP of version 3 or 4.
func decodeRPCBs(results []byte) []rpcbind.RPCB {
	d := xdr.NewDecoder(results)
	return rpcbind.ReadRPCBList(&d, 1<<16)
}

// entries encodes the results of GETADDRLIST: the same address for each netid.
func entries(addr string, netids ...rpcbind.Netid) []byte {
	var b []byte
	for _, n := range netids {
		transport, _ := n.Transport()
		b = rpcbind.AppendEntryElement(b, rpcbind.Entry{Addr: addr, Transport: transport})
	}
	return append(b, 0, 0, 0, 0)
}

// boolean encodes the result of SET and UNSET.
func boolean(v bool) []byte {
	if v {
		return words(1)
	}
	return words(0)
}

// ownEntries are the registrations of the portmapper itself, in the order of
// DUMP.
func ownEntries() []rpcbind.RPCB {
	var all []rpcbind.RPCB
	for _, own := range []struct {
		netid    rpcbind.Netid
		addr     string
		versions []uint32
	}{
		{rpcbind.TCP6, "::.0.111", []uint32{4, 3}},
		{rpcbind.UDP6, "::.0.111", []uint32{4, 3}},
		{rpcbind.TCP, "0.0.0.0.0.111", []uint32{4, 3, 2}},
		{rpcbind.UDP, "0.0.0.0.0.111", []uint32{4, 3, 2}},
		{rpcbind.Local, "/run/rpcbind.sock", []uint32{4, 3}},
	} {
		for _, version := range own.versions {
			all = append(all, rpcbind.RPCB{Program: rpcbind.Program, Version: version, Netid: own.netid, Addr: own.addr, Owner: "superuser"})
		}
	}
	return all
}

// dumpOf encodes the results of DUMP, version 3 or 4, for the portmapper's own
// entries and these after them.
func dumpOf(registered ...rpcbind.RPCB) []byte {
	var b []byte
	for _, entry := range append(ownEntries(), registered...) {
		b = rpcbind.AppendRPCBElement(b, entry)
	}
	return append(b, 0, 0, 0, 0)
}

// dumpOfPorts encodes the results of version 2's DUMP likewise.
func dumpOfPorts(registered ...rpcbind.Mapping) []byte {
	var b []byte
	for _, entry := range ownEntries() {
		if prot, ok := entry.Netid.Prot(); ok {
			b = rpcbind.AppendMappingElement(b, rpcbind.Mapping{Program: entry.Program, Version: entry.Version, Prot: prot, Port: rpcbind.Port})
		}
	}
	for _, m := range registered {
		b = rpcbind.AppendMappingElement(b, m)
	}
	return append(b, 0, 0, 0, 0)
}
