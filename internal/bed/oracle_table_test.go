package bed_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Callers that more than one script has.
var (
	root      = bed.From{}
	ordinary  = bed.From{UID: user}
	neighbour = bed.From{UID: user + 1} // another ordinary user
)

// loopback4 returns a caller on 127.0.0.1 with a source port of its choice.
func loopback4(uid uint32, port uint16) bed.From {
	return bed.From{UID: uid, Addr: bed.Addr("127.0.0.1"), Port: port}
}

// TestOracleOwners lets every kind of owner remove every kind's registrations,
// by each of the three ways.
func TestOracleOwners(t *testing.T) {
	t.Parallel()
	type actor struct {
		tr           bed.Transport
		from         bed.From
		ours, theirs string // the owner strings by which each subject knows it
	}
	actors := []actor{
		{bed.Unix, root, "superuser", "superuser"},
		{bed.Unix, ordinary, "1234", "1234"},
		{bed.Abstract, neighbour, "1235", "1235"},
		{bed.TCP, root, "superuser", "unknown"},
		{bed.TCP6, ordinary, "1234", "unknown"},
		{bed.UDP, neighbour, "unknown", "unknown"},
		{bed.UDP, loopback4(user, 703), "unknown", "superuser"},
		{bed.UDP, loopback4(0, 705), "superuser", "superuser"},
		{bed.TCP, loopback4(0, 704), "superuser", "superuser"},
	}
	may := func(remover, owner string) bool { return remover == "superuser" || remover == owner }
	s := &script{}
	program := uint32(0x21000000)
	for _, registrant := range actors {
		for _, remover := range actors {
			for _, way := range []struct {
				name string
				call func(program uint32) []byte
			}{
				{"UNSET v3 of tcp", func(p uint32) []byte { return unsetAddr(3, p, 1, "tcp") }},
				{"UNSET v4 of all", func(p uint32) []byte { return unsetAddr(4, p, 1, "") }},
				{"PMAP UNSET", func(p uint32) []byte { return unsetPort(p, 1) }},
			} {
				program++
				name := fmt.Sprintf("%s of %s's by %s", way.name, registrant.ours, remover.ours)
				s.add("SET", registrant.tr, registrant.from, setPort(program, 1, rpcbind.ProtTCP, 2049))
				s.add("SET", registrant.tr, registrant.from, setAddr(3, program, 1, "udp", "0.0.0.0.8.1"))
				ours, theirs := may(remover.ours, registrant.ours), may(remover.theirs, registrant.theirs)
				st := s.add(name, remover.tr, remover.from, way.call(program))
				after := s.add("GETPORT after "+name, bed.UDP, root, getPort(program, 1, rpcbind.ProtTCP))
				if ours != theirs {
					st.differs(6, st.replies(oncrpc.Success, boolean(ours)))
					left := uint32(2049)
					if ours {
						left = 0
					}
					after.differs(6, after.replies(oncrpc.Success, words(left)))
				}
				s.add("UNSET", bed.Unix, root, unsetAddr(4, program, 1, ""))
			}
		}
	}
	s.compare(t)
}

// TestOracleVersions looks other versions up, which gives the one registered
// last, and watches the order of DUMP while registrations come and go.
func TestOracleVersions(t *testing.T) {
	t.Parallel()
	s := &script{}
	const a, b = 0x22000001, 0x22000002
	look := func() {
		for _, version := range []uint32{0, 1, 2, 3, 4, 1<<32 - 1} {
			s.add("GETPORT tcp", bed.UDP, root, getPort(a, version, rpcbind.ProtTCP))
			s.add("GETPORT udp", bed.TCP, root, getPort(a, version, rpcbind.ProtUDP))
			s.add("GETADDR", bed.TCP, root, getAddr(3, a, version, "udp", ""))
			s.add("GETADDR", bed.UDP6, root, getAddr(4, a, version, "tcp", ""))
			s.add("GETADDR", bed.Unix, root, getAddr(4, a, version, "tcp", ""))
			s.add("GETVERSADDR", bed.TCP, root, getVersAddr(a, version, ""))
			s.add("GETADDRLIST", bed.TCP6, root, getAddrList(a, version))
		}
		for version := uint32(2); version <= 4; version++ {
			s.add("DUMP", bed.Unix, root, dump(version))
		}
	}
	set := func(program, version uint32, netid, addr string) {
		s.add("SET "+netid+" "+addr, bed.Unix, root, setAddr(4, program, version, netid, addr))
	}
	set(a, 3, "tcp", "0.0.0.0.8.3")
	set(b, 1, "tcp", "0.0.0.0.9.1")
	set(a, 1, "tcp", "0.0.0.0.8.1")
	set(a, 1, "udp", "0.0.0.0.8.11")
	look()
	set(a, 2, "tcp", "0.0.0.0.8.2")
	set(a, 2, "tcp6", "::.8.2")
	set(a, 2, "udp6", "::.8.22")
	set(a, 2, "local", "/run/a2.sock")
	look()
	s.add("UNSET of the newest", bed.Unix, root, unsetAddr(4, a, 2, "tcp"))
	look()
	set(a, 3, "tcp", "0.0.0.0.8.3") // the same again: no new place
	s.add("UNSET of the eldest", bed.Unix, root, unsetAddr(3, a, 3, ""))
	set(a, 3, "tcp", "0.0.0.0.8.33")
	look()
	s.add("PMAP UNSET", bed.Unix, root, unsetPort(a, 2))
	look()
	s.add("UNSET of a netid in capitals", bed.Unix, root, unsetAddr(4, a, 2, "TCP6"))
	s.add("UNSET of a netid that is not there", bed.Unix, root, unsetAddr(4, a, 1, "udp6"))
	look()
	s.compare(t)
}

