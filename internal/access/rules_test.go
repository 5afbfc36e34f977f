package access

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func rules(t *testing.T, list ...string) (parsed []Rule) {
	t.Helper()
	for _, s := range list {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, r)
	}
	return parsed
}

func TestParseRule(t *testing.T) {
	for _, c := range []struct{ rule, wrong string }{
		{"from 192.0.2.0/24", ""},
		{"from 192.0.2.1", ""},
		{"from 2001:db8::/32 on eth0 for list,lookup program 100003", ""},
		{"program 0x186a3 for register", ""},
		{"for remote-call", ""},
		{"", "a rule is empty"},
		{"from", `nothing stands behind "from"`},
		{"on eth0 from", `nothing stands behind "from"`},
		{"to 192.0.2.1", `"to" is none of from, on, for and program`},
		{"from 192.0.2.1/24", "did you mean 192.0.2.0/24?"},
		{"from example.com", "no address and no network"},
		{"from fe80::1%eth0", "no address and no network"},
		{"for lookups", `"lookups" is none of the classes`},
		{"program nfs", "no program number"},
		{"program 0", "program 0 is none"},
		{"program 4294967296", "no program number"},
		{"on eth0 on eth1", `a second "on"`},
	} {
		r, err := ParseRule(c.rule)
		switch {
		case c.wrong == "" && (err != nil || r.String() != c.rule):
			t.Errorf("%q: %q, %v", c.rule, r.String(), err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%q: %v, want %q", c.rule, err, c.wrong)
		}
	}
}

// onTestHost has eth0 (2) in 192.168.1.0/24 as 192.168.1.1, and wan (3) in 198.51.100.0/24.
func onTestHost() *Policy {
	nets := map[uint32]netip.Prefix{2: netip.MustParsePrefix("192.168.1.0/24"), 3: netip.MustParsePrefix("198.51.100.0/24")}
	return &Policy{
		OwnAddress:    func(a netip.Addr) bool { return a == netip.MustParseAddr("192.168.1.1") },
		InterfaceName: func(i uint32) string { return map[uint32]string{1: "lo", 2: "eth0", 3: "wan"}[i] },
		Connected:     func(a netip.Addr, i uint32) bool { return nets[i].Contains(a) },
	}
}

func by(ifindex uint32, t portmap.Transport, remote string) portmap.Caller {
	from := caller(t, remote, "192.168.1.1:111", ifindex == 1)
	from.Ifindex = ifindex
	return from
}

func TestJudge(t *testing.T) {
	lan, wan := by(2, portmap.UDP, "192.168.1.9:900"), by(3, portmap.TCP, "203.0.113.9:900")
	loop, own := by(1, portmap.TCP, "127.0.0.1:900"), by(2, portmap.UDP, "192.168.1.1:900")
	closed := hostsOf(t, disk{"deny": "rpcbind: 192.168.1.\n", "allow": "rpcbind: 192.168.1.7\n"})
	for _, c := range []struct {
		name  string
		rules Rules
		from  portmap.Caller
		class portmap.Class
		prog  uint32
		want  bool
		by    string
	}{
		{"world", Rules{}, wan, portmap.List, 0, true, "no rule"},
		{"lan for wan", Rules{Exposure: LAN}, wan, portmap.Lookup, 100003, false, `exposure = "lan"`},
		{"lan for lan", Rules{Exposure: LAN}, lan, portmap.Lookup, 100003, true, `exposure = "lan"`},
		{"lan, a private source by the wrong interface", Rules{Exposure: LAN}, by(3, portmap.UDP, "192.168.1.9:900"), portmap.Lookup, 0, false, "exposure"},
		{"lan, a public network that is connected", Rules{Exposure: LAN}, by(3, portmap.UDP, "198.51.100.9:900"), portmap.Lookup, 0, false, "exposure"},
		{"lan, forged loopback", Rules{Exposure: LAN}, by(2, portmap.UDP, "127.0.0.1:900"), portmap.Lookup, 0, false, "exposure"},
		{"local for lan", Rules{Exposure: LocalOnly}, lan, portmap.Lookup, 0, false, `exposure = "local"`},
		{"local for loopback", Rules{Exposure: LocalOnly}, loop, portmap.Lookup, 0, true, "exposure"},
		{"local for our own address", Rules{Exposure: LocalOnly}, own, portmap.List, 0, true, "exposure"},
		{"local socket", Rules{Exposure: LocalOnly, Deny: rules(t, "for list")}, localCaller(7, true), portmap.List, 0, true, "the local socket"},
		{"allow before exposure", Rules{Exposure: LocalOnly, Allow: rules(t, "from 203.0.113.0/24 for lookup")}, wan, portmap.Lookup, 7, true, "allow"},
		{"allow of another class", Rules{Exposure: LocalOnly, Allow: rules(t, "from 203.0.113.0/24 for lookup")}, wan, portmap.List, 0, false, "exposure"},
		{"allow before deny", Rules{Allow: rules(t, "program 7"), Deny: rules(t, "from 203.0.113.0/24")}, wan, portmap.Lookup, 7, true, `allow "program 7"`},
		{"deny", Rules{Allow: rules(t, "program 7"), Deny: rules(t, "from 203.0.113.0/24")}, wan, portmap.Lookup, 8, false, `deny "from 203.0.113.0/24"`},
		{"deny of a program, none named", Rules{Deny: rules(t, "program 7")}, wan, portmap.List, 0, true, "no rule"},
		{"deny on an interface", Rules{Deny: rules(t, "on wan for list")}, wan, portmap.List, 0, false, "on wan"},
		{"deny on another", Rules{Deny: rules(t, "on eth1 for list")}, wan, portmap.List, 0, true, "no rule"},
		{"hosts.deny before allow", Rules{Hosts: closed, Allow: rules(t, "from 192.168.1.0/24")}, lan, portmap.Lookup, 0, false, "deny:1:"},
		{"hosts.allow", Rules{Hosts: closed}, by(2, portmap.UDP, "192.168.1.7:9"), portmap.Lookup, 0, true, "allow:1:"},
		{"hosts.allow opens no exposure", Rules{Hosts: closed, Exposure: LocalOnly}, by(2, portmap.UDP, "192.168.1.7:9"), portmap.Lookup, 0, false, "exposure"},
	} {
		p := onTestHost()
		p.SetRules(c.rules)
		d := p.Judge(c.from, c.class, c.prog)
		if d.Permitted != c.want || !strings.Contains(d.String(), c.by) || p.Permits(c.from, c.class, c.prog) != c.want {
			t.Errorf("%s: %v by %s, want %v by %s", c.name, d.Permitted, d, c.want, c.by)
		}
	}
}

func TestListedNetworksMayHaveLargeDatagrams(t *testing.T) {
	lan := by(2, portmap.UDP, "192.168.1.9:900")
	for rule, want := range map[string]bool{
		"from 192.168.1.0/24":            true,
		"from 192.168.1.0/24 for list":   true,
		"from 192.168.1.0/24 on eth0":    true,
		"from 192.168.1.0/24 on wan":     false,
		"from 192.168.2.0/24":            false,
		"from 192.168.1.0/24 for lookup": false,
		"from 192.168.1.0/24 program 7":  false,
		"on eth0":                        false, // anybody's address may stand in a datagram
		"for list":                       false,
		"from 0.0.0.0/0":                 false,
	} {
		p := onTestHost()
		p.SetRules(Rules{Allow: rules(t, rule)})
		if got := p.MayAmplify(lan, portmap.List); got != want {
			t.Errorf("%s: %v, want %v", rule, got, want)
		}
	}
}

func TestMayForward(t *testing.T) {
	p := new(Policy)
	if !p.MayForward(100004, 2) {
		t.Error("without rules nothing is forwarded")
	}
	var targets []RemoteTarget
	for _, s := range []string{"100004:2", "0x20000000"} {
		target, err := ParseRemoteTarget(s)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target)
	}
	p.SetRules(Rules{RemoteCalls: targets})
	for _, c := range []struct {
		prog, proc uint32
		want       bool
	}{{100004, 2, true}, {100004, 1, false}, {100004, 0, false}, {0x20000000, 9, true}, {7, 0, false}} {
		if got := p.MayForward(c.prog, c.proc); got != c.want {
			t.Errorf("%d:%d %v", c.prog, c.proc, got)
		}
	}
	for _, s := range []string{"", "x", "1:", "1:x", "1:2:3", "-1"} {
		if _, err := ParseRemoteTarget(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestGrants(t *testing.T) {
	p := new(Policy)
	nfs := rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.1"}
	if err := p.Grants("1000", nfs); err != nil {
		t.Error(err)
	}
	foreign := errors.New("not bound")
	p.Bound = func(owner string, b rpcbind.RPCB) error {
		if owner == "superuser" {
			return nil
		}
		return foreign
	}
	p.SetRules(Rules{RootOnly: []uint32{100003}})
	if err := p.Grants("1000", nfs); !errors.Is(err, ErrRootOnly) {
		t.Errorf("a user's SET of a program of root: %v", err)
	}
	if err := p.Grants("superuser", nfs); err != nil {
		t.Error(err)
	}
	other := rpcbind.RPCB{Program: 7}
	if err := p.Grants("1000", other); err != nil {
		t.Errorf("bound is asked without strict-set: %v", err)
	}
	p.SetRules(Rules{StrictSet: true})
	if err := p.Grants("1000", other); !errors.Is(err, foreign) {
		t.Errorf("with strict-set: %v", err)
	}
}

func TestExposureNames(t *testing.T) {
	for _, e := range []Exposure{World, LAN, LocalOnly} {
		if got, err := ParseExposure(e.String()); got != e || err != nil {
			t.Errorf("%v: %v, %v", e, got, err)
		}
	}
	if _, err := ParseExposure("everybody"); err == nil {
		t.Error("everybody is taken")
	}
}

func someRules(tb testing.TB) *Policy {
	p := onTestHost()
	h, err := ReadHostsAccess(disk{"allow": "rpcbind: 192.168.1., [2001:db8::]/32\nrpcbind: 10.*\n", "deny": "ALL: 172.16.0.0/255.240.0.0\n"}.read, "allow", "deny", "hosts")
	if err != nil {
		tb.Fatal(err)
	}
	var r Rules
	for _, s := range []string{"from 203.0.113.0/24 on eth0", "from 2001:db8::/32"} {
		rule, err := ParseRule(s)
		if err != nil {
			tb.Fatal(err)
		}
		r.Deny = append(r.Deny, rule)
	}
	r.Hosts, r.Exposure = h, LAN
	p.SetRules(r)
	return p
}

func TestRulesAllocateNothing(t *testing.T) {
	p, from := someRules(t), by(2, portmap.UDP, "192.168.1.9:900")
	if !p.Permits(from, portmap.Lookup, 7) {
		t.Fatal("refused")
	}
	if n := testing.AllocsPerRun(100, func() { p.Permits(from, portmap.Lookup, 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPermits(b *testing.B) {
	from := by(2, portmap.UDP, "192.168.1.9:900")
	for name, p := range map[string]*Policy{"no rules": onTestHost(), "rules": someRules(b)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Permits(from, portmap.Lookup, 7)
			}
		})
	}
}
