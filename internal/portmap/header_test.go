package portmap

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// transports are all that a call can come by.
var transports = []Transport{UDP, TCP, UDP6, TCP6, Local}

// everyCaller runs a test for callers on the host and, over IP, on the network.
func everyCaller(t *testing.T, test func(t *testing.T, from Caller)) {
	t.Helper()
	for _, transport := range transports {
		t.Run(string(transport.Netid()), func(t *testing.T) { test(t, localCaller(transport)) })
		if transport != Local {
			t.Run(string(transport.Netid())+" from the network", func(t *testing.T) { test(t, remoteCaller(transport)) })
		}
	}
}

// header returns a call header of any content, with an empty verifier.
func header(rpcvers, prog, vers, proc, flavor uint32, body string) []byte {
	return join(words(testXID, 0, rpcvers, prog, vers, proc, flavor), str(body), words(0, 0))
}

// authSys returns the body of an AUTH_SYS credential with a machine name and n groups, of which it claims claimed.
func authSys(machine string, claimed uint32, n int) string {
	b := join(words(1, uint32(len(machine))), []byte(machine))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return string(join(b, words(0, 0, claimed), make([]byte, 4*n)))
}

// TestHeaderErrors holds the table of PROTOCOL section 3 up to the choice of the procedure.
func TestHeaderErrors(t *testing.T) {
	rpcMismatch := words(testXID, 1, 1, 0, 2, 2)
	progMismatch := accepted(2, words(2, 4))
	tests := []struct {
		name string
		call []byte
		want []byte
	}{
		{"nothing", nil, silence},
		{"three octets", []byte{1, 2, 3}, silence},
		{"no verifier", header(2, 100000, 2, 0, 0, "")[:32], silence},
		{"one octet missing", header(2, 100000, 2, 0, 0, "")[:39], silence},
		{"a reply", words(testXID, 1, 0, 0, 0, 0, 0, 0, 0, 0), silence},
		{"message type 2", words(testXID, 2, 2, 100000, 2, 0, 0, 0, 0, 0), silence},
		{"credential of 401 octets", header(2, 100000, 2, 0, 0, strings.Repeat("x", 401)), silence},
		{"credential cut short", join(words(testXID, 0, 2, 100000, 2, 0, 0, 100, 0, 0)), silence},
		{"credential of 4 GiB", words(testXID, 0, 2, 100000, 2, 0, 0, 0xffffffff, 0, 0), silence},
		{"verifier of 401 octets", join(words(testXID, 0, 2, 100000, 2, 0, 0, 0, 0), str(strings.Repeat("x", 401))), silence},
		{"verifier cut short", words(testXID, 0, 2, 100000, 2, 0, 0, 0, 0, 4), silence},

		{"RPC version 1", header(1, 100000, 2, 0, 0, ""), rpcMismatch},
		{"RPC version 3", header(3, 100000, 2, 0, 0, ""), rpcMismatch},
		{"RPC version 3 and a bad credential", header(3, 100000, 2, 0, 1, ""), rpcMismatch},
		{"RPC version 3 and an unknown program", header(3, 4711, 2, 0, 0, ""), rpcMismatch},

		{"AUTH_NONE with 400 octets", header(2, 100000, 2, 0, 0, strings.Repeat("x", 400)), success()},
		{"AUTH_NONE with 5 octets", header(2, 100000, 2, 0, 0, "abcde"), success()},
		{"AUTH_SYS", header(2, 100000, 2, 0, 1, authSys("host", 2, 2)), success()},
		{"AUTH_SYS without a name and groups", header(2, 100000, 2, 0, 1, authSys("", 0, 0)), success()},
		{"AUTH_SYS with 16 groups", header(2, 100000, 2, 0, 1, authSys("host", 16, 16)), success()},
		{"AUTH_SYS with 255 octets of name", header(2, 100000, 2, 0, 1, authSys(strings.Repeat("h", 255), 0, 0)), success()},
		{"AUTH_SYS and octets behind it", header(2, 100000, 2, 0, 1, authSys("host", 1, 1)+"trailing"), success()},
		{"AUTH_SYS with a verifier", join(words(testXID, 0, 2, 100000, 2, 0, 1), str(authSys("h", 0, 0)), words(1), str("verifier")),
			success()}, // section 8 no. 18: it isn't echoed
		{"any verifier", join(words(testXID, 0, 2, 100000, 2, 0, 0, 0, 77), str(strings.Repeat("v", 400))), success()},
		{"AUTH_SYS, empty", header(2, 100000, 2, 0, 1, ""), denied(1)},
		{"AUTH_SYS, 4 octets", header(2, 100000, 2, 0, 1, "abcd"), denied(1)},
		{"AUTH_SYS with 17 groups", header(2, 100000, 2, 0, 1, authSys("host", 17, 17)), denied(1)},
		{"AUTH_SYS with a group missing", header(2, 100000, 2, 0, 1, authSys("host", 3, 2)), denied(1)},
		{"AUTH_SYS with 2^30 groups", header(2, 100000, 2, 0, 1, authSys("host", 1<<30, 0)), denied(1)},
		{"AUTH_SYS with 256 octets of name", header(2, 100000, 2, 0, 1, authSys(strings.Repeat("h", 256), 0, 0)), denied(1)},
		{"AUTH_SHORT", header(2, 100000, 2, 0, 2, ""), denied(2)},
		{"AUTH_DES", header(2, 100000, 2, 0, 3, ""), denied(7)},
		{"AUTH_DES with a body", header(2, 100000, 2, 0, 3, "twenty octets of it."), denied(7)},
		{"AUTH_KERB", header(2, 100000, 2, 0, 4, ""), denied(2)},
		{"RPCSEC_GSS", header(2, 100000, 2, 0, 6, ""), denied(2)},
		{"RPCSEC_GSS with a body", header(2, 100000, 2, 0, 6, string(words(1, 1, 0, 1, 0))), denied(2)},
		{"flavor 99", header(2, 100000, 2, 0, 99, ""), denied(2)},
		{"bad credential and an unknown program", header(2, 4711, 2, 0, 1, ""), denied(1)},
		{"bad credential and an unknown version", header(2, 100000, 9, 0, 1, ""), denied(1)},

		{"program 0", header(2, 0, 2, 0, 0, ""), accepted(1)},
		{"NFS", header(2, 100003, 3, 0, 0, ""), accepted(1)},
		{"unknown program and version", header(2, 4711, 9, 99, 0, ""), accepted(1)},
		{"version 0", header(2, 100000, 0, 0, 0, ""), progMismatch},
		{"version 1", header(2, 100000, 1, 0, 0, ""), progMismatch},
		{"version 5", header(2, 100000, 5, 0, 0, ""), progMismatch},
		{"version 2^32-1 and an unknown procedure", header(2, 100000, 0xffffffff, 99, 0, ""), progMismatch},
		{"version 2, procedure 6", header(2, 100000, 2, 6, 0, ""), accepted(3)},
		{"version 3, procedure 9", header(2, 100000, 3, 9, 0, ""), accepted(3)},
		{"version 4, procedure 13", header(2, 100000, 4, 13, 0, ""), accepted(3)},
		{"version 4, procedure 2^32-1", header(2, 100000, 4, 0xffffffff, 0, ""), accepted(3)},
	}
	p := newSubject(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			everyCaller(t, func(t *testing.T, from Caller) { wantReply(t, p, from, tt.call, tt.want) })
		})
	}
}