// TestOracleHints asks for addresses with hints, registered with wildcard and
// with specific addresses.
func TestOracleHints(t *testing.T) {
	t.Parallel()
	s := &script{opts: bed.Options{Remote: true}}
	registered := []struct{ netid, addr string }{
		{"tcp", "0.0.0.0.8.1"}, {"tcp", "127.0.0.1.8.1"}, {"tcp", "10.9.9.1.8.1"}, {"tcp", "10.1.2.3.8.1"},
		{"tcp6", "::.8.1"}, {"tcp6", "::1.8.1"}, {"tcp6", "fd09::1.8.1"}, {"tcp6", "fd01::7.8.1"},
	}
	for i, r := range registered {
		s.add("SET "+r.addr, bed.Unix, root, setAddr(4, 0x23000000+uint32(i), 1, r.netid, r.addr))
	}
	for _, v := range []visitor{
		{tr: bed.TCP, from: root},
		{tr: bed.TCP, from: bed.From{Addr: bed.Addr(bed.HostIPv4), To: netip.AddrPortFrom(bed.Addr(bed.HostIPv4), 0)}},
		{tr: bed.TCP, from: bed.From{Remote: true}},
		{tr: bed.TCP6, from: root},
		{tr: bed.TCP6, from: bed.From{Remote: true}},
		{tr: bed.TCP6, from: bed.From{Remote: true, Addr: bed.Addr(bed.PeerLinkLocal + "%veth1"), To: netip.AddrPortFrom(bed.Addr(bed.HostLinkLocal+"%veth1"), 0)}},
	} {
		for i, r := range registered {
			if (r.netid == "tcp6") != v.tr.IPv6() {
				continue
			}
			for _, hint := range []string{
				"", "junk", "127.0.0.1.0.111", "10.9.9.1.0.111", "10.9.9.1.255.255", "0.0.0.0.0.111",
				"::1.0.111", "fd09::1.0.111", "fe80::9:1.0.111", "::.0.111", "/run/rpcbind.sock",
			} {
				st := s.add(fmt.Sprintf("GETADDR of %s with the hint %q", r.addr, hint), v.tr, v.from,
					getAddr(4, 0x23000000+uint32(i), 1, r.netid, hint))
				st.follows(9, st.replies(oncrpc.Success, str(v.mergedAddr(r.addr, hint))))
			}
		}
	}
	s.compare(t)
}

// mergedAddr is the universal address that gportmap answers on a host with the
// addresses of bed.Options.Remote, worked out from the contract's section 5 and
// its row 9.
func (v visitor) mergedAddr(registered, hint string) string {
	addr, _ := rpcbind.ParseUAddr(registered)
	hinted, isAddr := rpcbind.ParseUAddr(hint)
	switch {
	case hint != "" && (!isAddr || hinted.Addr().Is6() != addr.Addr().Is6()):
		return registered // other family or unparsable
	case !addr.Addr().IsUnspecified() && (!addr.Addr().IsLoopback() || v.from == root):
		return registered // specific, and of use to the caller
	}
	for _, own := range []string{"127.0.0.1", "::1", bed.HostIPv4, bed.HostIPv6, bed.HostLinkLocal} {
		// Only a caller on the link can use an address of the link.
		if own == bed.HostLinkLocal && !v.from.Addr.IsLinkLocalUnicast() {
			continue
		}
		if hint != "" && hinted.Addr() == bed.Addr(own) {
			return rpcbind.UAddr(netip.AddrPortFrom(hinted.Addr(), addr.Port()))
		}
	}
	sentTo := v.from.To.Addr()
	switch {
	case sentTo.IsValid():
		sentTo = sentTo.WithZone("")
	case v.tr.IPv6() && v.from.Remote:
		sentTo = bed.Addr(bed.HostIPv6)
	case v.tr.IPv6():
		sentTo = bed.Addr("::1")
	default:
		sentTo = bed.Addr(v.sentTo())
	}
	return rpcbind.UAddr(netip.AddrPortFrom(sentTo, addr.Port()))
}

