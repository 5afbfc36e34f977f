package portmap

import (
	"bytes"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// statBytes is a block of GETSTAT's result as the tests write it down.
type statBytes struct {
	calls        [13]uint32
	sets, unsets uint32
	addrs        [][]byte // newest first
	remote       [][]byte
}

func (s statBytes) bytes() []byte {
	b := join(words(s.calls[:]...), words(s.sets, s.unsets))
	return join(b, rpcblist(s.addrs...), rpcblist(s.remote...))
}

func addrStat(prog, vers, success, failure uint32, netid string) []byte {
	return join(words(prog, vers, success, failure), str(netid))
}

func remoteStat(prog, vers, proc, success, failure, indirect uint32, netid string) []byte {
	return join(words(prog, vers, proc, success, failure, indirect), str(netid))
}

// getStat asks over the local socket; each time it counts as a call itself.
func getStat(t testing.TB, p *Portmapper) []byte {
	t.Helper()
	reply := ask(p, localCaller(Local), callTo(4, 12))
	if !bytes.HasPrefix(reply, success()) {
		t.Fatalf("GETSTAT answers %x", reply)
	}
	return reply
}

func wantStat(t *testing.T, p *Portmapper, v2, v3, v4 statBytes) {
	t.Helper()
	got, want := getStat(t, p), success(v2.bytes(), v3.bytes(), v4.bytes())
	if !bytes.Equal(got, want) {
		t.Errorf("GETSTAT answers\n%x\nwant\n%x", got, want)
	}
}

func TestStatisticsOfCalls(t *testing.T) {
	p := newSubject(t)
	on := localCaller(TCP)
	wantStat(t, p, statBytes{}, statBytes{}, statBytes{calls: [13]uint32{12: 1}})
	for _, call := range [][]byte{
		callTo(2, 0), callTo(2, 6), callTo(2, 0xffffffff), callTo(3, 0), callTo(3, 9), callTo(4, 13), callTo(5, 0),
		header(3, 100000, 3, 0, 0, ""), header(2, 100003, 3, 0, 0, ""), header(2, 100000, 3, 0, 1, ""), // none of them counts
		callTo(2, 4), callTo(3, 4), callTo(3, 6), callTo(4, 6), callTo(4, 7), callTo(4, 8, netbuf(0, nil)), callTo(4, 5),
		callTo(3, 1), // undecodable: counts
	} {
		ask(p, on, call)
	}
	ask(p, remoteCaller(TCP), callTo(4, 1, rpcbOf(1, 1, "tcp", "0.0.0.0.8.1", ""))) // denied: counts
	ask(p, remoteCaller(UDP), callTo(4, 12))                                        // too large: counts
	wantStat(t, p,
		statBytes{calls: [13]uint32{0: 1, 4: 1}},
		statBytes{calls: [13]uint32{0: 1, 1: 1, 4: 1, 6: 1}},
		statBytes{calls: [13]uint32{1: 1, 5: 1, 6: 1, 7: 1, 8: 1, 12: 3}})
}

func TestStatisticsOfRegistrations(t *testing.T) {
	p := newSubject(t, rpcbind.RPCB{Program: 300009, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "1000"})
	root, user := localCaller(Local), Caller{Transport: Local, UID: 1001, HasUID: true}
	for _, call := range [][]byte{
		callTo(2, 1, words(300001, 1, 6, 2049)),                      // TRUE
		callTo(2, 1, words(300001, 1, 6, 2049)),                      // TRUE: it is there
		callTo(2, 1, words(300001, 1, 6, 2050)),                      // FALSE
		callTo(2, 1, words(300001, 1, 1, 2050)),                      // FALSE
		callTo(2, 2, words(300001, 1, 6, 0)),                         // TRUE
		callTo(2, 2, words(300001, 1, 6, 0)),                         // TRUE: nothing there
		callTo(3, 1, rpcbOf(300001, 1, "udp", "0.0.0.0.8.1", "")),    // TRUE
		callTo(3, 2, rpcbOf(300001, 1, "", "", "")),                  // TRUE
		callTo(3, 2, rpcbOf(300001, 1, "", "", "")),                  // TRUE
		callTo(4, 1, rpcbOf(300001, 1, "udp", "junk", "")),           // FALSE
		callTo(4, 1, rpcbOf(300001, 1, "local", "/run/x", "")),       // TRUE
		callTo(4, 2, rpcbOf(300001, 1, "no such netid", "", "junk")), // TRUE
	} {
		ask(p, root, call)
	}
	ask(p, user, callTo(4, 2, rpcbOf(300009, 1, "", "", ""))) // FALSE
	ask(p, user, callTo(2, 2, words(300009, 1, 0, 0)))        // FALSE
	wantStat(t, p,
		statBytes{calls: [13]uint32{1: 4, 2: 3}, sets: 2, unsets: 2},
		statBytes{calls: [13]uint32{1: 1, 2: 2}, sets: 1, unsets: 2},
		statBytes{calls: [13]uint32{1: 2, 2: 2, 12: 1}, sets: 1, unsets: 1})
}

func TestStatisticsOfLookups(t *testing.T) {
	p := newSubject(t, registered...)
	lookup := func(vers, proc, prog, v uint32, t Transport, times int) {
		for range times {
			ask(p, localCaller(t), callTo(vers, proc, rpcbOf(prog, v, "junk", "", "")))
		}
	}
	for range 2 {
		ask(p, localCaller(TCP6), callTo(2, 3, words(300001, 1, 17, 0))) // counted under the netid it asks for
		ask(p, localCaller(UDP), callTo(2, 3, words(300001, 9, 6, 0)))   // another version: a success
		ask(p, localCaller(UDP), callTo(2, 3, words(300002, 1, 6, 0)))   // registered with port 0: a failure
		ask(p, localCaller(UDP), callTo(2, 3, words(300001, 1, 99, 0)))  // no netid: not counted
		ask(p, localCaller(UDP), callTo(2, 3, words(300001, 1)))         // undecodable: not counted
	}
	lookup(3, 3, 300001, 1, TCP, 3)
	lookup(3, 3, 300001, 1, UDP6, 1)
	lookup(3, 3, 300009, 1, UDP6, 2)
	lookup(3, 3, 300001, 1, TCP, 1)
	lookup(4, 3, 300001, 9, Local, 1)  // another version
	lookup(4, 9, 300001, 9, Local, 2)  // GETVERSADDR: a failure, in the same list
	lookup(4, 9, 300001, 3, TCP, 1)    // GETVERSADDR
	lookup(4, 11, 300001, 3, TCP, 1)   // GETADDRLIST
	lookup(4, 11, 300001, 1, Local, 1) // GETADDRLIST over the local socket finds nothing
	lookup(4, 11, 300009, 1, UDP, 1)
	wantStat(t, p,
		statBytes{calls: [13]uint32{3: 10}, addrs: [][]byte{
			addrStat(300002, 1, 0, 2, "tcp"), addrStat(300001, 9, 2, 0, "tcp"), addrStat(300001, 1, 2, 0, "udp"),
		}},
		statBytes{calls: [13]uint32{3: 7}, addrs: [][]byte{
			addrStat(300009, 1, 0, 2, "udp6"), addrStat(300001, 1, 1, 0, "udp6"), addrStat(300001, 1, 4, 0, "tcp"),
		}},
		statBytes{calls: [13]uint32{3: 1, 9: 3, 11: 3, 12: 1}, addrs: [][]byte{
			addrStat(300009, 1, 0, 1, "udp"), addrStat(300001, 1, 0, 1, "local"),
			addrStat(300001, 3, 2, 0, "tcp"), addrStat(300001, 9, 1, 2, "local"),
		}})
}

// TestStatisticsOfRemoteCalls has the relay off: what is counted is the lookup. PROTOCOL section 8 no. 24.
func TestStatisticsOfRemoteCalls(t *testing.T) {
	p := newSubject(t, registered...)
	for _, call := range [][]byte{
		callTo(2, 5, words(300001, 1, 0, 0)),
		callTo(2, 5, words(300001, 1, 0, 0)),
		callTo(2, 5, words(300001, 9, 0, 0)),   // another version: a failure
		callTo(3, 5, words(300001, 1, 7, 0)),   // another procedure: an element of its own
		callTo(3, 5, words(100003, 3, 1, 0)),   // forbidden: not counted here
		callTo(3, 5, words(300001, 1, 7)),      // undecodable: not counted here
		callTo(4, 5, words(300009, 1, 0, 0)),   // BCAST
		callTo(4, 10, words(300009, 1, 0, 0)),  // INDIRECT, in the same list
		callTo(4, 10, words(300001, 1, 0, 0)),  // INDIRECT
		callTo(4, 10, words(100000, 4, 10, 0)), // forbidden
	} {
		ask(p, localCaller(UDP), call)
	}
	ask(p, localCaller(TCP), callTo(4, 10, words(300001, 1, 0, 0))) // not served over TCP
	wantStat(t, p,
		statBytes{calls: [13]uint32{5: 3}, remote: [][]byte{
			remoteStat(300001, 9, 0, 0, 1, 0, "udp"), remoteStat(300001, 1, 0, 2, 0, 0, "udp"),
		}},
		statBytes{calls: [13]uint32{5: 3}, remote: [][]byte{remoteStat(300001, 1, 7, 1, 0, 0, "udp")}},
		statBytes{calls: [13]uint32{5: 1, 10: 4, 12: 1}, remote: [][]byte{
			remoteStat(300001, 1, 0, 1, 0, 1, "udp"), remoteStat(300009, 1, 0, 0, 2, 1, "udp"),
		}})
}

// TestMadeUpPrograms asks one portmapper for a million programs, versions and procedures that nobody ever
// registered. GETSTAT stays small (CVE-2026-94640), and what is in use stays in it.
func TestMadeUpPrograms(t *testing.T) {
	p := newSubject(t, registered...)
	ask(p, remoteCaller(UDP), callTo(2, 3, words(300001, 1, 6, 0)))
	ask(p, remoteCaller(UDP), callTo(3, 3, rpcbOf(300001, 1, "", "", "")))
	ask(p, remoteCaller(TCP), callTo(4, 3, rpcbOf(300001, 3, "", "", "")))
	ask(p, localCaller(UDP), callTo(4, 10, words(300001, 1, 0, 0)))
	reply := make([]byte, 0, MaxDatagram)
	for i := range uint32(madeUpPrograms) {
		switch prog := 0x40000000 + i*2654435761%0x3fffffff; i % 5 {
		case 0:
			p.AppendReply(reply, callTo(2, 3, words(prog, i, 6, 0)), remoteCaller(UDP))
		case 1:
			p.AppendReply(reply, callTo(2+i%3/2, 5, words(prog, i, i, 0)), remoteCaller(UDP6))
		case 2:
			p.AppendReply(reply, callTo(3, 3, rpcbOf(prog, i, "", "", "")), remoteCaller(UDP6))
		case 3: // a version of a registered program: there is an answer, that of another version
			p.AppendReply(reply, callTo(2+i%3, 3, rpcbOf(300001, 100+i, "", "", "")), remoteCaller(TCP))
			p.AppendReply(reply, callTo(2, 3, words(300001, 100+i, 17, 0)), remoteCaller(TCP))
		case 4:
			p.AppendReply(reply, callTo(4, 10, words(prog, i, i, 0)), remoteCaller(UDP))
			p.AppendReply(reply, callTo(4, 11, rpcbOf(prog, i, "", "", "")), remoteCaller(TCP6))
		}
	}
	// What comes into use now takes the place of something made up as well.
	ask(p, remoteCaller(UDP), callTo(2, 3, words(300001, 3, 6, 0)))
	ask(p, remoteCaller(UDP6), callTo(3, 3, rpcbOf(300001, 3, "", "", "")))
	stat := getStat(t, p)
	if len(stat) > 8000 {
		t.Errorf("GETSTAT has %d octets, want at most 8000", len(stat))
	}
	for name, element := range map[string][]byte{
		"v2 lookup":     addrStat(300001, 1, 1, 0, "tcp"),
		"v3 lookup":     addrStat(300001, 1, 1, 0, "udp"),
		"v4 lookup":     addrStat(300001, 3, 1, 0, "tcp"),
		"v4 remote":     remoteStat(300001, 1, 0, 1, 0, 1, "udp"),
		"new v2 lookup": addrStat(300001, 3, 1, 0, "tcp"),
		"new v3 lookup": addrStat(300001, 3, 1, 0, "udp6"),
	} {
		if !bytes.Contains(stat, element) {
			t.Errorf("GETSTAT lost the %s of what is in use", name)
		}
	}
}

// TestFullLists fills every list with registered programs, with the longest netids there are.
func TestFullLists(t *testing.T) {
	var entries []rpcbind.RPCB
	for i := range uint32(MaxLookupStats + 10) {
		entries = append(entries,
			rpcbind.RPCB{Program: 300001 + i, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1"},
			rpcbind.RPCB{Program: 300001 + i, Version: 1, Netid: "udp6", Addr: "::.8.1"},
			rpcbind.RPCB{Program: 300001 + i, Version: 1, Netid: "local", Addr: "/run/x"})
	}
	p := newSubject(t, entries...)
	for i := range uint32(MaxLookupStats + 10) {
		ask(p, localCaller(UDP), callTo(2, 3, words(300001+i, 1, 6, 0)))
		ask(p, localCaller(Local), callTo(3, 3, rpcbOf(300001+i, 1, "", "", "")))
		ask(p, localCaller(Local), callTo(4, 3, rpcbOf(300001+i, 1, "", "", "")))
		for vers := uint32(2); vers <= 4; vers++ {
			ask(p, localCaller(UDP6), callTo(vers, 5, words(300001+i, 1, 0, 0)))
		}
	}
	// They are full: a made-up program finds no place, another registered one that of the oldest.
	ask(p, localCaller(Local), callTo(3, 3, rpcbOf(4711, 1, "", "", "")))
	stat := getStat(t, p)
	if len(stat) > 8000 {
		t.Errorf("GETSTAT has %d octets, want at most 8000", len(stat))
	}
	count := func(element []byte) int { return bytes.Count(stat, element) }
	if n := count(addrStat(4711, 1, 0, 1, "local")); n != 0 {
		t.Error("a made-up program took the place of one that is in use")
	}
	var listed []uint32
	for i := range uint32(MaxLookupStats + 10) {
		if count(addrStat(300001+i, 1, 1, 0, "local")) > 0 {
			listed = append(listed, i)
		}
	}
	if len(listed) != MaxLookupStats || listed[0] != 10 {
		t.Errorf("listed are the programs %v, want the last %d", listed, MaxLookupStats)
	}
}
