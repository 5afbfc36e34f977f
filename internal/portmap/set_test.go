package portmap

import (
	"bytes"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

var yes, no = success(words(1)), success(words(0))

// dumped returns the result of DUMP of version 4 without the header.
func dumped(t *testing.T, p *Portmapper) []byte {
	t.Helper()
	reply := ask(p, localCaller(Local), callTo(4, 4))
	if !bytes.HasPrefix(reply, success()) {
		t.Fatalf("DUMP answers %x", reply)
	}
	return reply[len(success()):]
}

func rpcblist(elements ...[]byte) []byte {
	var b []byte
	for _, e := range elements {
		b = join(b, words(1), e)
	}
	return join(b, words(0))
}

func TestSet(t *testing.T) {
	taken := rpcbOf(300001, 1, "tcp", "0.0.0.0.8.1", "superuser")
	tests := []struct {
		name       string
		vers, proc uint32
		args       []byte
		want       []byte
		added      []byte // what the table then has behind what was there
	}{
		{"free", 4, 1, rpcbOf(300002, 1, "udp", "0.0.0.0.8.2", "root"), yes, rpcbOf(300002, 1, "udp", "0.0.0.0.8.2", "superuser")},
		{"free, v3", 3, 1, rpcbOf(300002, 1, "udp6", "::.8.2", ""), yes, rpcbOf(300002, 1, "udp6", "::.8.2", "superuser")},
		{"local", 3, 1, rpcbOf(300002, 1, "local", "/run/x", "0"), yes, rpcbOf(300002, 1, "local", "/run/x", "superuser")},
		{"unknown netid", 4, 1, rpcbOf(300002, 1, "rdma", "x", "0"), yes, rpcbOf(300002, 1, "rdma", "x", "superuser")},
		{"same address", 4, 1, rpcbOf(300001, 1, "tcp", "0.0.0.0.8.1", "x"), yes, nil},
		{"another address", 4, 1, rpcbOf(300001, 1, "tcp", "0.0.0.0.8.2", "x"), no, nil},
		{"netid in capitals, same address", 4, 1, rpcbOf(300001, 1, "TCP", "0.0.0.0.8.1", "x"), yes, nil},
		{"netid in capitals, another address", 4, 1, rpcbOf(300001, 1, "TCP", "0.0.0.0.8.2", "x"), no, nil},
		{"netid in capitals, free", 4, 1, rpcbOf(300001, 2, "TCP", "0.0.0.0.8.2", "x"), yes,
			rpcbOf(300001, 2, "TCP", "0.0.0.0.8.2", "superuser")},
		{"v2 tcp", 2, 1, words(300002, 1, 6, 2049), yes, rpcbOf(300002, 1, "tcp", "0.0.0.0.8.1", "superuser")},
		{"v2 udp", 2, 1, words(300002, 1, 17, 65535), yes, rpcbOf(300002, 1, "udp", "0.0.0.0.255.255", "superuser")},
		{"v2 port 0", 2, 1, words(300002, 1, 17, 0), yes, rpcbOf(300002, 1, "udp", "0.0.0.0.0.0", "superuser")},
		{"v2 same", 2, 1, words(300001, 1, 6, 2049), yes, nil},
		{"v2 taken", 2, 1, words(300001, 1, 6, 2050), no, nil},
		{"v2 protocol 0", 2, 1, words(300002, 1, 0, 2049), no, nil},
		{"v2 protocol 1", 2, 1, words(300002, 1, 1, 2049), no, nil},
		{"v2 protocol 262", 2, 1, words(300002, 1, 262, 2049), no, nil}, // 6 in its last octet
		// PROTOCOL section 8 no. 5.
		{"v2 port 65536", 2, 1, words(300002, 1, 6, 65536), no, nil},
		{"v2 port 70000", 2, 1, words(300002, 1, 6, 70000), no, nil},
		{"v2 port 2^32-1", 2, 1, words(300002, 1, 6, 0xffffffff), no, nil},
		{"v2 program 0", 2, 1, words(0, 1, 6, 2049), no, nil},
		{"program 0", 4, 1, rpcbOf(0, 1, "tcp", "0.0.0.0.8.1", ""), no, nil},
		{"no netid", 4, 1, rpcbOf(300002, 1, "", "0.0.0.0.8.1", ""), no, nil},
		{"unprintable netid", 4, 1, rpcbOf(300002, 1, "tcp\x1b", "0.0.0.0.8.1", ""), no, nil},
		{"netid with a zero", 4, 1, rpcbOf(300002, 1, "tcp\x00", "0.0.0.0.8.1", ""), no, nil},
		{"no address", 4, 1, rpcbOf(300002, 1, "tcp", "", ""), no, nil},
		{"port octet 300", 4, 1, rpcbOf(300002, 1, "tcp", "0.0.0.0.300.5", ""), no, nil},
		{"port octet 256", 4, 1, rpcbOf(300002, 1, "udp", "0.0.0.0.256.1", ""), no, nil},
		{"IPv6 address for tcp", 4, 1, rpcbOf(300002, 1, "tcp", "::.8.1", ""), no, nil},
		{"IPv4 address for tcp6", 4, 1, rpcbOf(300002, 1, "tcp6", "0.0.0.0.8.1", ""), no, nil},
		{"unprintable address", 4, 1, rpcbOf(300002, 1, "bogus", "junk\n\x1b[31m", ""), no, nil},
		{"address with a zero", 4, 1, rpcbOf(300002, 1, "tcp", "0.0.0.0.8.1\x00", ""), no, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1"})
			wantReply(t, p, localCaller(Local), callTo(tt.vers, tt.proc, tt.args), tt.want)
			want := rpcblist(taken)
			if tt.added != nil {
				want = rpcblist(taken, tt.added)
			}
			if got := dumped(t, p); !bytes.Equal(got, want) {
				t.Errorf("the table is then %q, want %q", got, want)
			}
		})
	}
}

