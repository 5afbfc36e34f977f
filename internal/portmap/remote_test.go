package portmap

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestForwardable holds PROTOCOL section 7.
func TestForwardable(t *testing.T) {
	const high = 1 << 31
	tests := []struct {
		prog, proc uint32
		want       bool
	}{
		{100000, 1, false}, {100000, 3, false}, {100000, 5, false}, {100000, high, false},
		{100003, 1, false}, {100003, 21, false},
		{100004, 1, true}, {100004, 2, true}, {100004, 3, false}, {100004, 4, false}, {100004, 5, false},
		{100004, 6, true}, {100004, 7, true}, {100004, 8, false}, {100004, 9, true}, {100004, 10, true}, {100004, 11, true},
		{100005, 1, false}, {100005, 2, true}, {100005, 3, false}, {100005, 4, true}, {100005, 5, true},
		{100007, 1, true}, {100007, 2, false}, {100007, 3, true},
		{100009, 1, false}, {100009, high, false},
		{100011, 1, false}, {100011, 2, false},
		{100001, 1, true}, {100002, 2, true}, {100008, 2, true}, {300001, high, true},
	}
	for _, tt := range tests {
		if got := forwardable(tt.prog, tt.proc); got != tt.want {
			t.Errorf("forwardable(%d, %d) = %v, want %v", tt.prog, tt.proc, got, tt.want)
		}
		if !forwardable(tt.prog, 0) {
			t.Errorf("forwardable(%d, 0) = false: procedure NULL is always allowed", tt.prog)
		}
	}
}

// fakeRelay remembers what it had to forward.
type fakeRelay struct {
	calls []RemoteCall
	err   error
}

func (r *fakeRelay) Forward(c RemoteCall) error {
	c.Args = bytes.Clone(c.Args)
	r.calls = append(r.calls, c)
	return r.err
}

// services are where the remote calls of these tests go.
var services = []rpcbind.RPCB{
	{Program: 300001, Version: 2, Netid: "udp", Addr: "0.0.0.0.8.1"},
	{Program: 300001, Version: 5, Netid: "udp", Addr: "0.0.0.0.8.2"},
	{Program: 300001, Version: 4, Netid: "UDP", Addr: "0.0.0.0.8.3"},
	{Program: 300001, Version: 9, Netid: "tcp", Addr: "0.0.0.0.8.4"},
	{Program: 300001, Version: 7, Netid: "udp6", Addr: "::.8.5"},
	{Program: 300002, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.6"},
	{Program: 300003, Version: 1, Netid: "udp", Addr: "127.0.0.1.8.7"},
	{Program: 300004, Version: 1, Netid: "udp", Addr: "198.51.100.1.8.8"},
	{Program: 300005, Version: 1, Netid: "udp", Addr: "203.0.113.9.8.9"},
	{Program: 300006, Version: 1, Netid: "udp6", Addr: "2001:db8::1.8.10"},
	{Program: 300007, Version: 1, Netid: "udp6", Addr: "fe80::1.8.11"},
	{Program: 100003, Version: 3, Netid: "udp", Addr: "0.0.0.0.8.1"},
	{Program: 100000, Version: 4, Netid: "udp", Addr: "0.0.0.0.0.111"},
}

func remoteArgs(prog, vers, proc uint32, args string) []byte {
	return join(words(prog, vers, proc), str(args))
}

// TestRemoteCallErrors holds what is answered when nothing is forwarded: PROTOCOL section 7, and no. 13 and 20 of
// section 8.
func TestRemoteCallErrors(t *testing.T) {
	tests := []struct {
		name     string
		from     Transport
		args     []byte
		indirect []byte // the answer to INDIRECT; CALLIT and BCAST are silent
	}{
		{"undecodable", UDP, words(300001, 2, 0), accepted(4)},
		{"arguments cut short", UDP, words(300001, 2, 0, 8, 1), accepted(4)},
		{"unknown program", UDP, remoteArgs(300009, 1, 0, ""), accepted(1)},
		{"on tcp only", UDP, remoteArgs(300002, 1, 0, ""), accepted(1)},
		{"on udp only", UDP6, remoteArgs(300003, 1, 0, ""), accepted(1)},
		{"another version", UDP, remoteArgs(300001, 3, 0, ""), accepted(2, words(2, 5))},
		{"another version, a single one", UDP6, remoteArgs(300001, 2, 0, ""), accepted(2, words(7, 7))},
		{"the portmapper itself", UDP, remoteArgs(100000, 4, 1, "x"), denied(5)},
		{"NFS", UDP, remoteArgs(100003, 3, 1, "x"), denied(5)},
		{"MOUNT, not registered", UDP6, remoteArgs(100005, 3, 1, "x"), denied(5)},
		{"NFS, another version, NULL", UDP, remoteArgs(100003, 2, 0, ""), accepted(2, words(3, 3))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			relay := new(fakeRelay)
			for _, p := range []*Portmapper{
				newSubject(t, services...), newSubjectWith(t, Config{Relay: relay}, services...),
			} {
				for _, from := range []Caller{localCaller(tt.from), remoteCaller(tt.from)} {
					wantReply(t, p, from, callTo(2, 5, tt.args), silence)
					wantReply(t, p, from, callTo(3, 5, tt.args), silence)
					wantReply(t, p, from, callTo(4, 5, tt.args), silence)
					wantReply(t, p, from, callTo(4, 10, tt.args), tt.indirect)
				}
			}
			if len(relay.calls) > 0 {
				t.Errorf("forwarded %+v", relay.calls)
			}
		})
	}
}

