package bed_test

import (
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// user is an ordinary uid.
const user = 1234

// visitor is a kind of caller over one transport.
type visitor struct {
	tr    bed.Transport
	from  bed.From
	local bool // may SET
	// owner of its registrations; where rpcbind's differs it is a matter of
	// row 6.
	owner, rpcbindOwner string
}

// visitors lists every kind of caller over every transport.
func visitors() []visitor {
	to := func(addr string) netip.AddrPort { return netip.AddrPortFrom(bed.Addr(addr), 0) }
	var all []visitor
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6} {
		loopback, own, linkLocal := bed.Addr("127.0.0.1"), bed.HostIPv4, ""
		if tr.IPv6() {
			loopback, own, linkLocal = bed.Addr("::1"), bed.HostIPv6, bed.PeerLinkLocal+"%"+bed.PeerInterface
		}
		ofRoot, ofUser := "superuser", "1234"
		if tr.Datagram() { // nobody can tell who sent it
			ofRoot, ofUser = "unknown", "unknown"
		}
		all = append(all,
			visitor{tr, bed.From{}, true, ofRoot, "unknown"},
			visitor{tr, bed.From{UID: user, Connected: true}, true, ofUser, "unknown"},
			visitor{tr, bed.From{Addr: loopback, Port: 700}, true, "superuser", "superuser"},
			visitor{tr, bed.From{Addr: loopback, Port: 701, UID: user}, true, ofUser, "superuser"},
			visitor{tr: tr, from: bed.From{Addr: bed.Addr(own), To: to(own)}},
			visitor{tr: tr, from: bed.From{Remote: true}},
			visitor{tr: tr, from: bed.From{Remote: true, Port: 702}},
		)
		if linkLocal != "" {
			all = append(all, visitor{tr: tr, from: bed.From{
				Remote: true, Addr: bed.Addr(linkLocal), To: to(bed.HostLinkLocal + "%" + bed.PeerInterface)}})
		} else {
			// The whole of 127.0.0.0/8 is loopback, but only one address of
			// it is a local caller's.
			all = append(all, visitor{tr: tr, from: bed.From{Addr: bed.Addr("127.0.0.2")}})
		}
	}
	for _, tr := range []bed.Transport{bed.Unix, bed.Abstract} {
		all = append(all,
			visitor{tr, bed.From{}, true, "superuser", "superuser"},
			visitor{tr, bed.From{UID: user}, true, "1234", "1234"})
	}
	return all
}

// known is a program that a script registers before anything else.
const known = 0x2fff0000

// registerKnown lets root register known on every transport, version 2, and
// on tcp and udp version 5 after it.
func (s *script) registerKnown() {
	for _, e := range []struct {
		version     uint32
		netid, addr string
	}{
		{2, "udp", "0.0.0.0.8.1"}, {2, "tcp", "0.0.0.0.8.1"}, {2, "udp6", "::.8.1"}, {2, "tcp6", "::.8.1"}, {2, "local", "/run/known.sock"},
		{5, "udp", "0.0.0.0.8.5"}, {5, "tcp", "0.0.0.0.8.5"},
	} {
		s.add("SET of the known program", bed.Unix, bed.From{}, setAddr(4, known, e.version, e.netid, e.addr))
	}
}

// TestOracleScripted sends the same calls to rpcbind and gportmap: every
// procedure over every transport from every kind of caller.
func TestOracleScripted(t *testing.T) {
	t.Parallel()
	s := &script{opts: bed.Options{Remote: true}, alive: true}
	s.registerKnown()
	for i, v := range visitors() {
		s.everyProcedure(v, uint32(0x20000000+i<<4))
	}
	s.add("DUMP at the end", bed.Unix, bed.From{}, dump(4))
	s.compare(t)
}

// everyProcedure lets the visitor call each procedure, with a program of its
// own.
func (s *script) everyProcedure(v visitor, program uint32) {
	s.nullAndErrors(v)
	s.registerOwn(v, program)
	s.lookUp(v, program)
	s.list(v, program)
	s.addresses(v)
	s.remoteCalls(v, program)
	s.unregisterOwn(v, program)
}

// ask appends a call by the visitor. Those from the remote host are of the own network, which gets lists as from rpcbind;
// row 11 has the others.
func (s *script) ask(v visitor, name string, call []byte) *step {
	return s.add(name, v.tr, v.from, call)
}