// TestOracleStatistics calls a little of everything and reads the counters.
func TestOracleStatistics(t *testing.T) {
	t.Parallel()
	s := &script{alive: true}
	stat := func() { s.add("GETSTAT", bed.TCP, root, message(4, rpcbind.ProcGetStat, nil)) }
	stat()
	for version := uint32(2); version <= 4; version++ {
		s.add("NULL", bed.UDP, root, message(version, rpcbind.ProcNull, nil))
		s.add("DUMP", bed.TCP6, root, dump(version))
		s.add("unknown procedure", bed.TCP, root, message(version, 77, nil))
		s.add("SET that does not decode", bed.TCP, root, message(version, rpcbind.ProcSet, words(1)))
		s.add("procedure 3 that does not decode", bed.Unix, root, message(version, 3, words(1)))
		s.add("UNSET of nothing", bed.Unix, root, message(version, rpcbind.ProcUnset, rpcb(77, 1, "", "")))
	}
	stat()
	s.add("GETTIME", bed.UDP, root, message(3, rpcbind.ProcGetTime, nil)).now = true
	s.add("UADDR2TADDR", bed.UDP, root, message(3, rpcbind.ProcUAddr2TAddr, str("1.2.3.4.5.6")))
	s.add("TADDR2UADDR", bed.UDP, root, message(4, rpcbind.ProcTAddr2UAddr, netbuf(16, nil)))
	s.add("PMAP SET", bed.Unix, root, setPort(0x24000001, 1, 6, 2049))
	s.add("PMAP SET refused", bed.Unix, root, setPort(0x24000001, 1, 6, 2050))
	s.add("SET v3", bed.Unix, root, setAddr(3, 0x24000001, 2, "udp", "0.0.0.0.8.1"))
	s.add("SET v3 refused", bed.Unix, root, setAddr(3, 0x24000001, 2, "udp", "0.0.0.0.8.2"))
	s.add("SET v4", bed.Unix, root, setAddr(4, 0x24000001, 3, "udp6", "::.8.1"))
	s.add("UNSET v4 refused", bed.Unix, ordinary, unsetAddr(4, 0x24000001, 3, "udp6"))
	s.add("UNSET v3 refused", bed.Unix, ordinary, unsetAddr(3, 0x24000001, 3, ""))
	stat()
	s.countedLookups()
	stat()
	s.add("UNSET v4", bed.Unix, root, unsetAddr(4, 0x24000001, 3, ""))
	s.add("PMAP UNSET", bed.Unix, root, unsetPort(0x24000001, 1))
	stat()
	s.compare(t)
}

// countedLookups makes the calls that enter the list of lookups.
func (s *script) countedLookups() {
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6, bed.Unix} {
		for range 2 {
			s.add("GETPORT", tr, root, getPort(0x24000001, 1, 6))
			s.add("GETPORT missed", tr, root, getPort(0x24000002, 1, 17))
			s.add("GETPORT of no protocol", tr, root, getPort(0x24000001, 1, 99))
			s.add("GETADDR v3", tr, root, getAddr(3, 0x24000001, 1, "tcp", ""))
			s.add("GETADDR v4", tr, root, getAddr(4, 0x24000001, 1, "tcp", ""))
			s.add("GETADDR v4 of another version", tr, root, getAddr(4, 0x24000001, 9, "zzz", ""))
			s.add("GETVERSADDR", tr, root, getVersAddr(0x24000001, 2, ""))
			s.add("GETVERSADDR missed", tr, root, getVersAddr(0x24000001, 9, ""))
			s.add("GETADDRLIST", tr, root, getAddrList(0x24000001, 1))
			s.add("GETADDRLIST missed", tr, root, getAddrList(0x24000009, 1))
		}
	}
}
