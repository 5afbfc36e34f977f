package daemon

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// mixed is a portmapper as the daemon has it: 10,000 programs, access rules and lists, a limit, and a recorder.
func mixed(t testing.TB, programs int) (*portmap.Portmapper, *admin.Recorder) {
	t.Helper()
	table := registry.New()
	for i := range programs {
		netid := []rpcbind.Netid{rpcbind.UDP, rpcbind.TCP, rpcbind.UDP6, rpcbind.TCP6, rpcbind.Local}[i%5]
		addr := []string{"0.0.0.0.8.1", "192.0.2.7.8.1", "::.8.1", "2001:db8::7.8.1", "/run/x"}[i%5]
		b := rpcbind.RPCB{Program: 300_000 + uint32(i/2), Version: 1 + uint32(i%3), Netid: netid, Addr: addr, Owner: "superuser"}
		if err := table.Set(b); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(text string) access.Rule {
		r, err := access.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	lists := map[string]string{
		access.HostsAllowPath: "rpcbind: 10.0.0.0/255.0.0.0 [2001:db8::]/32 127.0.0.1\n", access.HostsDenyPath: "rpcbind: 10.9.\n",
	}
	hosts, err := access.ReadHostsAccess(func(path string) ([]byte, error) { return []byte(lists[path]), nil },
		access.HostsAllowPath, access.HostsDenyPath, access.HostsPath)
	if err != nil {
		t.Fatal(err)
	}
	recorder := admin.NewRecorder()
	policy := &access.Policy{
		Limit:         access.NewLimiter(100_000, func() int64 { return time.Now().UnixNano() }),
		InterfaceName: func(uint32) string { return "eth0" },
		Connected:     func(netip.Addr, uint32) bool { return true },
		OwnAddress:    func(netip.Addr) bool { return false },
	}
	policy.SetRules(access.Rules{Deny: []access.Rule{rule("from 10.8.0.0/16 program 300001"), rule("on eth1")}, Hosts: hosts})
	p := portmap.New(portmap.Config{
		Table: table, Policy: policy, Now: func() uint32 { return 1 }, Count: recorder.Called,
	})
	return p, recorder
}

// mix makes calls as a world of users makes them: of versions 2 to 4, for programs that are registered and that aren't, from
// 10,000 addresses on each transport.
type mix struct {
	random   *rand.Rand
	programs uint32
	call     []byte
}

func (m *mix) next() ([]byte, portmap.Caller) {
	r := m.random
	prog := 300_000 + r.Uint32N(m.programs)
	if r.IntN(3) == 0 {
		prog = 1_000_000 + r.Uint32N(100_000)
	}
	vers := 1 + r.Uint32N(4)
	c := oncrpc.Call{XID: r.Uint32(), Program: rpcbind.Program}
	var args [64]byte
	a := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(args[:0], prog), vers)
	if c.Version = 2 + r.Uint32N(3); c.Version == 2 {
		c.Procedure = rpcbind.ProcGetPort
		a = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(a, []uint32{6, 17, 99}[r.IntN(3)]), 0)
	} else {
		c.Procedure = rpcbind.ProcGetAddr
		if c.Version == 4 && r.IntN(2) == 0 {
			c.Procedure = rpcbind.ProcGetVersAddr
		}
		a = xdr.AppendString(xdr.AppendString(xdr.AppendString(a, "tcp"), "192.0.2.1.0.111"), "")
	}
	c.Args = a
	m.call = oncrpc.AppendCall(m.call[:0], c)
	from := portmap.Caller{Transport: portmap.Transport(r.IntN(5)), Ifindex: 2}
	source := [16]byte{10, byte(r.IntN(10)), byte(r.IntN(40)), byte(r.IntN(25))}
	if from.Transport.IPv6() {
		source = [16]byte{0x20, 1, 0xd, 0xb8, 0, byte(r.IntN(40)), 0, byte(r.IntN(250)), 15: 1}
		from.Remote = netip.AddrPortFrom(netip.AddrFrom16(source), 900)
		from.Local = netip.MustParseAddrPort("[2001:db8::1]:111")
	} else if from.Transport != portmap.Local {
		from.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(source[:4])), 900)
		from.Local = netip.MustParseAddrPort("192.0.2.1:111")
	} else {
		from.Loopback, from.UID, from.HasUID = true, r.Uint32N(1000), true
	}
	return m.call, from
}

// TestEveryLookupAllocatesNothing holds for any sequence of programs, versions, callers and transports, with everything that the
// daemon does beside the answer.
func TestEveryLookupAllocatesNothing(t *testing.T) {
	const programs, calls = 10_000, 300_000
	p, recorder := mixed(t, programs)
	m := &mix{random: rand.New(rand.NewPCG(1, 2)), programs: programs}
	reply := make([]byte, 0, 9000)
	now := time.Now()
	var before, after runtime.MemStats
	made := func(n int) {
		for i := range n {
			call, from := m.next()
			reply = p.AppendReply(reply[:0], call, from)
			recorder.Answered(&from, 1, now.Add(time.Duration(i)*time.Millisecond), time.Microsecond)
		}
	}
	made(1000)
	runtime.ReadMemStats(&before)
	made(calls)
	runtime.ReadMemStats(&after)
	// The events that the recorder remembers of refused calls, a hundred a second at most, are the only ones.
	if n := after.Mallocs - before.Mallocs; n > calls/100 {
		t.Errorf("%d lookups made %d allocations", calls, n)
	} else {
		t.Logf("%d lookups made %d allocations", calls, n)
	}
}
