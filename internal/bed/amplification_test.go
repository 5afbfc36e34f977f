package bed_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// headers are the octets of an IPv4 and a UDP header, with which a datagram counts on the wire.
const headers = 20 + 8

// answered is what a call of some size from beyond a router over UDP is answered, in octets, and from the own network.
type answered struct{ Call, Reply, Near int }

// factor is the amplification on the wire.
func (a answered) factor() float64 {
	if a.Reply == 0 {
		return 0
	}
	return float64(a.Reply+headers) / float64(a.Call+headers)
}

// amplifiers are the calls that may be answered with more than they are.
func amplifiers() []struct {
	Name string
	Call []byte
} {
	return []struct {
		Name string
		Call []byte
	}{
		{"v2 NULL", message(2, rpcbind.ProcNull, nil)},
		{"v2 GETPORT", getPort(100005, 3, rpcbind.ProtTCP)},
		{"v4 GETADDR", getAddr(4, 100005, 3, "", "")},
		{"v2 DUMP", dump(2)},
		{"v3 DUMP", dump(3)},
		{"v4 DUMP", dump(4)},
		{"v4 GETADDRLIST", getAddrList(100005, 3)},
		{"v4 GETSTAT, after 230 lookups", message(4, rpcbind.ProcGetStat, nil)},
		{"v3 TADDR2UADDR", message(3, rpcbind.ProcTAddr2UAddr, netbuf(16, []byte{2, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}))},
		{"v3 UADDR2TADDR", message(3, rpcbind.ProcUAddr2TAddr, str("1.2.3.4.5.6"))},
		{"version 9", message(9, rpcbind.ProcNull, nil)},
		{"procedure 99", message(4, 99, nil)},
		{"v2 CALLIT of what isn't there", message(2, rpcbind.ProcCallIt, remoteCall(7, 1, 0, nil))},
		{"v4 INDIRECT of another version", message(4, rpcbind.ProcIndirect, remoteCall(100003, 9, 0, nil))},
	}
}

// TestAmplification measures how many times larger than a stranger's call over UDP, from beyond a router, the answer is, of a
// host that serves NFS; docs/amplification.md has the table that it logs.
func TestAmplification(t *testing.T) {
	var tables [2]map[string]answered
	for i, subject := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(subject.String(), func(t *testing.T) {
			if subject == bed.Rpcbind {
				bed.NeedRpcbind(t)
			}
			tables[i] = bed.Collect(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) map[string]answered {
				ns.Start(t, subject, "-r")
				serveNFS(t, ns)
				beyondARouter(t)
				remote := ns.Dial(t, bed.UDP, bed.From{Remote: true})
				for i := range uint32(230) {
					if _, err := remote.Call(withXID(getPort(0x40000000+i, 1, rpcbind.ProtUDP), i)); err != nil {
						t.Fatal(err)
					}
				}
				found := make(map[string]answered)
				for _, a := range amplifiers() {
					reply, err := ns.Call(t, bed.UDP, bed.From{Remote: true}, withXID(a.Call, 1))
					if err != nil && !errors.Is(err, bed.ErrSilence) {
						t.Fatal(err)
					}
					far := askFrom(t, "far", farIPv4, bed.Addr(bed.HostIPv4), a.Call)
					found[a.Name] = answered{len(a.Call), len(far), len(reply)}
				}
				return found
			})
		})
	}
	if bed.Inside() {
		return
	}
	var table strings.Builder
	for _, a := range amplifiers() {
		r, g := tables[0][a.Name], tables[1][a.Name]
		fmt.Fprintf(&table, "\n| %s | %d | %d | ×%.1f | %d | ×%.1f | %d |", a.Name, len(a.Call), r.Reply, r.factor(), g.Reply, g.factor(), g.Near)
		more := 0
		if strings.Contains(a.Name, "GETADDR") {
			more = 16
		}
		if g.Reply > len(a.Call)+more {
			t.Errorf("%s: %d octets are answered with %d", a.Name, len(a.Call), g.Reply)
		}
		if !strings.Contains(a.Name, "GETSTAT") && g.Near != r.Near {
			t.Errorf("%s: the own network is answered with %d octets, by rpcbind with %d", a.Name, g.Near, r.Near)
		}
	}
	t.Logf("octets of a call, of rpcbind's reply, the factor on the wire, and the same of gportmap's, and its reply to the own network:%s", table.String())
}

// serveNFS registers what a host with the kernel's NFS server, mountd, statd and rquotad has: 34 programs, versions and netids.
func serveNFS(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, p := range []struct {
		program  uint32
		versions []uint32
		netids   []string
	}{
		{100003, []uint32{3, 4}, []string{"tcp", "tcp6"}},
		{100227, []uint32{3}, []string{"tcp", "tcp6"}},
		{100021, []uint32{1, 3, 4}, []string{"udp", "tcp", "udp6", "tcp6"}},
		{100005, []uint32{1, 2, 3}, []string{"udp", "tcp", "udp6", "tcp6"}},
		{100024, []uint32{1}, []string{"udp", "tcp", "udp6", "tcp6"}},
	} {
		for _, v := range p.versions {
			for _, n := range p.netids {
				addr := "0.0.0.0.8.1"
				if strings.HasSuffix(n, "6") {
					addr = "::.8.1"
				}
				register(t, ns, p.program, v, n, addr)
			}
		}
	}
}
