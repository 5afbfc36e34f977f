package access

import (
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

// TestMappedNetworks has rules that name IPv4 networks as IPv6 writes them, for callers on IPv4 and dual-stack sockets.
func TestMappedNetworks(t *testing.T) {
	for _, c := range []struct {
		rule, from string
		permitted  bool
	}{
		{"from ::ffff:10.0.0.0/104", "10.1.2.3", false},
		{"from ::ffff:10.0.0.0/104", "11.1.2.3", true},
		{"from ::ffff:0:0/96", "198.51.100.1", false},
		{"from ::ffff:0:0/96", "2001:db8::1", true},
		{"from ::ffff:192.0.2.1/128", "192.0.2.1", false},
		{"from ::ffff:192.0.2.1", "192.0.2.1", false},
	} {
		rule, err := ParseRule(c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		var p Policy
		p.SetRules(Rules{Deny: []Rule{rule}})
		for _, remote := range []string{c.from, "::ffff:" + c.from} {
			if remote != c.from && c.from == "2001:db8::1" {
				continue
			}
			if got := p.Judge(caller(portmap.TCP, netip.AddrPortFrom(netip.MustParseAddr(remote), 900).String(), "10.0.0.1:111", false), portmap.Lookup, 0).Permitted; got != c.permitted {
				t.Errorf("deny %s: %s is permitted %v", c.rule, remote, got)
			}
		}
	}
	if r, err := ParseRule("from ::fffe:0:0/95"); err != nil {
		t.Error(r, err) // no mapped address
	}
	for _, s := range []string{"from ::ffff:0:0/95", "from ::ffff:10.0.0.0/90", "from ::ffff:10.0.0.1/104"} {
		if r, err := ParseRule(s); err == nil {
			t.Errorf("%s is accepted as %v", s, r.From)
		}
	}
}
