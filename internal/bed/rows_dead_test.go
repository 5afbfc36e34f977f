package bed_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// row08 registers other addresses in the place of registrations whose servers live, have ended or never were. rpcbind
// refuses every one.
func row08(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		d := &deadTest{t: t, ns: ns, subject: subject, program: 0x30080000}
		d.lifetimes()
		for _, c := range secondSets() {
			d.check(c)
		}
		d.version2()
		d.ownEntries()
		d.dump("at the end")
	})
}

// registrant calls over the local socket, so that both subjects know it by the same name.
type registrant struct {
	from  bed.From
	owner string
}

var (
	byRoot      = registrant{root, rpcbind.OwnerSuperuser}
	byUser      = registrant{ordinary, "1234"}
	byNeighbour = registrant{neighbour, "1235"}
)

// place is what a registration says beside program and version.
type place struct{ netid, addr string }

// secondSet is a registration and a SET of another address for its program, version and netid.
type secondSet struct {
	name         string
	first, other place
	owner, by    registrant
	// network and address of a socket that is bound meanwhile, as bed.NS.Hold has them; empty for none.
	network, address string
	replaces         bool // gportmap's answer; rpcbind's is always FALSE
}

// ipPlaces are wildcard addresses of each netid, and what a server there is bound to.
var ipPlaces = []struct {
	first, other     place
	network, address string
}{
	{place{"tcp", "0.0.0.0.8.1"}, place{"tcp", "0.0.0.0.8.2"}, "tcp4", "0.0.0.0:2049"},
	{place{"udp", "0.0.0.0.8.1"}, place{"udp", "0.0.0.0.8.2"}, "udp4", "0.0.0.0:2049"},
	{place{"tcp6", "::.8.1"}, place{"tcp6", "::.8.2"}, "tcp6", "[::]:2049"},
	{place{"udp6", "::.8.1"}, place{"udp6", "::.8.2"}, "udp6", "[::]:2049"},
}

// secondSets are the cases but those of lifetimes, version2 and ownEntries.
func secondSets() []secondSet {
	all := slices.Concat(addressSets(), foreignSets())
	for _, p := range ipPlaces {
		for _, who := range []struct {
			name      string
			owner, by registrant
			replaces  bool
		}{
			{"a user's by the superuser", byUser, byRoot, true},
			{"the superuser's by the superuser", byRoot, byRoot, true},
			{"the superuser's by a user", byRoot, byUser, false},
		} {
			all = append(all, secondSet{
				name: "dead, " + who.name, first: p.first, other: p.other, owner: who.owner, by: who.by, replaces: who.replaces,
			})
		}
	}
	// Netids are compared without regard to case.
	return append(all, secondSet{
		name: "dead, a netid in capitals", first: place{"TCP", "0.0.0.0.8.1"}, other: place{"tcp", "0.0.0.0.8.2"},
		owner: byUser, by: byUser, replaces: true,
	})
}

// addressSets are about addresses of this host and sockets bound to others, to both families or to other ports.
func addressSets() []secondSet {
	const v4, v6 = bed.HostIPv4, bed.HostIPv6
	var all []secondSet
	for _, c := range []struct {
		name, netid, first, other, network, address string
		replaces                                    bool
	}{
		{"an own address, dead", "tcp", v4 + ".8.1", v4 + ".8.2", "", "", true},
		{"an own address, dead", "udp", v4 + ".8.1", "0.0.0.0.8.2", "", "", true},
		{"an own address, dead", "tcp6", v6 + ".8.1", v6 + ".8.2", "", "", true},
		{"a link-local address, dead", "udp6", bed.HostLinkLocal + ".8.1", "::.8.2", "", "", true},
		{"loopback, dead", "udp", "127.0.0.1.8.1", "0.0.0.0.8.2", "", "", true},
		{"loopback, dead", "tcp6", "::1.8.1", "::.8.2", "", "", true},
		{"an own address, alive", "tcp", v4 + ".8.1", "0.0.0.0.8.2", "tcp4", v4 + ":2049", false},
		{"an own address, alive", "udp6", v6 + ".8.1", "::.8.2", "udp6", "[" + v6 + "]:2049", false},
		{"an own address, bound to the wildcard", "udp", v4 + ".8.1", "0.0.0.0.8.2", "udp4", ":2049", false},
		{"an own address, bound to another", "tcp", v4 + ".8.1", "0.0.0.0.8.2", "tcp4", "127.0.0.1:2049", true},
		{"the wildcard, bound to one address", "tcp", "0.0.0.0.8.1", "0.0.0.0.8.2", "tcp4", "127.0.0.1:2049", false},
		{"the wildcard, bound to one address", "udp6", "::.8.1", "::.8.2", "udp6", "[::1]:2049", false},
		{"bound by a socket of both families", "tcp", "0.0.0.0.8.1", "0.0.0.0.8.2", "tcp", ":2049", false},
		{"bound by a socket of both families", "udp", "0.0.0.0.8.1", "0.0.0.0.8.2", "udp", ":2049", false},
		{"bound in UDP", "tcp", "0.0.0.0.8.1", "0.0.0.0.8.2", "udp4", ":2049", true},
		{"bound in IPv6 alone", "tcp", "0.0.0.0.8.1", "0.0.0.0.8.2", "tcp6", ":2049", true},
		{"bound in IPv4", "udp6", "::.8.1", "::.8.2", "udp4", ":2049", true},
		{"another port bound", "tcp", "0.0.0.0.8.1", "0.0.0.0.8.2", "tcp4", ":2050", true},
		{"port 0, to which nobody is bound", "tcp", "0.0.0.0.0.0", "0.0.0.0.8.2", "", "", true},
	} {
		all = append(all, secondSet{
			c.name, place{c.netid, c.first}, place{c.netid, c.other}, byUser, byUser, c.network, c.address, c.replaces,
		})
	}
	return all
}