func TestRemoteCallsOff(t *testing.T) {
	p := newSubject(t, services...)
	args := remoteArgs(300001, 2, 0, "")
	for _, from := range []Caller{localCaller(UDP), remoteCaller(UDP)} {
		wantReply(t, p, from, callTo(2, 5, args), silence)
		wantReply(t, p, from, callTo(3, 5, args), silence)
		wantReply(t, p, from, callTo(4, 5, args), silence)
		wantReply(t, p, from, callTo(4, 10, args), accepted(5))
	}
}

func TestRemoteCallsOverStreams(t *testing.T) {
	relay := new(fakeRelay)
	p := newSubjectWith(t, Config{Relay: relay}, services...)
	for _, from := range []Caller{localCaller(TCP), remoteCaller(TCP), localCaller(TCP6), localCaller(Local)} {
		for _, args := range [][]byte{remoteArgs(300001, 9, 0, ""), remoteArgs(100003, 3, 1, ""), nil} {
			wantReply(t, p, from, callTo(2, 5, args), accepted(3))
			wantReply(t, p, from, callTo(3, 5, args), accepted(3))
			wantReply(t, p, from, callTo(4, 5, args), accepted(3))
			wantReply(t, p, from, callTo(4, 10, args), accepted(3))
		}
	}
	if len(relay.calls) > 0 {
		t.Errorf("forwarded %+v", relay.calls)
	}
}

// TestRemoteCallsForwarded holds what the relay gets, and that nothing is said before the service has answered.
func TestRemoteCallsForwarded(t *testing.T) {
	multicast := from(UDP6, peerLink, netip.Addr{}, ifEther)
	tests := []struct {
		name           string
		from           Caller
		prog, vers     uint32
		target, answer string
	}{
		{"wildcard", remoteCaller(UDP), 300001, 2, "127.0.0.1:2049", "192.0.2.1:2049"},
		{"wildcard, caller on the host", localCaller(UDP), 300001, 5, "127.0.0.1:2050", "127.0.0.1:2050"},
		{"netid in capitals", remoteCaller(UDP), 300001, 4, "127.0.0.1:2051", "192.0.2.1:2051"},
		{"IPv6", remoteCaller(UDP6), 300001, 7, "[::1]:2053", "[2001:db8::1]:2053"},
		{"IPv6 multicast", multicast, 300001, 7, "[::1]:2053", "[fe80::1]:2053"},
		{"loopback", remoteCaller(UDP), 300003, 1, "127.0.0.1:2055", "192.0.2.1:2055"},
		{"one address of the host", remoteCaller(UDP), 300004, 1, "198.51.100.1:2056", "198.51.100.1:2056"},
		{"an address of another host", remoteCaller(UDP), 300005, 1, "127.0.0.1:2057", "203.0.113.9:2057"},
		{"one IPv6 address of the host", remoteCaller(UDP6), 300006, 1, "[2001:db8::1]:2058", "[2001:db8::1]:2058"},
		{"link-local address", remoteCaller(UDP6), 300007, 1, "[::1]:2059", "[fe80::1]:2059"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, call := range []struct{ vers, proc uint32 }{{2, 5}, {3, 5}, {4, 5}, {4, 10}} {
				relay := new(fakeRelay)
				p := newSubjectWith(t, Config{Relay: relay}, services...)
				message := callTo(call.vers, call.proc, remoteArgs(tt.prog, tt.vers, 77, "arguments"))
				wantReply(t, p, tt.from, message, silence)
				if call.vers == 2 && tt.from.Transport == UDP6 {
					if len(relay.calls) > 0 {
						t.Errorf("version 2 CALLIT over IPv6 is forwarded: %+v", relay.calls)
					}
					continue
				}
				if len(relay.calls) != 1 {
					t.Fatalf("version %d procedure %d: forwarded %d times", call.vers, call.proc, len(relay.calls))
				}
				c := relay.calls[0]
				if c.From != tt.from || c.XID != testXID || c.Version != call.vers || c.Procedure != call.proc || c.Size != len(message) {
					t.Errorf("forwarded as asked by %+v", c)
				}
				if c.Program != tt.prog || c.Vers != tt.vers || c.Proc != 77 || string(c.Args) != "arguments" {
					t.Errorf("forwarded %+v", c)
				}
				if c.Target.String() != tt.target || c.Answer.String() != tt.answer {
					t.Errorf("forwarded to %v as %v, want %s as %s", c.Target, c.Answer, tt.target, tt.answer)
				}
			}
		})
	}
}

