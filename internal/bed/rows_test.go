package bed_test

import (
	"fmt"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// TestRows shows, for each row of section 8 of the contract, what rpcbind
// answers and what gportmap answers instead. A row's test fails when either
// answers otherwise. Row 14 is not built yet.
func TestRows(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"row01_rpc_mismatch", row01},
		{"row02_truncated_datagram", row02},
		{"row03_unset_of_mixed_owners", row03},
		{"row04_refused_pmap_unset", row04},
		{"row05_invalid_set", row05},
		{"row06_owner_of_loopback_caller", row06},
		{"row07_spoofed_loopback", row07},
		{"row08_dead_server", row08},
		{"row09_merged_address", row09},
		{"row10_bounded_statistics", row10},
		{"row11_amplification", row11},
		{"row12_forwarded_call", row12},
		{"row13_remote_call_over_stream", row13},
		{"row15_large_uid", row15},
		{"row16_own_entries", row16},
		{"row17_fragmented_record", row17},
		{"row18_echoed_verifier", row18},
		{"row19_list_with_unknown_netid", row19},
		{"row20_forbidden_target", row20},
		{"row21_large_dump_over_udp", row21},
		{"row22_one_table", row22},
		{"row23_one_fragment", row23},
		{"row24_indirect_count", row24},
		{"row25_reply_port", row25},
		{"row26_multicast_group", row26},
	} {
		t.Run(row.name, row.test)
	}
}

func row01(t *testing.T) {
	s := &script{}
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6, bed.Unix, bed.Abstract} {
		for _, rpcVersion := range []uint32{0, 1, 3, 1<<32 - 1} {
			call := append(words(0, 0, rpcVersion), message(2, 0, nil)[12:]...)
			st := s.add(fmt.Sprintf("RPC version %d", rpcVersion), tr, root, call)
			st.differs(1, outcome{Reply: append(words(st.xid, 1, 1, 0), words(2, 2)...)})
		}
	}
	s.compare(t)
}

func row02(t *testing.T) {
	s := &script{}
	const program = 0x30020001
	s.add("SET", bed.Unix, root, setPort(program, 1, rpcbind.ProtUDP, 2049))
	whole := getPort(program, 1, rpcbind.ProtUDP)
	for _, tr := range []bed.Transport{bed.UDP, bed.UDP6} {
		for octets := 4; octets < len(whole); octets++ {
			s.add("the whole call", tr, root, whole)
			st := s.add(fmt.Sprintf("the first %d octets", octets), tr, root, whole[:octets])
			if octets < oncrpc.CallHeaderSize {
				// rpcbind, too, is silent where not even xid and message
				// type are there.
				st.follows(2, outcome{})
				continue
			}
			st.differs(2, st.replies(oncrpc.GarbageArgs, nil))
		}
	}
	s.compare(t)
}

func row03(t *testing.T) {
	s := &script{}
	const program = 0x30030001
	s.add("SET tcp by a user", bed.Unix, ordinary, setAddr(4, program, 1, "tcp", "0.0.0.0.8.1"))
	s.add("SET udp by root", bed.Unix, root, setAddr(4, program, 1, "udp", "0.0.0.0.8.1"))
	s.add("UNSET of both by the user", bed.Unix, ordinary, unsetAddr(4, program, 1, ""))
	st := s.add("DUMP v4", bed.TCP, root, dump(4))
	st.differs(3, st.replies(oncrpc.Success, dumpOf(
		rpcbind.RPCB{Program: program, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "1234"},
		rpcbind.RPCB{Program: program, Version: 1, Netid: "udp", Addr: "0.0.0.0.8.1", Owner: "superuser"})))
	st = s.add("GETADDR tcp", bed.TCP, root, getAddr(4, program, 1, "tcp", ""))
	st.differs(3, st.replies(oncrpc.Success, str("127.0.0.1.8.1")))
	// Here rpcbind's second list still has what the first has lost.
	s.add("GETPORT tcp", bed.UDP, root, getPort(program, 1, rpcbind.ProtTCP))
	st = s.add("DUMP v2", bed.TCP, root, dump(2))
	st.follows(3, st.replies(oncrpc.Success, dumpOfPorts(
		rpcbind.Mapping{Program: program, Version: 1, Prot: rpcbind.ProtTCP, Port: 2049},
		rpcbind.Mapping{Program: program, Version: 1, Prot: rpcbind.ProtUDP, Port: 2049})))
	s.add("UNSET of both by root", bed.Unix, root, unsetAddr(4, program, 1, ""))
	s.add("DUMP v4 after", bed.TCP, root, dump(4))
	s.add("DUMP v2 after", bed.TCP, root, dump(2))
	s.compare(t)
}