// foreignSets are about what isn't served from a port of this host: nobody may take that for dead.
func foreignSets() []secondSet {
	var all []secondSet
	add := func(name string, first, other place) {
		for _, who := range []registrant{byUser, byRoot} {
			all = append(all, secondSet{name: name, first: first, other: other, owner: who, by: who})
		}
	}
	for _, addr := range []string{bed.PeerIPv4, "192.0.2.1", "255.255.255.255"} {
		add("another host", place{"tcp", addr + ".8.1"}, place{"tcp", "0.0.0.0.8.2"})
		add("another host", place{"udp", addr + ".8.1"}, place{"udp", addr + ".8.2"})
	}
	for _, addr := range []string{bed.PeerIPv6, "2001:db8::1", bed.PeerLinkLocal} {
		add("another host", place{"tcp6", addr + ".8.1"}, place{"tcp6", "::.8.2"})
		add("another host", place{"udp6", addr + ".8.1"}, place{"udp6", addr + ".8.2"})
	}
	const name = "no netid of IP"
	add(name, place{"local", "/run/gone.sock"}, place{"local", "/run/new.sock"})
	add(name, place{"ticots", "gone"}, place{"ticots", "new"})
	add(name, place{"sctp", "0.0.0.0.8.1"}, place{"sctp", "0.0.0.0.8.2"})
	add(name, place{"rdma", "0.0.0.0.78.46"}, place{"rdma", "0.0.0.0.78.47"})
	return all
}

// deadTest is row 8's test of one subject.
type deadTest struct {
	t       *testing.T
	ns      *bed.NS
	subject bed.Subject
	program uint32 // the one registered last
	table   []rpcbind.RPCB
}

// set makes a SET and wants an answer.
func (d *deadTest) set(what string, who registrant, version uint32, p place, want bool) {
	d.t.Helper()
	got := must(d.t, d.ns, bed.Unix, who.from, setAddr(4, d.program, version, p.netid, p.addr))
	d.answered(fmt.Sprintf("%s: SET of %s %s by %s", what, p.netid, p.addr, who.owner), who, version, p, got, want)
}

// answered compares a SET's answer and keeps the table that DUMP must show: what is registered is there already, or comes
// last, and the entry with the same program, version and netid has given way to it.
func (d *deadTest) answered(what string, who registrant, version uint32, p place, got []byte, want bool) {
	d.t.Helper()
	if !bytes.Equal(got, boolean(want)) {
		d.t.Errorf("%s: %x, want %x", what, got, boolean(want))
	}
	b := rpcbind.RPCB{Program: d.program, Version: version, Netid: rpcbind.Netid(p.netid), Addr: p.addr, Owner: who.owner}
	if !want || slices.Contains(d.table, b) {
		return
	}
	d.table = slices.DeleteFunc(d.table, func(old rpcbind.RPCB) bool {
		return old.Program == b.Program && old.Version == b.Version && old.Netid.Is(b.Netid)
	})
	d.table = append(d.table, b)
}

// ours tells whether a SET that gportmap grants is granted here.
func (d *deadTest) ours(replaces bool) bool { return replaces && d.subject == bed.Gportmap }

// check registers, has someone else register after it, and makes the second SET.
func (d *deadTest) check(c secondSet) {
	d.t.Helper()
	d.program++
	what := fmt.Sprintf("%s %s, %s", c.first.netid, c.first.addr, c.name)
	d.set(what, c.owner, 1, c.first, true)
	d.set("the entry after it", byNeighbour, 2, c.first, true)
	release := func() {}
	if c.network != "" {
		release = d.ns.Hold(d.t, c.network, c.address)
	}
	d.set(what, c.by, 1, c.other, d.ours(c.replaces))
	release()
	d.found(what, map[bool]place{false: c.first, true: c.other}[d.ours(c.replaces)])
	d.dump(what)
}