// procedures are all with arguments, and the smallest arguments that decode.
var procedures = []struct {
	name       string
	vers, proc uint32
	args       []byte
	change     bool // SET or UNSET
}{
	{"v2 SET", 2, 1, words(1, 1, 6, 1), true},
	{"v2 UNSET", 2, 2, words(1, 1, 6, 1), true},
	{"v2 GETPORT", 2, 3, words(1, 1, 6, 1), false},
	{"v3 SET", 3, 1, rpcbOf(1, 1, "", "", ""), true},
	{"v3 UNSET", 3, 2, rpcbOf(1, 1, "", "", ""), true},
	{"v3 GETADDR", 3, 3, rpcbOf(1, 1, "", "", ""), false},
	{"v3 UADDR2TADDR", 3, 7, str(""), false},
	{"v3 TADDR2UADDR", 3, 8, join(words(0), str("")), false},
	{"v4 SET", 4, 1, rpcbOf(1, 1, "", "", ""), true},
	{"v4 UNSET", 4, 2, rpcbOf(1, 1, "", "", ""), true},
	{"v4 GETADDR", 4, 3, rpcbOf(1, 1, "", "", ""), false},
	{"v4 UADDR2TADDR", 4, 7, str(""), false},
	{"v4 TADDR2UADDR", 4, 8, join(words(0), str("")), false},
	{"v4 GETVERSADDR", 4, 9, rpcbOf(1, 1, "", "", ""), false},
	{"v4 GETADDRLIST", 4, 11, rpcbOf(1, 1, "", "", ""), false},
}