func row04(t *testing.T) {
	s := &script{}
	const program = 0x30040001
	s.add("SET by root", bed.Unix, root, setPort(program, 1, rpcbind.ProtTCP, 2049))
	for _, tr := range []bed.Transport{bed.Unix, bed.Abstract} {
		st := s.add("PMAP UNSET by a user", tr, ordinary, unsetPort(program, 1))
		st.differs(4, st.replies(oncrpc.Success, boolean(false)))
	}
	s.add("GETPORT", bed.UDP, root, getPort(program, 1, rpcbind.ProtTCP))
	s.add("PMAP UNSET by root", bed.Unix, root, unsetPort(program, 1))
	s.add("PMAP UNSET of nothing by a user", bed.Unix, ordinary, unsetPort(program, 1))
	s.compare(t)
}

func row05(t *testing.T) {
	s := &script{}
	program := uint32(0x30050000)
	for _, port := range []uint32{65536, 70000, 1<<32 - 1} {
		program++
		st := s.add(fmt.Sprintf("PMAP SET of port %d", port), bed.Unix, root, setPort(program, 1, rpcbind.ProtTCP, port))
		st.differs(5, st.replies(oncrpc.Success, boolean(false)))
	}
	st := s.add("PMAP SET of program 0", bed.Unix, root, setPort(0, 1, rpcbind.ProtTCP, 2049))
	st.differs(5, st.replies(oncrpc.Success, boolean(false)))
	st = s.add("SET of program 0", bed.Unix, root, setAddr(4, 0, 1, "udp", "0.0.0.0.8.1"))
	st.differs(5, st.replies(oncrpc.Success, boolean(false)))
	for _, bad := range []struct{ netid, addr string }{
		{"", "0.0.0.0.8.1"}, {"", ""}, {"a\x00b", "x"}, {"tcp\n", "0.0.0.0.8.1"}, {"\x1b[31m", "x"}, {"sct\xff", "x"},
		{"rdma", "0.0.0.0.8.1\r\n"}, {"local", "/run/a\x7fb"}, {"ticots", "a\x80"},
		{"tcp", ""}, {"tcp", "junk"}, {"tcp", "0.0.0.0.300.5"}, {"tcp", "0.0.0.0.8.256"}, {"tcp", "0.0.0.0.8"}, {"tcp", "0.0.0.0"},
		{"tcp", "0.0.0.0.8.1.1"}, {"tcp", "256.0.0.0.8.1"}, {"tcp", "0.0.0.0.8.1 "}, {"tcp", "0.0.0.0.-8.1"}, {"tcp", "localhost.8.1"},
		{"tcp", "::.8.1"}, {"udp", "::1.8.1"}, {"tcp6", "0.0.0.0.8.1"}, {"udp6", "1.2.3.4.8.1"}, {"udp6", "::g.8.1"}, {"TCP6", "::.8.300"},
	} {
		program++
		st := s.add(fmt.Sprintf("SET of %q %q", bad.netid, bad.addr), bed.Unix, root, setAddr(4, program, 1, bad.netid, bad.addr))
		st.differs(5, st.replies(oncrpc.Success, boolean(false)))
	}
	var kept []rpcbind.RPCB
	for _, good := range []struct{ netid, addr string }{
		{"rdma", "0.0.0.0.78.46"}, {"sctp", "anything printable"}, {"ticots", "x"}, {"local", "/run/good.sock"}, {"tcp6", "fe80::1.8.1"}, {"udp", "0.0.0.0.0.0"},
	} {
		program++
		s.add("SET of "+good.netid, bed.Unix, root, setAddr(3, program, 1, good.netid, good.addr))
		kept = append(kept, rpcbind.RPCB{Program: program, Version: 1, Netid: rpcbind.Netid(good.netid), Addr: good.addr, Owner: "superuser"})
	}
	st = s.add("DUMP", bed.Unix, root, dump(4))
	st.differs(5, st.replies(oncrpc.Success, dumpOf(kept...)))
	s.compare(t)
}

