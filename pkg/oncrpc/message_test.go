package oncrpc_test

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// unhex reads hexadecimal octets with spaces between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	none = "00000000 00000000" // an opaque_auth of AUTH_NONE
	// GETPORT of NFS version 3 on TCP, written by hand from RFC 5531 section 9 and RFC 1833 section 3.1.
	getPort = "12345678 00000000 00000002 000186a0 00000002 00000003" + none + none +
		"000186a3 00000003 00000006 00000000"
	// An AUTH_SYS credential as libnfs sends it: stamp, "host", uid 1000, gid 100, groups 100 and 4.
	sysBody = "00000001 00000004 686f7374 000003e8 00000064 00000002 00000064 00000004"
)

func TestParseCall(t *testing.T) {
	c, err := oncrpc.ParseCall(unhex(t, getPort))
	if err != nil {
		t.Fatal(err)
	}
	want := oncrpc.Call{
		XID: 0x12345678, RPCVersion: 2, Program: 100000, Version: 2, Procedure: 3,
		Cred: oncrpc.OpaqueAuth{Body: []byte{}}, Verf: oncrpc.OpaqueAuth{Body: []byte{}},
		Args: unhex(t, "000186a3 00000003 00000006 00000000"),
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
}

// What ParseCall leaves to the caller to judge, and what is no call at all.
func TestParseCallForm(t *testing.T) {
	const head = "00000001 00000000 00000002 000186a0 00000002 00000000"
	body := func(n int) string { return strings.Repeat("ab", n) }
	tests := []struct {
		name string
		in   string
		ok   bool
	}{
		{"no arguments", head + none + none, true},
		{"octets that aren't a whole word behind", head + none + none + "ff", true},
		{"another RPC version", "00000001 00000000 00000003 000186a0 00000002 00000000" + none + none, true},
		{"unknown flavors", head + "ffffffff 00000000" + "12345678 00000000", true},
		{"AUTH_NONE with a body", head + "00000000 00000004 01020304" + none, true},
		{"credential of 400 octets", head + "00000001 00000190" + body(400) + none, true},
		{"verifier of 400 octets", head + none + "00000001 00000190" + body(400), true},
		{"credential of 401 octets", head + "00000001 00000191" + body(404) + none, false},
		{"verifier of 401 octets", head + none + "00000001 00000191" + body(404), false},
		{"credential of 2^31-1 octets", head + "00000001 7fffffff" + none, false},
		{"credential of 2^32-1 octets", head + "00000001 ffffffff" + none, false},
		{"verifier of 2^32-3 octets", head + none + "00000000 fffffffd", false},
		{"credential body that isn't there", head + "00000001 00000010" + none, false},
		{"a reply", "00000001 00000001 00000002 000186a0 00000002 00000000" + none + none, false},
		{"message type 2", "00000001 00000002 00000002 000186a0 00000002 00000000" + none + none, false},
		{"nothing", "", false},
	}
	for _, tt := range tests {
		_, err := oncrpc.ParseCall(unhex(t, tt.in))
		if (err == nil) != tt.ok || err != nil && err != oncrpc.ErrNotACall {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestCallTruncationLadder(t *testing.T) {
	for _, auth := range []string{none + none, "00000001 00000020" + sysBody + none, none + "00000007 00000003 61626300"} {
		head := unhex(t, "12345678 00000000 00000002 000186a0 00000002 00000003"+auth)
		whole := append(bytes.Clone(head), unhex(t, "000186a3 00000003 00000006 00000000")...)
		for n := range whole {
			c, err := oncrpc.ParseCall(whole[:n:n])
			switch {
			case n < len(head) && err != oncrpc.ErrNotACall:
				t.Errorf("cut to %d of %d octets of header: %v", n, len(head), err)
			case n >= len(head) && (err != nil || len(c.Args) != n-len(head)):
				t.Errorf("cut to %d octets of arguments: %d, %v", n-len(head), len(c.Args), err)
			}
		}
	}
}

func TestAppendCall(t *testing.T) {
	got := oncrpc.AppendCall(nil, oncrpc.Call{
		XID: 0x12345678, Program: 100000, Version: 2, Procedure: 3,
		Args: unhex(t, "000186a3 00000003 00000006 00000000"),
	})
	if want := unhex(t, getPort); !bytes.Equal(got, want) {
		t.Errorf("% x\nwant % x", got, want)
	}
	if got := oncrpc.AppendCall(nil, oncrpc.Call{}); len(got) != oncrpc.CallHeaderSize {
		t.Errorf("smallest call: %d octets, want %d", len(got), oncrpc.CallHeaderSize)
	}
}

func TestCallRoundTrip(t *testing.T) {
	for n := range 9 {
		want := oncrpc.Call{
			XID: 1, RPCVersion: 2, Program: 3, Version: 4, Procedure: 5,
			Cred: oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: make([]byte, n)},
			Verf: oncrpc.OpaqueAuth{Flavor: oncrpc.AuthShort, Body: make([]byte, 8-n)},
			Args: []byte("arguments")[:n],
		}
		got, err := oncrpc.ParseCall(oncrpc.AppendCall(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

// Whole replies as RFC 5531 section 9 draws them.
var replies = []struct {
	name  string
	octet string
	write func() []byte
	reply oncrpc.Reply
}{
	{"success", "12345678 00000001 00000000" + none + "00000000",
		func() []byte { return oncrpc.AppendAccepted(nil, 0x12345678, oncrpc.Success) },
		oncrpc.Reply{Accept: oncrpc.Success, Results: []byte{}}},
	{"success with a port", "12345678 00000001 00000000" + none + "00000000 00000801",
		func() []byte { return append(oncrpc.AppendAccepted(nil, 0x12345678, oncrpc.Success), 0, 0, 8, 1) },
		oncrpc.Reply{Accept: oncrpc.Success, Results: []byte{0, 0, 8, 1}}},
	{"PROG_UNAVAIL", "12345678 00000001 00000000" + none + "00000001",
		func() []byte { return oncrpc.AppendAccepted(nil, 0x12345678, oncrpc.ProgUnavail) },
		oncrpc.Reply{Accept: oncrpc.ProgUnavail}},
	{"PROG_MISMATCH", "12345678 00000001 00000000" + none + "00000002 00000002 00000004",
		func() []byte { return oncrpc.AppendProgMismatch(nil, 0x12345678, 2, 4) },
		oncrpc.Reply{Accept: oncrpc.ProgMismatch, Low: 2, High: 4}},
	{"PROC_UNAVAIL", "12345678 00000001 00000000" + none + "00000003",
		func() []byte { return oncrpc.AppendAccepted(nil, 0x12345678, oncrpc.ProcUnavail) },
		oncrpc.Reply{Accept: oncrpc.ProcUnavail}},
	{"GARBAGE_ARGS", "12345678 00000001 00000000" + none + "00000004",
		func() []byte { return oncrpc.AppendAccepted(nil, 0x12345678, oncrpc.GarbageArgs) },
		oncrpc.Reply{Accept: oncrpc.GarbageArgs}},
	{"SYSTEM_ERR", "12345678 00000001 00000000" + none + "00000005",
		func() []byte { return oncrpc.AppendAccepted(nil, 0x12345678, oncrpc.SystemErr) },
		oncrpc.Reply{Accept: oncrpc.SystemErr}},
	{"RPC_MISMATCH", "12345678 00000001 00000001 00000000 00000002 00000002",
		func() []byte { return oncrpc.AppendRPCMismatch(nil, 0x12345678) },
		oncrpc.Reply{Denied: true, Reject: oncrpc.RPCMismatch, Low: 2, High: 2}},
	{"AUTH_TOOWEAK", "12345678 00000001 00000001 00000001 00000005",
		func() []byte { return oncrpc.AppendAuthError(nil, 0x12345678, oncrpc.AuthTooWeak) },
		oncrpc.Reply{Denied: true, Reject: oncrpc.AuthError, Auth: oncrpc.AuthTooWeak}},
}

func TestReplies(t *testing.T) {
	for _, tt := range replies {
		want := unhex(t, tt.octet)
		if got := tt.write(); !bytes.Equal(got, want) {
			t.Errorf("%s: written % x, want % x", tt.name, got, want)
		}
		got, err := oncrpc.ParseReply(want)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		tt.reply.XID = 0x12345678
		if !tt.reply.Denied {
			tt.reply.Verf.Body = []byte{}
		}
		if !reflect.DeepEqual(got, tt.reply) {
			t.Errorf("%s: read %+v, want %+v", tt.name, got, tt.reply)
		}
	}
	if n := len(oncrpc.AppendAccepted(nil, 1, 0)); n != oncrpc.AcceptedHeaderSize {
		t.Errorf("accepted header: %d octets, want %d", n, oncrpc.AcceptedHeaderSize)
	}
	if n := len(oncrpc.AppendAuthError(nil, 1, 0)); n != oncrpc.DeniedAuthSize {
		t.Errorf("AUTH_ERROR: %d octets, want %d", n, oncrpc.DeniedAuthSize)
	}
}

func TestReplyTruncationLadder(t *testing.T) {
	for _, tt := range replies {
		whole := unhex(t, tt.octet)
		header := len(whole) - len(tt.reply.Results)
		for n := range header {
			if r, err := oncrpc.ParseReply(whole[:n:n]); err != oncrpc.ErrNotAReply || !reflect.DeepEqual(r, oncrpc.Reply{}) {
				t.Errorf("%s cut to %d of %d octets: %+v, %v", tt.name, n, header, r, err)
			}
		}
	}
}

func TestNotAReply(t *testing.T) {
	for name, in := range map[string]string{
		"a call":                   getPort,
		"reply_stat 2":             "12345678 00000001 00000002" + none + "00000000",
		"accept_stat 6":            "12345678 00000001 00000000" + none + "00000006",
		"reject_stat 2":            "12345678 00000001 00000001 00000002 00000000",
		"verifier of 401 octets":   "12345678 00000001 00000000 00000000 00000191" + strings.Repeat("00", 408),
		"verifier of 2^32-1":       "12345678 00000001 00000000 00000000 ffffffff 00000000",
		"verifier of 2^31-1":       "12345678 00000001 00000000 00000000 7fffffff 00000000",
		"verifier that isn't here": "12345678 00000001 00000000 00000000 00000008 00000000",
	} {
		if _, err := oncrpc.ParseReply(unhex(t, in)); err != oncrpc.ErrNotAReply {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A verifier in a reply, as libtirpc's servers echo it, is passed over.
func TestReplyWithVerifier(t *testing.T) {
	r, err := oncrpc.ParseReply(unhex(t, "00000001 00000001 00000000 00000002 00000003 61626300 00000000 0000006f"))
	if err != nil || string(r.Verf.Body) != "abc" || r.Verf.Flavor != oncrpc.AuthShort || len(r.Results) != 4 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestMessageAllocations(t *testing.T) {
	call := unhex(t, getPort)
	reply := oncrpc.AppendProgMismatch(nil, 1, 2, 4)
	buf := make([]byte, 0, 128)
	var sink int
	for name, f := range map[string]func(){
		"ParseCall": func() { c, _ := oncrpc.ParseCall(call); sink += len(c.Args) },
		"ParseCall of junk": func() {
			_, err := oncrpc.ParseCall(call[:20])
			if err != nil {
				sink++
			}
		},
		"AppendAccepted":     func() { sink += len(oncrpc.AppendAccepted(buf, 1, oncrpc.Success)) },
		"AppendProgMismatch": func() { sink += len(oncrpc.AppendProgMismatch(buf, 1, 2, 4)) },
		"AppendAuthError":    func() { sink += len(oncrpc.AppendAuthError(buf, 1, oncrpc.AuthTooWeak)) },
		"AppendRPCMismatch":  func() { sink += len(oncrpc.AppendRPCMismatch(buf, 1)) },
		"ParseReply":         func() { r, _ := oncrpc.ParseReply(reply); sink += int(r.High) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	if sink == 0 {
		t.Error("nothing was done")
	}
}
