package portmap

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// registered is a table with a program in several versions on every transport.
var registered = []rpcbind.RPCB{
	{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1"},
	{Program: 300001, Version: 1, Netid: "UDP", Addr: "0.0.0.0.8.2"},
	{Program: 300001, Version: 1, Netid: "tcp6", Addr: "::.8.3"},
	{Program: 300001, Version: 1, Netid: "udp6", Addr: "::.8.4"},
	{Program: 300001, Version: 1, Netid: "local", Addr: "/run/x.sock"},
	{Program: 300001, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.5"},
	{Program: 300001, Version: 2, Netid: "tcp", Addr: "0.0.0.0.8.6"},
	{Program: 300001, Version: 3, Netid: "udp6", Addr: "::.8.7"},
	{Program: 300001, Version: 1, Netid: "rdma", Addr: "0.0.0.0.78.81"},
	{Program: 300002, Version: 1, Netid: "tcp", Addr: "0.0.0.0.0.0"},
}

func TestGetPort(t *testing.T) {
	tests := []struct {
		name string
		args []byte
		port uint32
	}{
		{"tcp", words(300001, 1, 6, 0), 2049},
		{"udp, registered in capitals", words(300001, 1, 17, 0), 2050},
		{"the port is ignored", words(300001, 1, 6, 4711), 2049},
		{"another version: the last registered", words(300001, 9, 6, 0), 2054},
		{"another version, udp", words(300001, 2, 17, 0), 2050},
		{"port 0", words(300002, 1, 6, 0), 0},
		{"on tcp only", words(300002, 1, 17, 0), 0},
		{"unknown program", words(300009, 1, 6, 0), 0},
		{"protocol 1", words(300001, 1, 1, 0), 0},
		{"protocol 2^32-1", words(300001, 1, 0xffffffff, 0), 0},
	}
	p := newSubject(t, registered...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			everyCaller(t, func(t *testing.T, from Caller) {
				wantReply(t, p, from, callTo(2, 3, tt.args), success(words(tt.port)))
			})
		})
	}
}

// TestGetAddr holds what is found; TestMerge holds which of the host's addresses the answer has.
func TestGetAddr(t *testing.T) {
	tests := []struct {
		from          Caller
		prog, vers    uint32
		getaddr, exct string // results of GETADDR and of GETVERSADDR
	}{
		{localCaller(TCP), 300001, 1, "127.0.0.1.8.1", "127.0.0.1.8.1"},
		{localCaller(UDP), 300001, 1, "127.0.0.1.8.2", "127.0.0.1.8.2"},
		{localCaller(TCP6), 300001, 1, "::1.8.3", "::1.8.3"},
		{localCaller(UDP6), 300001, 1, "::1.8.4", "::1.8.4"},
		{localCaller(Local), 300001, 1, "/run/x.sock", "/run/x.sock"},
		{remoteCaller(TCP), 300001, 3, "192.0.2.1.8.5", "192.0.2.1.8.5"},
		{remoteCaller(TCP), 300001, 9, "192.0.2.1.8.6", ""},
		{remoteCaller(UDP), 300001, 2, "192.0.2.1.8.2", ""},
		{remoteCaller(UDP6), 300001, 0, "2001:db8::1.8.7", ""},
		{localCaller(Local), 300001, 7, "/run/x.sock", ""},
		{remoteCaller(TCP), 300002, 1, "192.0.2.1.0.0", "192.0.2.1.0.0"},
		{remoteCaller(UDP), 300002, 1, "", ""},
		{remoteCaller(TCP6), 300002, 1, "", ""},
		{localCaller(Local), 300002, 1, "", ""},
		{remoteCaller(UDP), 300009, 1, "", ""},
	}
	p := newSubject(t, registered...)
	for _, tt := range tests {
		for _, netid := range []string{"", "tcp", "udp", "tcp6", "udp6", "local", "junk\x00"} { // no one looks at it
			args := rpcbOf(tt.prog, tt.vers, netid, "", "owner")
			wantReply(t, p, tt.from, callTo(3, 3, args), success(str(tt.getaddr)))
			wantReply(t, p, tt.from, callTo(4, 3, args), success(str(tt.getaddr)))
			wantReply(t, p, tt.from, callTo(4, 9, args), success(str(tt.exct)))
		}
	}
}

// entryOf returns an element of an rpcb_entry_list.
func entryOf(addr, netid string, semantics uint32, family, proto string) []byte {
	return join(words(1), str(addr), str(netid), words(semantics), str(family), str(proto))
}