func TestRemoteCallThatCantBeSent(t *testing.T) {
	p := newSubjectWith(t, Config{Relay: &fakeRelay{err: errors.New("too many in flight")}}, services...)
	args := remoteArgs(300001, 2, 0, "")
	wantReply(t, p, remoteCaller(UDP), callTo(2, 5, args), silence)
	wantReply(t, p, remoteCaller(UDP), callTo(3, 5, args), silence)
	wantReply(t, p, remoteCaller(UDP), callTo(4, 5, args), silence)
	wantReply(t, p, remoteCaller(UDP), callTo(4, 10, args), accepted(5))
}

func TestAppendRemoteReply(t *testing.T) {
	const forwardedXID = 77
	result := join(words(forwardedXID, 1, 0, 0, 0, 0), []byte("results!"))
	withVerifier := join(words(forwardedXID, 1, 0, 99), str("verifier"), words(0), []byte("results!"))
	uaddr := success(str("192.0.2.1.8.1"), str("results!"))
	port := success(words(2049), str("results!"))
	failures := map[string][]byte{
		"no reply":       nil,
		"not a reply":    words(forwardedXID, 0, 2, 100000, 2, 0, 0, 0, 0, 0),
		"cut short":      result[:23],
		"PROG_UNAVAIL":   words(forwardedXID, 1, 0, 0, 0, 1),
		"PROG_MISMATCH":  words(forwardedXID, 1, 0, 0, 0, 2, 3, 4),
		"PROC_UNAVAIL":   words(forwardedXID, 1, 0, 0, 0, 3),
		"GARBAGE_ARGS":   words(forwardedXID, 1, 0, 0, 0, 4),
		"SYSTEM_ERR":     words(forwardedXID, 1, 0, 0, 0, 5),
		"AUTH_TOOWEAK":   words(forwardedXID, 1, 1, 1, 5),
		"RPC_MISMATCH":   words(forwardedXID, 1, 1, 0, 2, 2),
		"accept_stat 99": words(forwardedXID, 1, 0, 0, 0, 99),
	}
	p := newSubject(t)
	check := func(name string, c RemoteCall, reply, want []byte) {
		t.Helper()
		before := []byte("before")
		if got := p.AppendRemoteReply(bytes.Clone(before), &c, reply); !bytes.Equal(got, join(before, want)) {
			t.Errorf("%s, version %d procedure %d: got %x, want %x", name, c.Version, c.Procedure, got[len(before):], want)
		}
	}
	for _, asked := range []struct {
		vers, proc uint32
		want       []byte
		failure    []byte
		tooLarge   []byte
	}{{2, 5, port, silence, silence}, {3, 5, uaddr, silence, silence}, {4, 5, uaddr, silence, silence}, {4, 10, uaddr, accepted(5), accepted(5)}} {
		c := RemoteCall{
			From: localCaller(UDP), XID: testXID, Version: asked.vers, Procedure: asked.proc, Size: 56,
			Answer: netip.AddrPortFrom(hostIPv4, 2049),
		}
		check("results", c, result, asked.want)
		check("results behind a verifier", c, withVerifier, asked.want)
		for name, reply := range failures {
			check(name, c, reply, asked.failure)
		}
		check("more than a datagram", c, join(result, make([]byte, MaxDatagram)), asked.tooLarge)
		check("no results", c, result[:24], join(asked.want[:len(asked.want)-12], words(0)))

		// A caller that may be forged gets no more than it sent; INDIRECT tells it so.
		c.From = remoteCaller(UDP)
		c.Size = len(asked.want)
		check("as large as the call", c, result, asked.want)
		c.Size--
		want := silence
		if asked.proc == 10 {
			want = denied(5)
		}
		check("one octet larger than the call", c, result, want)
	}
}

// TestRemoteReplyOverIPv6 has the longest address there is.
func TestRemoteReplyOverIPv6(t *testing.T) {
	p := newSubject(t)
	long := netip.MustParseAddr("2001:0db8:1111:2222:3333:4444:5555:6666")
	c := RemoteCall{From: localCaller(UDP6), XID: testXID, Version: 4, Procedure: 5, Answer: netip.AddrPortFrom(long, 65535)}
	uaddr := "2001:db8:1111:2222:3333:4444:5555:6666.255.255"
	got := p.AppendRemoteReply(nil, &c, join(words(1, 1, 0, 0, 0, 0), []byte(strings.Repeat("r", 13))))
	if want := success(str(uaddr), str(strings.Repeat("r", 13))); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
