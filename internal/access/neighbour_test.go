package access

import (
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

// neighbourhood is a policy of a host with a private, a public and two IPv6 networks on interface 2.
func neighbourhood(lists UDPLists, clock *hand) *Policy {
	networks := []netip.Prefix{
		netip.MustParsePrefix("10.1.0.1/16"), netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("fd00:1::1/64"), netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("fe80::1/64"),
	}
	p := &Policy{Limit: NewLimiter(0, clock.now), Connected: func(a netip.Addr, ifindex uint32) bool {
		for _, n := range networks {
			if n.Contains(a) && (ifindex == 2 || ifindex == 0) {
				return true
			}
		}
		return false
	}}
	p.SetRules(Rules{UDPLists: lists})
	return p
}

func TestNeighbour(t *testing.T) {
	var clock hand
	for _, c := range []struct {
		name, from   string
		hops         uint8
		ifindex      uint32
		group, large bool
	}{
		{"private", "10.1.2.3", 64, 2, false, true},
		{"private, as Windows sends", "10.1.2.3", 128, 2, false, true},
		{"private, as Solaris sends", "10.1.2.3", 255, 2, false, true},
		{"IPv4 on a dual-stack socket", "::ffff:10.1.2.3", 64, 2, false, true},
		{"unique-local", "fd00:1::7", 64, 2, false, true},
		{"link-local", "fe80::7", 255, 2, false, true},
		{"link-local of IPv4", "169.254.7.7", 64, 2, false, true},
		{"passed on by a router", "10.1.2.3", 63, 2, false, false},
		{"by a hop limit that no host begins with", "10.1.2.3", 127, 2, false, false},
		{"by an unknown hop limit", "10.1.2.3", 0, 2, false, false},
		{"by another interface", "10.1.2.3", 64, 3, false, false},
		{"by an unknown interface", "10.1.2.3", 64, 0, false, false},
		{"another private network", "10.2.0.1", 64, 2, false, false},
		{"another unique-local network", "fd00:2::1", 64, 2, false, false},
		{"public, connected", "198.51.100.2", 64, 2, false, false},
		{"public, connected, IPv6", "2001:db8::2", 64, 2, false, false},
		{"to a group", "10.1.2.3", 64, 2, true, false},
	} {
		for _, lists := range []UDPLists{ConnectedLists, LocalLists, AllLists} {
			p := neighbourhood(lists, &clock)
			from := portmap.Caller{Transport: portmap.UDP, Remote: netip.AddrPortFrom(netip.MustParseAddr(c.from), 900),
				Local: netip.MustParseAddrPort("10.1.0.1:111"), Ifindex: c.ifindex, Hops: c.hops, Multicast: c.group}
			want := lists == AllLists || lists == ConnectedLists && c.large
			if got := p.MayAmplify(from, portmap.List); got != want {
				t.Errorf("%s, udp-lists %v: a large answer %v, want %v", c.name, lists, got, want)
			}
		}
	}
	if p := new(Policy); p.MayAmplify(portmap.Caller{Transport: portmap.UDP, Remote: netip.MustParseAddrPort("10.1.2.3:900"), Hops: 64, Ifindex: 2}, portmap.List) {
		t.Error("a policy that knows no interfaces lets a large answer go to another host")
	}
}

// TestListsANeighbourGets holds that there is a bound however many neighbours ask, or are forged.
func TestListsANeighbourGets(t *testing.T) {
	var clock hand
	p := neighbourhood(ConnectedLists, &clock)
	got := 0
	for i := range uint32(100_000) { // in two seconds
		clock.ns.Add(20_000)
		if p.MayAmplify(portmap.Caller{Transport: portmap.UDP, Remote: netip.AddrPortFrom(addr4(0x0a010000+i%60000), 900), Ifindex: 2, Hops: 64}, portmap.List) {
			got++
		}
	}
	if got < 2*listRate || got > 3*listRate {
		t.Errorf("%d large answers in 2 s, want %d to %d", got, 2*listRate, 3*listRate)
	}
}

func TestParseUDPLists(t *testing.T) {
	for i, name := range udpLists {
		if got, err := ParseUDPLists(name); err != nil || got != UDPLists(i) || got.String() != name {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := ParseUDPLists("lan"); err == nil {
		t.Error("lan is accepted")
	}
}