// TestWhoMaySetAndUnset asks for registrations from everywhere; the owner is who the policy says, whatever the call
// says.
func TestWhoMaySetAndUnset(t *testing.T) {
	everyCaller(t, func(t *testing.T, from Caller) {
		p := newSubject(t)
		set, unset, table := denied(5), denied(5), rpcblist()
		if isLocal(from) {
			set, unset = yes, yes
			table = rpcblist(rpcbOf(300001, 1, "tcp", "0.0.0.0.8.1", "superuser"))
		}
		for vers := uint32(2); vers <= 4; vers++ {
			args := rpcbOf(300001, 1, "tcp", "0.0.0.0.8.1", "claimed")
			if vers == 2 {
				args = words(300001, 1, 6, 2049)
			}
			wantReply(t, p, from, callTo(vers, 1, args), set)
			if got := dumped(t, p); !bytes.Equal(got, table) {
				t.Errorf("version %d: the table is then %q, want %q", vers, got, table)
			}
			wantReply(t, p, from, callTo(vers, 2, args), unset)
			if got := dumped(t, p); !bytes.Equal(got, rpcblist()) {
				t.Errorf("version %d: after UNSET the table is %q", vers, got)
			}
		}
	})
}

// TestUnset has registrations of two owners. PROTOCOL section 4, and no. 3, 4 and 16 of section 8.
func TestUnset(t *testing.T) {
	root := localCaller(Local)
	user := Caller{Transport: Local, UID: 1000, HasUID: true}
	big := Caller{Transport: Local, UID: 1 << 31, HasUID: true}
	entries := []rpcbind.RPCB{
		{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "1000"},
		{Program: 300001, Version: 1, Netid: "UDP", Addr: "0.0.0.0.8.1", Owner: "1000"},
		{Program: 300001, Version: 1, Netid: "tcp6", Addr: "::.8.1", Owner: "superuser"},
		{Program: 300001, Version: 2, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "superuser"},
		{Program: 300002, Version: 1, Netid: "udp", Addr: "0.0.0.0.8.2", Owner: "superuser"},
		{Program: 300003, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.3", Owner: "2147483648"},
	}
	tests := []struct {
		name       string
		from       Caller
		vers, proc uint32
		args       []byte
		want       []byte
		left       []int // of the entries
	}{
		{"one netid", user, 4, 2, rpcbOf(300001, 1, "tcp", "", ""), yes, []int{1, 2, 3, 4, 5}},
		{"one netid, v3, in capitals", user, 3, 2, rpcbOf(300001, 1, "TCP", "", ""), yes, []int{1, 2, 3, 4, 5}},
		{"address and owner are ignored", user, 4, 2, rpcbOf(300001, 1, "udp", "junk", "root"), yes, []int{0, 2, 3, 4, 5}},
		{"netid up to its zero", user, 4, 2, rpcbOf(300001, 1, "udp\x00junk", "", ""), yes, []int{0, 2, 3, 4, 5}},
		{"somebody else's", user, 4, 2, rpcbOf(300001, 1, "tcp6", "", ""), no, []int{0, 1, 2, 3, 4, 5}},
		{"all netids, mixed owners", user, 4, 2, rpcbOf(300001, 1, "", "", ""), no, []int{0, 1, 2, 3, 4, 5}},
		{"all netids, superuser", root, 4, 2, rpcbOf(300001, 1, "", "", "0"), yes, []int{3, 4, 5}},
		{"nothing there", user, 4, 2, rpcbOf(300001, 9, "", "", ""), yes, []int{0, 1, 2, 3, 4, 5}},
		{"netid without a registration", user, 4, 2, rpcbOf(300001, 1, "udp6", "", ""), yes, []int{0, 1, 2, 3, 4, 5}},
		{"unknown netid", user, 4, 2, rpcbOf(300001, 1, "nope", "", ""), yes, []int{0, 1, 2, 3, 4, 5}},
		{"v2 covers tcp and udp, not tcp6", user, 2, 2, words(300001, 1, 6, 0), yes, []int{2, 3, 4, 5}},
		{"v2 ignores protocol and port", user, 2, 2, words(300001, 1, 99, 70000), yes, []int{2, 3, 4, 5}},
		{"v2, somebody else's", user, 2, 2, words(300002, 1, 17, 0), no, []int{0, 1, 2, 3, 4, 5}},
		{"v2, nothing there", user, 2, 2, words(300009, 1, 17, 0), yes, []int{0, 1, 2, 3, 4, 5}},
		{"v2, superuser", root, 2, 2, words(300001, 1, 0, 0), yes, []int{2, 3, 4, 5}},
		{"uid over 2^31", big, 4, 2, rpcbOf(300003, 1, "", "", ""), yes, []int{0, 1, 2, 3, 4}},
		{"SET takes the owner from the socket", big, 4, 1, rpcbOf(300003, 1, "tcp", "0.0.0.0.8.3", "root"), yes, []int{0, 1, 2, 3, 4, 5}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newSubject(t, entries...)
			wantReply(t, p, tt.from, callTo(tt.vers, tt.proc, tt.args), tt.want)
			var left [][]byte
			for _, i := range tt.left {
				e := entries[i]
				left = append(left, rpcbOf(e.Program, e.Version, string(e.Netid), e.Addr, e.Owner))
			}
			if got, want := dumped(t, p), rpcblist(left...); !bytes.Equal(got, want) {
				t.Errorf("the table is then\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestOwnRegistrationsStay(t *testing.T) {
	p := newRecordedHost(t)
	before := dumped(t, p)
	for name, call := range map[string][]byte{
		"v2":                callTo(2, 2, words(100000, 2, 6, 111)),
		"v3":                callTo(3, 2, rpcbOf(100000, 3, "local", "", "superuser")),
		"v4":                callTo(4, 2, rpcbOf(100000, 4, "udp6", "", "superuser")),
		"v4, all netids":    callTo(4, 2, rpcbOf(100000, 4, "", "", "superuser")),
		"SET, another port": callTo(4, 1, rpcbOf(100000, 4, "tcp", "0.0.0.0.8.1", "")),
	} {
		t.Run(name, func(t *testing.T) {
			wantReply(t, p, localCaller(Local), call, no)
			if got := dumped(t, p); !bytes.Equal(got, before) {
				t.Errorf("the table is then %q, want %q", got, before)
			}
		})
	}
}

// TestRefusedTells what the daemon is told of each SET and UNSET that is answered FALSE, for its log.
func TestRefusedTells(t *testing.T) {
	user := Caller{Transport: Local, UID: 1000, HasUID: true}
	for _, c := range []struct {
		name       string
		vers, proc uint32
		args       []byte
		wanted     rpcbind.RPCB
		holder     string // its address
		err        string
	}{
		{"v4 SET, another's", 4, 1, rpcbOf(300001, 1, "tcp", "0.0.0.0.8.9", "x"),
			rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.9", Owner: "1000"}, "0.0.0.0.8.1", "registered with another address"},
		{"v4 SET, no address", 4, 1, rpcbOf(300002, 1, "tcp", "junk", ""),
			rpcbind.RPCB{Program: 300002, Version: 1, Netid: "tcp", Addr: "junk", Owner: "1000"}, "", "address is not a universal address of its netid"},
		{"v2 SET, protocol", 2, 1, words(300001, 1, 132, 9), rpcbind.RPCB{Program: 300001, Version: 1, Owner: "1000"}, "",
			"protocol 132 is neither tcp (6) nor udp (17)"},
		{"v2 SET, port", 2, 1, words(300001, 1, 17, 70000), rpcbind.RPCB{Program: 300001, Version: 1, Netid: "udp", Owner: "1000"}, "",
			"port 70000 is above 65535"},
		{"v3 UNSET of a netid", 3, 2, rpcbOf(300001, 1, "TCP", "", ""), rpcbind.RPCB{Program: 300001, Version: 1, Netid: "TCP", Owner: "1000"},
			"0.0.0.0.8.1", "registered by another owner"},
		{"v3 UNSET of all", 3, 2, rpcbOf(300001, 1, "", "", ""), rpcbind.RPCB{Program: 300001, Version: 1, Owner: "1000"},
			"/run/x", "registered by another owner"},
		// It is only for tcp and udp, so the local one stands in nobody's way.
		{"v2 UNSET", 2, 2, words(300001, 1, 0, 0), rpcbind.RPCB{Program: 300001, Version: 1, Owner: "1000"}, "0.0.0.0.8.1", "registered by another owner"},
	} {
		var told []Refused
		p := newSubjectWith(t, Config{Refused: func(r Refused) { told = append(told, r) }},
			rpcbind.RPCB{Program: 300001, Version: 1, Netid: "local", Addr: "/run/x"},
			rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1"})
		wantReply(t, p, user, callTo(c.vers, c.proc, c.args), no)
		if len(told) != 1 {
			t.Errorf("%s: told %d times", c.name, len(told))
			continue
		}
		r, holder := told[0], ""
		if r.Holder != nil {
			holder = r.Holder.Addr
		}
		if r.Wanted != c.wanted || r.From != user || r.Set != (c.proc == 1) || holder != c.holder || r.Err.Error() != c.err {
			t.Errorf("%s: %+v, held at %q", c.name, r, holder)
		}
	}
}