func row06(t *testing.T) {
	s := &script{}
	program := uint32(0x30060000)
	owners := map[uint32]string{}
	for _, uid := range []uint32{0, user} {
		owner := "superuser"
		if uid != 0 {
			owner = "1234"
		}
		for _, c := range []struct {
			tr   bed.Transport
			from bed.From
		}{
			{bed.UDP, bed.From{UID: uid}}, {bed.UDP, bed.From{UID: uid, Connected: true}}, {bed.UDP, loopback4(uid, 800)}, {bed.UDP, loopback4(uid, 40000)},
			{bed.TCP, bed.From{UID: uid}}, {bed.TCP, loopback4(uid, 800)}, {bed.TCP, loopback4(uid, 40000)},
			{bed.UDP6, bed.From{UID: uid}}, {bed.UDP6, bed.From{UID: uid, Port: 801}}, {bed.TCP6, bed.From{UID: uid}}, {bed.TCP6, bed.From{UID: uid, Port: 801}},
			{bed.Unix, bed.From{UID: uid}},
		} {
			program++
			if owners[program] = owner; c.tr.Datagram() && (uid != 0 || c.from.Port == 0 || c.from.Port > 1023) {
				owners[program] = "unknown"
			}
			s.add("SET", c.tr, c.from, setAddr(4, program, 1, "tcp", "0.0.0.0.8.1"))
		}
	}
	s.add("DUMP", bed.Unix, root, dump(4)).differsBy(6, withOwners(owners))
	s.compare(t)
}

func row09(t *testing.T) {
	s := &script{opts: bed.Options{Remote: true}, prepare: func(t *testing.T, ns *bed.NS) {
		command(t, "ip", "addr", "add", "10.9.9.3/24", "dev", bed.HostInterface)
		command(t, "ip", "addr", "add", "fd09::3/64", "dev", bed.HostInterface, "nodad")
	}}
	const wildcard, specific, loopback = 0x30090001, 0x30090002, 0x30090003
	for _, e := range []struct {
		program     uint32
		netid, addr string
	}{
		{wildcard, "udp", "0.0.0.0.8.1"}, {wildcard, "tcp6", "::.8.1"}, {specific, "udp", "10.1.2.3.8.1"}, {specific, "tcp6", "fd01::1.8.1"},
		{loopback, "udp", "127.0.0.1.8.1"}, {loopback, "tcp6", "::1.8.1"},
	} {
		s.add("SET", bed.Unix, root, setAddr(4, e.program, 1, e.netid, e.addr))
	}
	for _, c := range []struct {
		tr               bed.Transport
		to, first, exact string // where the call goes; the address that the kernel lists first; the specific one
	}{
		{bed.UDP, "10.9.9.3", bed.HostIPv4, "10.1.2.3.8.1"},
		{bed.TCP6, bed.HostIPv6, "fd09::3", "fd01::1.8.1"},
	} {
		from := bed.From{Remote: true, To: addrPort(c.to)}
		for _, program := range []uint32{wildcard, loopback} {
			st := s.add("GETADDR at the second address", c.tr, from, getAddr(4, program, 1, "", ""))
			st.differs(9, st.replies(oncrpc.Success, str(c.to+".8.1")))
			s.add("GETADDR with the first address as hint", c.tr, from, getAddr(4, program, 1, "", c.first+".0.111"))
		}
		st := s.add("GETADDR of a specific address", c.tr, from, getAddr(4, specific, 1, "", ""))
		st.differs(9, st.replies(oncrpc.Success, str(c.exact)))
	}
	s.compare(t)
}

