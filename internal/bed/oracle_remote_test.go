package bed_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Procedures of the service that remote calls go to: each answers in its own
// way.
const (
	echoProcedure     = 1
	unavailProcedure  = 2
	garbageProcedure  = 3
	mismatchProcedure = 4
	systemProcedure   = 5
	deniedProcedure   = 6
)

// serve answers calls until the test ends.
func serve(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			if call, err := oncrpc.ParseCall(buffer[:n]); err == nil {
				conn.WriteToUDPAddrPort(serviceReply(call), from)
			}
		}
	}()
}

func serviceReply(call oncrpc.Call) []byte {
	switch call.Procedure {
	case echoProcedure:
		return accepted(call.XID, oncrpc.Success, call.Args)
	case unavailProcedure:
		return accepted(call.XID, oncrpc.ProcUnavail, nil)
	case garbageProcedure:
		return accepted(call.XID, oncrpc.GarbageArgs, nil)
	case mismatchProcedure:
		return oncrpc.AppendProgMismatch(nil, call.XID, 3, 9)
	case systemProcedure:
		return accepted(call.XID, oncrpc.SystemErr, nil)
	case deniedProcedure:
		return oncrpc.AppendAuthError(nil, call.XID, oncrpc.AuthTooWeak)
	}
	return accepted(call.XID, oncrpc.Success, nil)
}

// TestOracleRemoteCalls forwards calls, which -r allows, to a service that
// answers in every way.
func TestOracleRemoteCalls(t *testing.T) {
	t.Parallel()
	s := &script{opts: bed.Options{Remote: true}, args: []string{"-r"}, prepare: func(t *testing.T, ns *bed.NS) {
		serve(t, "0.0.0.0:5000")
		serve(t, "[::]:5001")
	}}
	const program, dead = 0x26000001, 0x26000002
	for _, e := range []struct {
		program, version uint32
		netid, addr      string
	}{
		{program, 2, "udp", "0.0.0.0.19.136"}, {program, 2, "udp6", "::.19.137"}, {program, 4, "udp", "0.0.0.0.19.136"}, {program, 2, "tcp", "0.0.0.0.8.1"},
		{dead, 1, "udp", "0.0.0.0.19.139"}, {dead, 1, "tcp", "0.0.0.0.8.1"},
	} {
		s.add("SET", bed.Unix, root, setAddr(4, e.program, e.version, e.netid, e.addr))
	}
	visit := func(tr bed.Transport, from bed.From, rpcbVersion, procedure, program, version, target uint32, args []byte) *step {
		name := fmt.Sprintf("v%d procedure %d for version %d procedure %d", rpcbVersion, procedure, version, target)
		return s.add(name, tr, from, message(rpcbVersion, procedure, remoteCall(program, version, target, args)))
	}
	for _, v := range []visitor{{tr: bed.UDP, from: bed.From{Patient: true}}, {tr: bed.UDP6, from: bed.From{Remote: true, Patient: true}}} {
		for _, vp := range [][2]uint32{{2, rpcbind.ProcCallIt}, {3, rpcbind.ProcCallIt}, {4, rpcbind.ProcBcast}, {4, rpcbind.ProcIndirect}} {
			for target := uint32(0); target <= deniedProcedure; target++ {
				visit(v.tr, v.from, vp[0], vp[1], program, 2, target, binary.BigEndian.AppendUint32(nil, 0xfeedbeef))
			}
			visit(v.tr, v.from, vp[0], vp[1], program, 9, echoProcedure, nil)
			visit(v.tr, v.from, vp[0], vp[1], program+7, 2, echoProcedure, nil)
			visit(v.tr, v.from, vp[0], vp[1], rpcbind.Program, 2, rpcbind.ProcNull, nil)
		}
	}
	s.compare(t)
}

// TestRemoteCallDuplicates repeats a call while it is in flight: the service
// gets it once, the caller one answer.
func TestRemoteCallDuplicates(t *testing.T) {
	t.Parallel()
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject, "-r")
		const program = 0x26000003
		register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		service := listen(t, "127.0.0.1:5000")
		c := ns.Dial(t, bed.UDP, bed.From{})
		call := withXID(message(2, rpcbind.ProcCallIt, remoteCall(program, 1, echoProcedure, nil)), 77)
		for range 3 {
			if err := c.SendCall(call); err != nil {
				t.Fatal(err)
			}
		}
		first, from := service.receive(t)
		if !service.none(t, 200*time.Millisecond) {
			t.Errorf("a duplicate was forwarded")
		}
		service.reply(t, from, first.XID, nil)
		if _, err := c.Receive(patience); err != nil {
			t.Errorf("the answer: %v", err)
		}
		// Answered, it is a new call.
		if err := c.SendCall(call); err != nil {
			t.Fatal(err)
		}
		again, from := service.receive(t)
		service.reply(t, from, again.XID, nil)
		if _, err := c.Receive(patience); err != nil {
			t.Errorf("the answer to the same call later: %v", err)
		}
	})
}