func (s *script) nullAndErrors(v visitor) {
	for version := uint32(2); version <= 4; version++ {
		s.ask(v, "NULL", message(version, rpcbind.ProcNull, nil))
		s.ask(v, "NULL with octets after it", message(version, rpcbind.ProcNull, []byte("more")))
	}
	for _, version := range []uint32{0, 1, 5, 104316, 1<<32 - 1} {
		s.ask(v, "unknown version", message(version, rpcbind.ProcNull, nil))
	}
	s.ask(v, "unknown version and procedure", message(9, 99, nil))
	for _, vp := range [][2]uint32{{2, 6}, {2, 12}, {3, 9}, {3, 12}, {4, 13}, {4, 1<<32 - 1}} {
		s.ask(v, "unknown procedure", message(vp[0], vp[1], nil))
	}
	s.ask(v, "unknown program", oncrpc.AppendCall(nil, oncrpc.Call{Program: 100003, Version: 3}))
	s.ask(v, "unknown program and RPC version 2", oncrpc.AppendCall(nil, oncrpc.Call{Program: 0, Version: 0, Procedure: 77}))
	mismatch := s.ask(v, "RPC version 1", oncrpc.AppendCall(nil, oncrpc.Call{RPCVersion: 1, Program: rpcbind.Program, Version: 2}))
	mismatch.differs(1, outcome{Reply: oncrpc.AppendRPCMismatch(nil, mismatch.xid)})
	s.credentials(v)
	for _, now := range []uint32{3, 4} {
		s.ask(v, "GETTIME", message(now, rpcbind.ProcGetTime, nil)).now = true
	}
}

// credentials sends NULL with every kind of credential that is refused, and
// with the two that are not.
func (s *script) credentials(v visitor) {
	sys := func(c oncrpc.SysCred) []byte { return oncrpc.AppendSysCred(nil, c) }
	body := func(n int) []byte { return make([]byte, n) }
	for _, c := range []struct {
		name string
		auth oncrpc.OpaqueAuth
	}{
		{"AUTH_NONE with a body", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthNone, Body: body(400)}},
		{"AUTH_SYS", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(oncrpc.SysCred{MachineName: "host", UID: user, GIDs: []uint32{1, 2}})}},
		{"AUTH_SYS with 16 gids", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(oncrpc.SysCred{GIDs: make([]uint32, 16)})}},
		{"AUTH_SYS with 17 gids", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(oncrpc.SysCred{GIDs: make([]uint32, 17)})}},
		{"AUTH_SYS, name of 255", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(oncrpc.SysCred{MachineName: string(body(255))})}},
		{"AUTH_SYS, name of 256", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(oncrpc.SysCred{MachineName: string(body(256))})}},
		{"AUTH_SYS, octets after it", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: append(sys(oncrpc.SysCred{}), "tail"...)}},
		{"AUTH_SYS, empty", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys}},
		{"AUTH_SYS, 16 octets", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: body(16)}},
		{"AUTH_SYS, gids cut short", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: words(0, 0, 0, 0, 2, 7)}},
		{"AUTH_SHORT", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthShort, Body: body(8)}},
		{"AUTH_DES", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthDES, Body: body(8)}},
		{"RPCSEC_GSS", oncrpc.OpaqueAuth{Flavor: oncrpc.RPCSecGSS, Body: words(1, 1, 0, 1, 0)}},
		{"RPCSEC_GSS, empty", oncrpc.OpaqueAuth{Flavor: oncrpc.RPCSecGSS}},
		{"flavor 99", oncrpc.OpaqueAuth{Flavor: 99}},
	} {
		st := s.ask(v, c.name, oncrpc.AppendCall(nil, oncrpc.Call{Program: rpcbind.Program, Version: 2, Cred: c.auth}))
		if c.auth.Flavor == oncrpc.RPCSecGSS {
			// rpcbind parses the body and answers AUTH_FAILED or AUTH_BADCRED.
			st.differs(sectionThree, st.denies(oncrpc.AuthRejectedCred))
		}
	}
	// Refused before anything else is looked at.
	s.ask(v, "flavor 99 for an unknown program", oncrpc.AppendCall(nil, oncrpc.Call{Program: 5, Version: 5, Procedure: 5, Cred: oncrpc.OpaqueAuth{Flavor: 99}}))
}

