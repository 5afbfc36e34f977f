package bed_test

import (
	"encoding/binary"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// row11 asks from the remote host over UDP for what is larger than the question: by public addresses, and by the private
// ones of the own network.
func row11(t *testing.T) {
	// As long as a universal address can be.
	const longest = "fd09:1111:2222:3333:4444:5555:6666:7777.255.255"
	s := &script{opts: bed.Options{Remote: true}, prepare: func(t *testing.T, ns *bed.NS) {
		command(t, "sh", "-ec", `ip addr add 198.51.100.1/24 dev veth0; ip -6 addr add 2001:db8::1/64 dev veth0 nodad
			ip -n peer addr add 198.51.100.2/24 dev veth1; ip -n peer -6 addr add 2001:db8::2/64 dev veth1 nodad`)
	}}
	const program = 0x30110001
	for _, e := range []struct{ netid, addr string }{{"udp", "0.0.0.0.8.1"}, {"udp6", longest}, {"tcp6", longest}} {
		s.add("SET "+e.netid, bed.Unix, root, setAddr(4, program, 1, e.netid, e.addr))
	}
	remote := bed.From{Remote: true}
	public := map[bed.Transport]bed.From{
		bed.UDP:  {Remote: true, Addr: bed.Addr("198.51.100.2"), To: addrPort("198.51.100.1")},
		bed.UDP6: {Remote: true, Addr: bed.Addr("2001:db8::2"), To: addrPort("2001:db8::1")},
	}
	for _, call := range [][]byte{dump(2), dump(3), dump(4), message(4, rpcbind.ProcGetStat, nil), getAddrList(program, 1)} {
		for _, tr := range []bed.Transport{bed.UDP, bed.UDP6} {
			st := s.add("a large answer", tr, public[tr], call)
			refused := st.denies(oncrpc.AuthTooWeak)
			if isGetAddrList(call) {
				refused = outcome{Reply: oncrpc.AppendProgMismatch(nil, st.xid, 2, 3)}
			}
			st.differs(11, refused)
			if !isGetStat(call) && (tr == bed.UDP || !isGetAddrList(call)) { // row 9 has the latter over IPv6
				s.add("the same for a neighbour", tr, remote, call)
			}
		}
		if !isGetStat(call) {
			s.add("the same for a local caller", bed.UDP, root, call)
			s.add("the same over TCP", bed.TCP, remote, call)
		}
	}
	// A lookup is never refused for its size, and a specific address is kept
	// (row 9).
	minimal := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: program, Version: 1})
	for _, procedure := range []uint32{rpcbind.ProcGetAddr, rpcbind.ProcGetVersAddr} {
		st := s.add("a lookup of the longest address", bed.UDP6, remote, message(4, procedure, minimal))
		st.differs(9, st.replies(oncrpc.Success, str(longest)))
	}
	s.compare(t)
}

func isGetStat(call []byte) bool { return isVersion4(call, rpcbind.ProcGetStat) }

func isGetAddrList(call []byte) bool { return isVersion4(call, rpcbind.ProcGetAddrList) }

func isVersion4(call []byte, procedure uint32) bool {
	c, err := oncrpc.ParseCall(call)
	return err == nil && c.Version == 4 && c.Procedure == procedure
}

// row24 has remote calls counted that were not indirect, and some that were.
func row24(t *testing.T) {
	s := &script{args: []string{"-r"}}
	const program = 0x30240000
	for i := range uint32(2) {
		s.add("CALLIT v2", bed.UDP, root, message(2, rpcbind.ProcCallIt, remoteCall(program+i, 1, 0, nil)))
		s.add("CALLIT v3", bed.UDP, root, message(3, rpcbind.ProcCallIt, remoteCall(program+i, 1, 0, nil)))
		s.add("BCAST", bed.UDP, root, message(4, rpcbind.ProcBcast, remoteCall(program+i, 1, 0, nil)))
	}
	s.add("INDIRECT", bed.UDP, root, message(4, rpcbind.ProcIndirect, remoteCall(program+7, 1, 0, nil)))
	s.add("INDIRECT of another after BCAST", bed.UDP, root, message(4, rpcbind.ProcIndirect, remoteCall(program+1, 1, 0, nil)))
	s.add("GETSTAT", bed.TCP, root, message(4, rpcbind.ProcGetStat, nil)).differsBy(24, func(theirs outcome) outcome {
		return editIndirect(theirs, func(program, theirs uint32) uint32 {
			// rpcbind starts at 1 whatever the first call was.
			if program == 0x30240007 {
				return theirs
			}
			return theirs - 1
		})
	})
	s.compare(t)
}

// editIndirect changes the indirect counts in a reply of GETSTAT.
func editIndirect(theirs outcome, edit func(program, indirect uint32) uint32) outcome {
	reply := append([]byte{}, theirs.Reply...)
	walkStat(reply, nil, func(entry []byte) {
		// program, version, procedure, successes, failures, indirect
		count := entry[5*xdr.Unit:]
		binary.BigEndian.PutUint32(count, edit(binary.BigEndian.Uint32(entry), binary.BigEndian.Uint32(count)))
	})
	return outcome{Reply: reply}
}

// walkStat calls counters with the procedure, SET and UNSET counters of each
// version in a reply of GETSTAT, and remote with each element of its lists of
// remote calls, without the netid (RFC 1833 section 2.1, struct rpcb_stat). Either
// function may be nil, and change what it is given.
func walkStat(reply []byte, counters, remote func(octets []byte)) {
	const countersOctets, lookupOctets, remoteOctets = (13 + 2) * xdr.Unit, 4 * xdr.Unit, 6 * xdr.Unit
	visit := func(f func([]byte), octets []byte) {
		if f != nil && octets != nil {
			f(octets)
		}
	}
	d := xdr.NewDecoder(reply[min(len(reply), oncrpc.AcceptedHeaderSize):])
	for version := 2; version <= 4; version++ {
		visit(counters, d.Fixed(countersOctets))
		for d.Bool() {
			d.Fixed(lookupOctets)
			d.Opaque(100)
		}
		for d.Bool() {
			visit(remote, d.Fixed(remoteOctets))
			d.Opaque(100)
		}
	}
}