func row13(t *testing.T) {
	s := &script{args: []string{"-r"}}
	for _, tr := range []bed.Transport{bed.TCP, bed.TCP6, bed.Unix, bed.Abstract} {
		for _, vp := range [][2]uint32{{2, rpcbind.ProcCallIt}, {3, rpcbind.ProcCallIt}, {4, rpcbind.ProcBcast}, {4, rpcbind.ProcIndirect}} {
			st := s.add(fmt.Sprintf("procedure %d of version %d", vp[1], vp[0]), tr, root, message(vp[0], vp[1], remoteCall(rpcbind.Program, 2, 0, nil)))
			st.differs(13, st.replies(oncrpc.ProcUnavail, nil))
		}
	}
	s.compare(t)
}

func row15(t *testing.T) {
	s := &script{}
	owners := map[uint32]string{}
	for i, uid := range []uint32{1<<31 - 1, 1 << 31, 1<<32 - 2} {
		program := uint32(0x30150000 + i)
		owners[program] = fmt.Sprint(uid)
		s.add(fmt.Sprintf("SET by uid %d", uid), bed.Unix, bed.From{UID: uid}, setPort(program, 1, rpcbind.ProtTCP, 2049))
	}
	s.add("DUMP", bed.Unix, root, dump(4)).differsBy(15, withOwners(owners))
	for i, uid := range []uint32{1<<31 - 1, 1 << 31, 1<<32 - 2} {
		s.add("UNSET by the owner", bed.Unix, bed.From{UID: uid}, unsetAddr(4, uint32(0x30150000+i), 1, ""))
	}
	s.compare(t)
}

func row16(t *testing.T) {
	s := &script{}
	for _, call := range [][]byte{
		unsetAddr(4, rpcbind.Program, 4, "udp"), unsetAddr(3, rpcbind.Program, 3, ""), unsetPort(rpcbind.Program, 2), unsetAddr(4, rpcbind.Program, 4, ""),
	} {
		st := s.add("UNSET of the portmapper's own", bed.Unix, root, call)
		st.differs(16, st.replies(oncrpc.Success, boolean(false)))
	}
	st := s.add("DUMP", bed.Unix, root, dump(3))
	st.differs(16, st.replies(oncrpc.Success, dumpOf()))
	st = s.add("DUMP v2", bed.Unix, root, dump(2))
	st.differs(16, st.replies(oncrpc.Success, dumpOfPorts()))
	s.compare(t)
}

func row18(t *testing.T) {
	s := &script{}
	cred := oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: oncrpc.AppendSysCred(nil, oncrpc.SysCred{MachineName: "host"})}
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.Unix} {
		for _, verf := range []oncrpc.OpaqueAuth{{Flavor: 7, Body: []byte("verifier")}, {Flavor: oncrpc.AuthShort, Body: []byte("four")}, {Body: []byte("none")}} {
			call := oncrpc.AppendCall(nil, oncrpc.Call{Program: rpcbind.Program, Version: 2, Cred: cred, Verf: verf})
			st := s.add(fmt.Sprintf("AUTH_SYS with a verifier of flavor %d", verf.Flavor), tr, root, call)
			st.differs(18, st.replies(oncrpc.Success, nil))
		}
	}
	s.compare(t)
}

func row19(t *testing.T) {
	s := &script{}
	const program = 0x30190001
	for _, e := range []struct{ netid, addr string }{{"tcp", "0.0.0.0.8.1"}, {"rdma", "0.0.0.0.78.46"}, {"udp", "0.0.0.0.8.2"}} {
		s.add("SET "+e.netid, bed.Unix, root, setAddr(4, program, 1, e.netid, e.addr))
	}
	for _, tr := range []bed.Transport{bed.TCP, bed.UDP} {
		st := s.add("GETADDRLIST", tr, root, getAddrList(program, 1))
		want := entries("127.0.0.1.8.1", rpcbind.TCP)
		st.differs(19, st.replies(oncrpc.Success, append(want[:len(want)-xdr.Unit], entries("127.0.0.1.8.2", rpcbind.UDP)...)))
	}
	s.compare(t)
}