// found looks version 1 up, by GETPORT where that is possible and by GETADDR over the transport of the netid.
func (d *deadTest) found(what string, want place) {
	d.t.Helper()
	addr, ok := rpcbind.ParseUAddr(want.addr)
	netid := rpcbind.Netid(want.netid)
	transport, known := netid.Transport()
	if !ok || !known || !transport.IP() {
		return
	}
	// In rpcbind's list of version 2 there are no netids in capitals (row 22).
	if prot, ok := netid.Prot(); ok && (d.subject == bed.Gportmap || netid == transport.Netid) {
		port := must(d.t, d.ns, bed.UDP, root, getPort(d.program, 1, prot))
		if !bytes.Equal(port, words(uint32(addr.Port()))) {
			d.t.Errorf("%s: GETPORT %x, want port %d", what, port, addr.Port())
		}
	}
	r := xdr.NewDecoder(must(d.t, d.ns, bed.Transport(transport.Netid), root, getAddr(4, d.program, 1, "", "")))
	told := string(r.Opaque(100))
	if got, ok := rpcbind.ParseUAddr(told); !ok || got.Port() != addr.Port() {
		d.t.Errorf("%s: GETADDR %q, want port %d", what, told, addr.Port())
	}
}

// dump compares the whole table, owners and order included.
func (d *deadTest) dump(what string) {
	d.t.Helper()
	got := must(d.t, d.ns, bed.Unix, root, dump(4))
	if want := dumpOf(d.table...); !bytes.Equal(got, want) {
		d.t.Errorf("%s: DUMP\n%+v\nwant\n%+v", what, decodeRPCBs(got), decodeRPCBs(want))
	}
}

// lifetimes has servers that live, when nobody may replace what they registered, and end.
func (d *deadTest) lifetimes() {
	for _, p := range ipPlaces {
		d.program++
		what := p.first.netid + ", alive"
		end := d.ns.Hold(d.t, p.network, p.address)
		d.set(what, byUser, 1, p.first, true)
		d.set("the entry after it", byNeighbour, 2, p.first, true)
		for _, who := range []registrant{byUser, byRoot, byNeighbour} {
			d.set(what, who, 1, p.other, false)
		}
		d.set("the same again", byUser, 1, p.first, true)
		d.found(what, p.first)
		d.dump(what)

		end()
		what = p.first.netid + ", dead"
		d.set(what, byNeighbour, 1, p.other, false)
		d.found(what, p.first)
		d.set(what, byUser, 1, p.other, d.ours(true))
		d.found(what, map[bool]place{false: p.first, true: p.other}[d.ours(true)])
		d.dump(what)
	}
}

// version2 registers as clients of version 2 do, who know no addresses.
func (d *deadTest) version2() {
	for _, c := range []struct {
		network, netid string
		prot           uint32
	}{{"tcp4", "tcp", rpcbind.ProtTCP}, {"udp4", "udp", rpcbind.ProtUDP}} {
		d.program++
		set := func(what string, who registrant, port uint32, want bool) {
			d.t.Helper()
			what = fmt.Sprintf("%s, %s: PMAP SET of port %d by %s", c.netid, what, port, who.owner)
			p := place{c.netid, rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)))}
			d.answered(what, who, 1, p, must(d.t, d.ns, bed.Unix, who.from, setPort(d.program, 1, c.prot, port)), want)
		}
		end := d.ns.Hold(d.t, c.network, ":20140")
		set("new", byUser, 20140, true)
		set("alive", byUser, 20141, false)
		set("alive", byRoot, 20141, false)
		end()
		set("dead", byNeighbour, 20141, false)
		set("dead", byUser, 20141, d.ours(true))
		set("dead again", byRoot, 20142, d.ours(true))
		d.dump("after PMAP SET of " + c.netid)
	}
}

// ownEntries registers other addresses for the portmapper itself.
func (d *deadTest) ownEntries() {
	others := map[rpcbind.Netid]string{
		rpcbind.TCP: "0.0.0.0.8.2", rpcbind.UDP: "0.0.0.0.8.2", rpcbind.TCP6: "::.8.2", rpcbind.UDP6: "::.8.2",
		rpcbind.Local: "/run/new.sock",
	}
	for _, own := range ownEntries() {
		for _, who := range []registrant{byRoot, byUser} {
			other := others[own.Netid]
			got := must(d.t, d.ns, bed.Unix, who.from, setAddr(4, own.Program, own.Version, string(own.Netid), other))
			if !bytes.Equal(got, boolean(false)) {
				d.t.Errorf("SET of %s in the place of our own %+v by %s: %x, want FALSE", other, own, who.owner, got)
			}
		}
	}
}