// registerOwn makes registrations; callers that are not local are refused.
func (s *script) registerOwn(v visitor, program uint32) {
	s.ask(v, "PMAP SET", setPort(program, 1, rpcbind.ProtUDP, 2049))
	s.ask(v, "PMAP SET of the same", setPort(program, 1, rpcbind.ProtUDP, 2049))
	s.ask(v, "PMAP SET of another port", setPort(program, 1, rpcbind.ProtUDP, 2050))
	s.ask(v, "PMAP SET of an unknown protocol", setPort(program, 1, 132, 2050))
	s.cutShort(v, "PMAP SET", message(2, rpcbind.ProcSet, words(program, 1, 17)))
	s.ask(v, "SET v3", setAddr(3, program, 2, "tcp", "0.0.0.0.8.2"))
	s.ask(v, "SET v4", setAddr(4, program, 3, "udp6", "::.8.3"))
	s.ask(v, "SET v4 of another address", setAddr(4, program, 3, "udp6", "::.8.4"))
	s.ask(v, "SET v4 of tcp6", setAddr(4, program, 3, "tcp6", "::.8.4"))
	s.ask(v, "SET v4 of local", setAddr(4, program, 3, "local", "/run/own.sock"))
	s.ask(v, "SET v4 of an unknown netid", setAddr(4, program, 4, "rdma", "0.0.0.0.78.46"))
	s.cutShort(v, "SET v3", message(3, rpcbind.ProcSet, words(program, 2, 3)))
	s.ask(v, "SET v4, netid of 2^31 octets", message(4, rpcbind.ProcSet, words(program, 2, 1<<31)))
}

func (s *script) lookUp(v visitor, program uint32) {
	for _, p := range []uint32{program, known} {
		for _, version := range []uint32{0, 1, 2, 3, 5, 9} {
			for _, prot := range []uint32{rpcbind.ProtTCP, rpcbind.ProtUDP} {
				s.ask(v, "GETPORT", getPort(p, version, prot))
			}
			for rpcbVersion := uint32(3); rpcbVersion <= 4; rpcbVersion++ {
				s.merged(v, p == known, "GETADDR", getAddr(rpcbVersion, p, version, "", ""))
			}
			s.merged(v, p == known && (version == 2 || version == 5), "GETVERSADDR", getVersAddr(p, version, ""))
		}
	}
	s.ask(v, "GETPORT of an unknown protocol", getPort(known, 2, 132))
	s.cutShort(v, "GETPORT", message(2, rpcbind.ProcGetPort, words(known, 2, 6)))
	s.merged(v, true, "GETADDR of another netid", getAddr(4, known, 2, "sctp", ""))
	for _, hint := range []string{"zzz", "1.2.3.4", "999.1.1.1.0.111", "/run/rpcbind.sock"} {
		s.ask(v, "GETADDR with the hint "+hint, getAddr(4, known, 2, "", hint))
	}
	st := s.ask(v, "GETADDR with a neighbour's address as hint", getAddr(4, known, 2, "", bed.PeerIPv4+".0.111"))
	if v.tr == bed.UDP || v.tr == bed.TCP {
		// rpcbind takes the interface of the hint's network, gportmap the
		// address that the call was sent to.
		if to := v.sentTo(); to != bed.HostIPv4 {
			st.differs(9, st.replies(oncrpc.Success, str(to+".8.1")))
		}
	}
	s.ask(v, "GETADDR of nothing", getAddr(4, 0x2ffe0000, 2, "", ""))
	s.merged(v, true, "GETADDR of the portmapper", getAddr(4, rpcbind.Program, 4, "", ""))
}

// sentTo is the address that the visitor's calls over IPv4 are sent to.
func (v visitor) sentTo() string {
	switch {
	case v.from.To.Addr().IsValid():
		return v.from.To.Addr().String()
	case v.from.Remote:
		return bed.HostIPv4
	}
	return "127.0.0.1"
}

// merged appends a call whose reply holds merged addresses if there are any.
// rpcbind has none of the caller 127.0.0.2's and takes the first interface that
// is not loopback; gportmap takes the address that the call was sent to (row 9).
func (s *script) merged(v visitor, any bool, name string, call []byte) {
	st := s.ask(v, name, call)
	if any && v.from.Addr == bed.Addr("127.0.0.2") {
		st.differsBy(9, func(theirs outcome) outcome {
			d := xdr.NewDecoder(results(theirs.Reply))
			addr, ok := rpcbind.ParseUAddr(d.Opaque(100))
			if !ok {
				return theirs
			}
			return st.replies(oncrpc.Success, str(rpcbind.UAddr(netip.AddrPortFrom(bed.Addr("127.0.0.1"), addr.Port()))))
		})
	}
}

// cutShort appends a call whose arguments end too early. Over UDP rpcbind
// completes them with what an earlier caller left in its buffer: what it does then
// is a matter of row 2's own test.
func (s *script) cutShort(v visitor, name string, call []byte) {
	if !v.tr.Datagram() {
		s.ask(v, name+" cut short", call)
	}
}