func row20(t *testing.T) {
	s := &script{args: []string{"-r"}}
	for _, target := range []struct {
		name               string
		program, procedure uint32
	}{
		{"portmapper SET", rpcbind.Program, rpcbind.ProcSet}, {"portmapper DUMP", rpcbind.Program, rpcbind.ProcDump},
		{"MOUNT MNT", 100005, 1}, {"MOUNT UMNT", 100005, 3}, {"YPBIND SETDOM", 100007, 2}, {"YPPASSWD", 100009, 1},
		{"NFS", 100003, 1}, {"RQUOTA", 100011, 1},
		{"YP MATCH", 100004, 3}, {"YP FIRST", 100004, 4}, {"YP NEXT", 100004, 5}, {"YP ALL", 100004, 8},
	} {
		args := remoteCall(target.program, 1, target.procedure, nil)
		for _, vp := range [][2]uint32{{2, rpcbind.ProcCallIt}, {3, rpcbind.ProcCallIt}, {4, rpcbind.ProcBcast}} {
			s.add(fmt.Sprintf("v%d remote call of %s", vp[0], target.name), bed.UDP, root, message(vp[0], vp[1], args)).differs(20, outcome{})
		}
		s.add("INDIRECT of "+target.name, bed.UDP, root, message(4, rpcbind.ProcIndirect, args))
	}
	s.compare(t)
}

func row21(t *testing.T) {
	s := &script{}
	for i := range uint32(460) {
		s.add("SET", bed.Unix, root, setPort(0x30210000+i, 1, rpcbind.ProtUDP, 2049))
	}
	st := s.add("DUMP v2", bed.UDP, root, dump(2))
	st.differs(21, st.replies(oncrpc.SystemErr, nil))
	s.add("DUMP v3", bed.UDP, root, dump(3))
	s.add("DUMP v4", bed.UDP6, root, dump(4))
	s.add("DUMP v2 over TCP", bed.TCP, root, dump(2))
	s.compare(t)
}

func row22(t *testing.T) {
	s := &script{alive: true}
	const program, odd, upper = 0x30220001, 0x30220002, 0x30220003
	s.add("SET udp", bed.Unix, root, setAddr(4, program, 1, "udp", "0.0.0.0.8.1"))
	s.add("UNSET UDP", bed.Unix, root, unsetAddr(4, program, 1, "UDP"))
	s.add("GETADDR udp", bed.UDP, root, getAddr(4, program, 1, "", ""))
	st := s.add("GETPORT udp", bed.UDP, root, getPort(program, 1, rpcbind.ProtUDP))
	st.follows(22, st.replies(oncrpc.Success, words(0)))
	st = s.add("DUMP v2", bed.Unix, root, dump(2))
	st.differs(22, st.replies(oncrpc.Success, dumpOfPorts()))
	st = s.add("SET of port 256.1", bed.Unix, root, setAddr(4, odd, 1, "tcp", "0.0.0.0.256.1"))
	st.differs(22, st.replies(oncrpc.Success, boolean(false)))
	st = s.add("GETPORT of 256.1", bed.UDP, root, getPort(odd, 1, rpcbind.ProtTCP))
	st.differs(22, st.replies(oncrpc.Success, words(0)))
	s.add("SET TCP", bed.Unix, root, setAddr(4, upper, 1, "TCP", "0.0.0.0.8.1"))
	s.add("SET tcp of another address", bed.Unix, root, setAddr(4, upper, 1, "tcp", "0.0.0.0.8.2"))
	st = s.add("GETPORT of TCP", bed.UDP, root, getPort(upper, 1, rpcbind.ProtTCP))
	st.differs(22, st.replies(oncrpc.Success, words(2049)))
	s.compare(t)
}
