package bed_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// TestOracleMutated sends calls with random damage over streams. (Over UDP
// rpcbind completes what is cut short with an earlier caller's octets, row 2.)
func TestOracleMutated(t *testing.T) {
	t.Parallel()
	t.Logf("-bed.seed=%d -bed.steps=%d", *seedFlag, *stepsFlag)
	random := rand.New(rand.NewPCG(*seedFlag, 1))
	s := &script{}
	s.registerKnown()
	whole := wholeCalls()
	transports := []bed.Transport{bed.TCP, bed.TCP6, bed.Unix, bed.Abstract}
	for len(s.steps) < *stepsFlag {
		tr := transports[random.IntN(len(transports))]
		call := damage(random, whole[random.IntN(len(whole))])
		if row, ours, ok := judgeDamaged(tr, call); ok {
			st := s.add("a damaged call", tr, root, call)
			if row != 0 {
				st.follows(row, ours(st))
			}
		}
	}
	s.add("the table", bed.Unix, root, dump(4))
	s.compare(t)
}

// wholeCalls are the calls that are damaged.
func wholeCalls() [][]byte {
	all := [][]byte{
		getPort(known, 2, rpcbind.ProtTCP), getAddr(3, known, 2, "tcp", ""), getAddr(4, known, 9, "", ""), getVersAddr(known, 2, ""), getAddrList(known, 2),
		message(3, rpcbind.ProcUAddr2TAddr, str("1.2.3.4.5.6")), message(4, rpcbind.ProcUAddr2TAddr, str("fe80::1.8.1")),
		message(3, rpcbind.ProcTAddr2UAddr, netbuf(16, []byte{2, 0, 8, 1, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0})),
		dump(2), dump(3), dump(4),
	}
	sys := oncrpc.AppendSysCred(nil, oncrpc.SysCred{MachineName: "host.example", UID: user, GID: 1, GIDs: []uint32{1, 2, 3}})
	for version := uint32(2); version <= 4; version++ {
		for _, flavor := range []oncrpc.Flavor{oncrpc.AuthNone, oncrpc.AuthSys, oncrpc.AuthShort, oncrpc.AuthDES} {
			all = append(all, oncrpc.AppendCall(nil, oncrpc.Call{Program: rpcbind.Program, Version: version, Cred: oncrpc.OpaqueAuth{Flavor: flavor, Body: sys}}))
		}
	}
	return all
}

// damage changes a few octets of a call, or its length.
func damage(random *rand.Rand, call []byte) []byte {
	call = append([]byte{}, call...)
	for range 1 + random.IntN(3) {
		if len(call) < 8 {
			return call
		}
		at := random.IntN(len(call))
		switch random.IntN(8) {
		case 0:
			call = call[:at]
		case 1:
			call = append(call, make([]byte, random.IntN(40))...)
		case 2:
			// A word, where words are.
			copy(call[at&^3:], words([]uint32{0, 1, 2, 3, 4, 5, 6, 7, 399, 400, 401, 1<<31 - 1, 1 << 31, 1<<32 - 1}[random.IntN(14)]))
		case 3:
			call[at] ^= 1 << random.IntN(8)
		default:
			call[at] = byte(random.IntN(256))
		}
	}
	return call
}

// judgeDamaged tells whether a damaged call may be sent, and the row by which
// gportmap's outcome is known apart from rpcbind's, if there is one. What changes
// the table, tells the time or counts is left out, and what other tests show to
// differ.
func judgeDamaged(tr bed.Transport, message []byte) (row int, ours func(*step) outcome, ok bool) {
	call, err := oncrpc.ParseCall(message)
	if err != nil {
		return 0, nil, true
	}
	switch {
	case call.RPCVersion != oncrpc.RPCVersion:
		return 1, func(st *step) outcome { return outcome{Reply: oncrpc.AppendRPCMismatch(nil, st.xid)} }, true
	case call.Cred.Flavor == oncrpc.RPCSecGSS:
		return sectionThree, func(st *step) outcome { return st.denies(oncrpc.AuthRejectedCred) }, true
	case call.Cred.Flavor == oncrpc.AuthSys && len(call.Verf.Body) > 0:
		return 0, nil, false // row 18
	case call.Program != rpcbind.Program || call.Version < 2 || call.Version > 4:
		return 0, nil, true
	}
	return 0, nil, alike(tr, call)
}

// alike tells whether both subjects answer a call of program 100000 alike.
func alike(tr bed.Transport, call oncrpc.Call) bool {
	d := xdr.NewDecoder(call.Args)
	switch call.Procedure {
	case rpcbind.ProcSet, rpcbind.ProcUnset, rpcbind.ProcCallIt:
		return false
	case rpcbind.ProcGetTime:
		return call.Version == 2
	case rpcbind.ProcIndirect, rpcbind.ProcGetStat:
		return call.Version < 4
	case rpcbind.ProcGetAddr, rpcbind.ProcGetVersAddr:
		b := rpcbind.ReadRPCB(&d, 1<<20)
		return call.Version == 2 || d.Err() != nil || b.Addr == "" || tr.Local() // hints: row 9
	case rpcbind.ProcUAddr2TAddr:
		addr := string(d.Opaque(1 << 20))
		return call.Version == 2 || tr.Local() || !isSloppy(addr)
	}
	return true
}

// isSloppy tells whether a universal address has a right host and a port that
// only C's atoi can read, which section 5 of the contract takes for junk.
func isSloppy(addr string) bool {
	if _, valid := rpcbind.ParseUAddr(addr); valid {
		return false
	}
	addr, _, _ = strings.Cut(addr, "\x00")
	for range 2 {
		dot := strings.LastIndexByte(addr, '.')
		if dot < 0 {
			return false
		}
		addr = addr[:dot]
	}
	_, err := netip.ParseAddr(addr)
	return err == nil
}