func TestGetAddrList(t *testing.T) {
	empty := success(words(0))
	v4 := func(host string) []byte {
		return success(entryOf(host+".8.1", "tcp", 3, "inet", "tcp"), entryOf(host+".8.2", "udp", 1, "inet", "udp"), words(0))
	}
	v6 := func(host string) []byte {
		return success(entryOf(host+".8.3", "tcp6", 3, "inet6", "tcp"), entryOf(host+".8.4", "udp6", 1, "inet6", "udp"), words(0))
	}
	tests := []struct {
		name string
		from Caller
		vers uint32
		hint string
		want []byte
	}{
		{"udp", localCaller(UDP), 1, "", v4("127.0.0.1")},
		{"tcp", localCaller(TCP), 1, "", v4("127.0.0.1")},
		{"udp6", localCaller(UDP6), 1, "", v6("::1")},
		{"tcp6", localCaller(TCP6), 1, "", v6("::1")},
		{"tcp from the network", remoteCaller(TCP), 1, "", v4("192.0.2.1")},
		{"tcp6 from the network", remoteCaller(TCP6), 1, "", v6("2001:db8::1")},
		{"with a hint", remoteCaller(TCP), 1, "198.51.100.1.0.111", v4("198.51.100.1")},
		{"with a hint up to its zero", remoteCaller(TCP), 1, "198.51.100.1.0.111\x00x", v4("198.51.100.1")},
		{"with another hint than ours", remoteCaller(TCP), 1, "203.0.113.9.0.111", v4("192.0.2.1")},
		{"with a hint of the other family", remoteCaller(TCP), 1, "2001:db8::1.0.111", empty},
		{"with junk as a hint", remoteCaller(TCP), 1, "junk", empty},
		{"exact version only", localCaller(TCP), 9, "", empty},
		{"one transport", localCaller(TCP), 3, "", success(entryOf("127.0.0.1.8.5", "tcp", 3, "inet", "tcp"), words(0))},
		{"over the local socket", localCaller(Local), 1, "", empty},
		{"over the local socket with a hint", localCaller(Local), 1, "/run/rpcbind.sock", empty},
		{"too large for a stranger's datagram", remoteCaller(UDP), 1, "", words(testXID, 1, 0, 0, 0, 2, 2, 3)},
		{"too large for a stranger's datagram, IPv6", remoteCaller(UDP6), 1, "", words(testXID, 1, 0, 0, 0, 2, 2, 3)},
	}
	// An entry of a netid in capitals is listed under the netid's own name, an unknown netid isn't listed.
	p := newSubject(t, registered...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantReply(t, p, tt.from, callTo(4, 11, rpcbOf(300001, tt.vers, "", tt.hint, "")), tt.want)
		})
	}
}

func TestDump(t *testing.T) {
	p := newSubject(t, registered...)
	var all [][]byte
	for _, e := range registered {
		all = append(all, rpcbOf(e.Program, e.Version, string(e.Netid), e.Addr, "superuser"))
	}
	list := success(rpcblist(all...))
	mappings := success(
		words(1, 300001, 1, 6, 2049), words(1, 300001, 1, 17, 2050), words(1, 300001, 3, 6, 2053),
		words(1, 300001, 2, 6, 2054), words(1, 300002, 1, 6, 0), words(0))
	everyCaller(t, func(t *testing.T, from Caller) {
		if from.Transport.Datagram() && !isLocal(from) {
			list, mappings := denied(5), denied(5)
			wantReply(t, p, from, callTo(4, 4), list)
			wantReply(t, p, from, callTo(2, 4), mappings)
			return
		}
		wantReply(t, p, from, callTo(3, 4), list)
		wantReply(t, p, from, callTo(4, 4), list)
		wantReply(t, p, from, callTo(2, 4), mappings)
	})
}