func (s *script) list(v visitor, program uint32) {
	s.ask(v, "DUMP v2", dump(2))
	for version := uint32(3); version <= 4; version++ {
		st := s.ask(v, "DUMP", dump(version))
		if v.local && v.owner != v.rpcbindOwner {
			st.differsBy(6, withOwners(map[uint32]string{program: v.owner}))
		}
	}
	if st := s.ask(v, "GETADDRLIST", getAddrList(known, 2)); v.from.Addr == bed.Addr("127.0.0.2") {
		st.differs(9, st.replies(oncrpc.Success, entries("127.0.0.1.8.1", rpcbind.UDP, rpcbind.TCP)))
	}
	s.ask(v, "GETADDRLIST of one version", getAddrList(0x2ffe0000, 9))
	s.ask(v, "GETADDRLIST of nothing", getAddrList(0x2ffe0000, 2))
}

func (s *script) addresses(v visitor) {
	for _, addr := range []string{"127.0.0.1.8.1", "::1.8.1", "fe80::1.8.1", "::ffff:1.2.3.4.8.1", "1.2.3.4.255.255", "1.2.3.4", "junk", "", "/run/x"} {
		for version := uint32(3); version <= 4; version++ {
			call := message(version, rpcbind.ProcUAddr2TAddr, str(addr))
			// The netbuf of an IPv6 address is longer than a short address.
			const reply = oncrpc.AcceptedHeaderSize + 4 + 4 + 28
			if v.tr == bed.UDP6 && isIPv6(addr) && reply > len(call) {
				s.ask(v, "UADDR2TADDR "+addr, call)
				continue
			}
			s.ask(v, "UADDR2TADDR "+addr, call)
		}
	}
	inet := []byte{2, 0, 8, 1, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0}
	inet6 := append([]byte{10, 0, 8, 1, 0, 0, 0, 0, 0xfe, 0x80}, make([]byte, 18)...)
	for _, buf := range [][]byte{inet, inet6, inet[:8], inet6[:8], {2}, {1, 0, '/', 'x'}, {}} {
		for version := uint32(3); version <= 4; version++ {
			s.ask(v, "TADDR2UADDR", message(version, rpcbind.ProcTAddr2UAddr, netbuf(128, buf)))
		}
	}
	s.cutShort(v, "TADDR2UADDR", message(3, rpcbind.ProcTAddr2UAddr, words(128)))
}

// remoteCalls are off: silence, or an error for INDIRECT over UDP; PROC_UNAVAIL
// over streams (row 13).
func (s *script) remoteCalls(v visitor, program uint32) {
	for _, c := range []struct {
		name               string
		version, procedure uint32
		args               []byte
	}{
		{"CALLIT v2", 2, rpcbind.ProcCallIt, remoteCall(known, 2, 0, nil)},
		{"CALLIT v3", 3, rpcbind.ProcCallIt, remoteCall(known, 2, 0, nil)},
		{"BCAST", 4, rpcbind.ProcBcast, remoteCall(0x2ffe0000, 2, 0, nil)},
		{"INDIRECT", 4, rpcbind.ProcIndirect, remoteCall(known, 2, 0, nil)},
		{"INDIRECT of another version", 4, rpcbind.ProcIndirect, remoteCall(known, 9, 0, nil)},
		{"INDIRECT of nothing", 4, rpcbind.ProcIndirect, remoteCall(0x2ffe0000, 2, 0, nil)},
		{"INDIRECT of own", 4, rpcbind.ProcIndirect, remoteCall(program, 2, 0, nil)},
	} {
		st := s.ask(v, c.name, message(c.version, c.procedure, c.args))
		if !v.tr.Datagram() {
			st.differs(13, st.replies(oncrpc.ProcUnavail, nil))
		}
	}
}

func (s *script) unregisterOwn(v visitor, program uint32) {
	s.ask(v, "UNSET v3", unsetAddr(3, program, 2, "tcp"))
	s.ask(v, "UNSET v3 of the same again", unsetAddr(3, program, 2, "tcp"))
	s.ask(v, "PMAP UNSET", unsetPort(program, 1))
	s.cutShort(v, "PMAP UNSET", message(2, rpcbind.ProcUnset, words(program, 1)))
	s.ask(v, "UNSET v4 of one netid", unsetAddr(4, program, 3, "tcp6"))
	s.ask(v, "UNSET v4 of the rest", unsetAddr(4, program, 3, ""))
	s.ask(v, "UNSET v4 of an unknown netid", unsetAddr(4, program, 4, "rdma"))
	s.ask(v, "UNSET of nothing", unsetAddr(4, 0x2ffe0000, 4, ""))
}

// isIPv6 tells whether a universal address is one of IPv6.
func isIPv6(addr string) bool {
	ap, ok := rpcbind.ParseUAddr(addr)
	return ok && ap.Addr().Is6()
}