// TestArgumentsAreDecodedBeforeAccess cuts the arguments of each procedure at each octet: GARBAGE_ARGS, for everyone.
func TestArgumentsAreDecodedBeforeAccess(t *testing.T) {
	p := newSubject(t)
	for _, tt := range procedures {
		t.Run(tt.name, func(t *testing.T) {
			everyCaller(t, func(t *testing.T, from Caller) {
				for n := range tt.args {
					wantReply(t, p, from, callTo(tt.vers, tt.proc, tt.args[:n]), accepted(4))
				}
				got := ask(p, from, callTo(tt.vers, tt.proc, tt.args))
				switch refused := tt.change && !isLocal(from); {
				case refused && !bytes.Equal(got, denied(5)):
					t.Errorf("got %x, want AUTH_TOOWEAK", got)
				case !refused && !bytes.HasPrefix(got, success()):
					t.Errorf("got %x, want a success", got)
				}
			})
		})
	}
}

func TestStringsOverTheLimit(t *testing.T) {
	p := newSubject(t)
	long := str(strings.Repeat("x", 9001))
	for name, args := range map[string][]byte{
		"netid":          join(words(1, 1), long, str(""), str("")),
		"address":        join(words(1, 1), str("tcp"), long, str("")),
		"owner":          join(words(1, 1), str("tcp"), str(""), long),
		"announced only": join(words(1, 1, 0xffffffff)),
	} {
		t.Run(name, func(t *testing.T) {
			for _, proc := range []uint32{1, 2, 3, 9, 11} {
				wantReply(t, p, localCaller(Local), callTo(4, proc, args), accepted(4))
			}
		})
	}
}

// TestOctetsBehindTheArguments holds that they are ignored, and that padding is not looked at.
func TestOctetsBehindTheArguments(t *testing.T) {
	p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "10.0.0.1.8.1"})
	trailing := []byte("abcdef")
	padded := join(words(300001, 1), words(3), []byte("tcp\xff"), words(1), []byte("x\xff\xff\xff"), str(""))
	from := localCaller(TCP)
	wantReply(t, p, from, callTo(2, 0, trailing), success())
	wantReply(t, p, from, callTo(2, 3, words(300001, 1, 6, 0), trailing), success(words(2049)))
	wantReply(t, p, from, callTo(3, 3, rpcbOf(300001, 1, "", "", ""), trailing), success(str("10.0.0.1.8.1")))
	wantReply(t, p, from, callTo(4, 9, padded), success(str("10.0.0.1.8.1")))
	wantReply(t, p, from, callTo(4, 6, trailing), success(words(testNow)))
}

func TestReplyIsAppended(t *testing.T) {
	p := newSubject(t)
	before := []byte("before")
	for _, call := range [][]byte{callTo(2, 0), callTo(4, 4), callTo(2, 9), callTo(2, 3), {1}} {
		for _, from := range []Caller{localCaller(UDP), remoteCaller(UDP)} {
			got := p.AppendReply(bytes.Clone(before), call, from)
			if want := join(before, ask(p, from, call)); !bytes.Equal(got, want) {
				t.Errorf("appended to %q: %x, want %x", before, got, want)
			}
		}
	}
}

func TestObserve(t *testing.T) {
	var seen [][]byte
	p := newSubjectWith(t, Config{Observe: func(from Caller, call, reply []byte) {
		if from != remoteCaller(UDP6) {
			t.Errorf("observed caller %+v", from)
		}
		seen = append(seen, bytes.Clone(call), bytes.Clone(reply))
	}})
	calls := [][]byte{callTo(2, 0), callTo(4, 5, words(1, 1, 0, 0)), {1}}
	var want [][]byte
	for _, call := range calls {
		reply := p.AppendReply([]byte("before"), call, remoteCaller(UDP6))
		want = append(want, call, reply[len("before"):])
	}
	if len(seen) != len(want) || !bytes.Equal(join(seen...), join(want...)) {
		t.Errorf("observed %x, want %x", seen, want)
	}
}