// TestDumpThatFitsNoDatagram registers until the list is as long as a datagram may be, and then one octet more.
func TestDumpThatFitsNoDatagram(t *testing.T) {
	p := newSubject(t)
	element := func(n int) int { return 4 + 8 + 8 + 4 + n + 16 } // netid "sctp", owner "superuser"
	set := func(prog uint32, n int) {
		wantReply(t, p, localCaller(Local), callTo(4, 1, rpcbOf(prog, 1, "sctp", strings.Repeat("x", n), "")), yes)
	}
	const prefix = 24 + 4 // header and end of the list
	set(1, 4000)
	set(2, MaxDatagram-prefix-element(4000)-element(0))
	for _, transport := range []Transport{UDP, UDP6} {
		if got := len(ask(p, localCaller(transport), callTo(4, 4))); got != MaxDatagram {
			t.Fatalf("DUMP over %v has %d octets, want %d", transport.Netid(), got, MaxDatagram)
		}
		if got := len(ask(p, localCaller(transport), callTo(2, 4))); got != prefix {
			t.Errorf("version 2 DUMP over %v has %d octets, want %d", transport.Netid(), got, prefix)
		}
	}
	set(3, 0)
	wantReply(t, p, localCaller(UDP), callTo(3, 4), accepted(5))
	wantReply(t, p, localCaller(UDP6), callTo(4, 4), accepted(5))
	if got := len(ask(p, localCaller(TCP), callTo(4, 4))); got != MaxDatagram+element(0) {
		t.Errorf("DUMP over tcp has %d octets", got)
	}
	// PROTOCOL section 8 no. 21: version 2 says so as well.
	for prog := range uint32(MaxDatagram / 20) {
		wantReply(t, p, localCaller(Local), callTo(2, 1, words(1000+prog, 1, 6, 1)), yes)
	}
	wantReply(t, p, localCaller(UDP), callTo(2, 4), accepted(5))
	wantReply(t, p, remoteCaller(UDP), callTo(2, 4), denied(5))
}

func TestGetTime(t *testing.T) {
	p := newSubject(t)
	everyCaller(t, func(t *testing.T, from Caller) {
		wantReply(t, p, from, callTo(3, 6), success(words(testNow)))
		wantReply(t, p, from, callTo(4, 6), success(words(testNow)))
	})
}

func TestNull(t *testing.T) {
	p := newSubject(t)
	everyCaller(t, func(t *testing.T, from Caller) {
		for vers := uint32(2); vers <= 4; vers++ {
			wantReply(t, p, from, callTo(vers, 0), success())
		}
	})
}

// TestLongSpellingOfAnAddress holds that a lookup is not refused for its size because an address was registered in
// a longer form than it needs.
func TestLongSpellingOfAnAddress(t *testing.T) {
	const long = "0000:0000:0000:0000:0000:fffe:255.255.255.255.255.255"
	const short = "::fffe:ffff:ffff.255.255"
	p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "udp6", Addr: long})
	for _, hint := range []string{"", "x"} {
		args := rpcbOf(300001, 1, "", hint, "")
		wantReply(t, p, remoteCaller(UDP6), callTo(3, 3, args), success(str(short)))
		wantReply(t, p, remoteCaller(UDP6), callTo(4, 9, args), success(str(short)))
	}
	if got := dumped(t, p); !bytes.Contains(got, []byte(long)) {
		t.Errorf("DUMP has not what was registered: %q", got)
	}
}

// TestReplyAroundAList puts a long list where it belongs: the reply is the one that AppendReply makes. A short list, and every
// one where replies are observed, is in the reply.
func TestReplyAroundAList(t *testing.T) {
	p := newSubject(t)
	for n := range 500 {
		for _, call := range [][]byte{callTo(2, 4), callTo(3, 4), callTo(4, 4), callTo(3, 6), callTo(2, 0)} {
			dst := []byte("before")
			want := p.AppendReply(slices.Clone(dst), call, localCaller(TCP))
			got, at, parts := p.AppendReplyAround(dst, call, localCaller(TCP))
			list := slices.Concat(parts...)
			if whole := slices.Concat(got[:at], list, got[at:]); !bytes.Equal(whole, want) {
				t.Fatalf("%d registrations: %x, want %x", n, whole, want)
			}
			if list != nil && len(list) < longList || list == nil && call[23] == 4 && len(got) >= longList+100 {
				t.Errorf("%d registrations: %d octets, and a list of %d", n, len(got), len(list))
			}
		}
		wantReply(t, p, localCaller(Local), callTo(2, 1, words(uint32(300001+n), 1, 6, uint32(1000+n))), yes)
	}
	p.observe = func(_ Caller, _, reply []byte) {
		if len(reply) < 500*5*4 {
			t.Errorf("%d octets are observed", len(reply))
		}
	}
	if _, _, list := p.AppendReplyAround(nil, callTo(2, 4), localCaller(TCP)); list != nil {
		t.Error("a list is apart that is observed")
	}
}

// TestDumpStaysWhileTheTableChanges holds that a reply under way has nothing of a later registration.
func TestDumpStaysWhileTheTableChanges(t *testing.T) {
	p := newSubject(t, registered...)
	reply := ask(p, localCaller(TCP), callTo(4, 4))
	before := slices.Clone(reply)
	wantReply(t, p, localCaller(Local), callTo(2, 1, words(300003, 1, 6, 1)), yes)
	wantReply(t, p, localCaller(Local), callTo(4, 2, rpcbOf(300001, 1, "", "", "")), yes)
	if !bytes.Equal(reply, before) {
		t.Error("a reply has changed")
	}
}
