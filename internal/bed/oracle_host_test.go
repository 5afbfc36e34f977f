package bed_test

import (
	"bytes"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestOracleInsecure lets everyone register, with -i.
func TestOracleInsecure(t *testing.T) {
	t.Parallel()
	s := &script{opts: bed.Options{Remote: true}, args: []string{"-i"}}
	program := uint32(0x28000000)
	owners := map[uint32]string{}
	for _, v := range visitors() {
		if v.from.Addr == bed.Addr("127.0.0.2") {
			continue // a loopback caller, but no local one: its owner is nobody's concern
		}
		program++
		if v.owner != v.rpcbindOwner {
			owners[program] = v.owner
		}
		s.ask(v, "PMAP SET", setPort(program, 1, rpcbind.ProtTCP, 2049))
		s.ask(v, "SET", setAddr(4, program, 2, "udp6", "::.8.1"))
		s.ask(v, "SET that is unset", setAddr(3, program, 3, "udp", "0.0.0.0.8.1"))
		s.ask(v, "UNSET", unsetAddr(3, program, 3, ""))
		s.ask(v, "UNSET of nothing", unsetPort(program, 7))
	}
	s.add("DUMP", bed.Unix, root, dump(4)).differsBy(6, withOwners(owners))
	s.compare(t)
}

// TestOracleWithoutIPv6 runs on a host whose IPv6 is switched off.
func TestOracleWithoutIPv6(t *testing.T) {
	t.Parallel()
	s := &script{opts: bed.Options{NoIPv6: true}}
	s.add("SET", bed.Unix, root, setAddr(4, known, 1, "udp", "0.0.0.0.8.1"))
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.Unix, bed.Abstract} {
		for version := uint32(2); version <= 4; version++ {
			s.add("NULL", tr, root, message(version, rpcbind.ProcNull, nil))
			st := s.add("DUMP", tr, root, dump(version))
			if version > 2 {
				st.differsBy(sectionTwo, withoutIPv6)
			}
		}
		s.add("GETADDR", tr, root, getAddr(4, known, 1, "", ""))
	}
	s.compare(t)
}

// withoutIPv6 drops the portmapper's entries for IPv6: rpcbind lists itself
// there, where nobody can reach it.
func withoutIPv6(theirs outcome) outcome {
	return editDump(theirs, func(b rpcbind.RPCB) (rpcbind.RPCB, bool) {
		return b, !b.Netid.Is(rpcbind.UDP6) && !b.Netid.Is(rpcbind.TCP6)
	})
}

// TestReplySource wants replies from the address that was asked, also where that
// is not the one the kernel would choose, and from an own address after a
// broadcast.
func TestReplySource(t *testing.T) {
	t.Parallel()
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		command(t, "ip", "addr", "add", "10.9.9.3/24", "dev", bed.HostInterface)
		command(t, "ip", "addr", "add", "fd09::3/64", "dev", bed.HostInterface, "nodad")
		command(t, "ip", "addr", "replace", bed.HostIPv4+"/24", "broadcast", "10.9.9.255", "dev", bed.HostInterface)
		ns.Start(t, subject)
		for _, c := range []struct {
			tr       bed.Transport
			to, from string
		}{
			{bed.UDP, bed.HostIPv4, bed.HostIPv4}, {bed.UDP, "10.9.9.3", "10.9.9.3"},
			{bed.UDP6, bed.HostIPv6, bed.HostIPv6}, {bed.UDP6, "fd09::3", "fd09::3"},
			{bed.UDP6, bed.HostLinkLocal + "%" + bed.PeerInterface, bed.HostLinkLocal},
			{bed.UDP, "10.9.9.255", bed.HostIPv4}, {bed.UDP, "255.255.255.255", bed.HostIPv4},
		} {
			from := bed.From{Remote: true, To: addrPort(c.to)}
			if c.to == "255.255.255.255" {
				from.Addr = bed.Addr(bed.PeerIPv4)
				ns.Remote(t, func() { command(t, "ip", "route", "replace", "default", "dev", bed.PeerInterface) })
			}
			client := ns.Dial(t, c.tr, from)
			if err := client.SendCall(withXID(message(2, rpcbind.ProcNull, nil), 9)); err != nil {
				t.Fatal(err)
			}
			reply, sender, err := client.ReceiveFrom(patience)
			if err != nil || !bytes.Equal(reply, accepted(9, oncrpc.Success, nil)) {
				t.Errorf("NULL to %s: %x, %v", c.to, reply, err)
			}
			if sender.Addr() != bed.Addr(c.from) || sender.Port() != rpcbind.Port {
				t.Errorf("the reply to a call to %s came from %v, want %s", c.to, sender, c.from)
			}
		}
	})
}
