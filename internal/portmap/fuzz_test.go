package portmap

import (
	"bytes"
	"encoding/binary"
	"math"
	"path/filepath"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// fuzzCallers are who sends the calls of FuzzAppendReply.
var fuzzCallers = []Caller{
	localCaller(UDP), localCaller(TCP), localCaller(UDP6), localCaller(TCP6), localCaller(Local),
	remoteCaller(UDP), remoteCaller(TCP), remoteCaller(UDP6), remoteCaller(TCP6),
	{Transport: Local, UID: 1000, HasUID: true},
}

// roomOf is how many octets a reply may have at most: PROTOCOL section 8 no. 11.
func roomOf(from Caller, call []byte) int {
	switch {
	case !from.Transport.Datagram():
		return math.MaxInt
	case isLocal(from):
		return MaxDatagram
	}
	return len(call) + 16
}

// checkReply holds what is true of every reply: it is a reply to this call, whole, and not too large.
func checkReply(t *testing.T, from Caller, call, reply []byte) {
	t.Helper()
	if len(reply) == 0 {
		// Silence is for what is no call, and for CALLIT and BCAST.
		c, err := oncrpc.ParseCall(call)
		callIt := c.Procedure == rpcbind.ProcCallIt || c.Procedure == rpcbind.ProcIndirect
		if err == nil && !(callIt && from.Transport.Datagram()) {
			t.Errorf("no reply over %s to %x", from.Transport.Netid(), call)
		}
		return
	}
	r, err := oncrpc.ParseReply(reply)
	if err != nil {
		t.Fatalf("over %s call %x gets %x: %v", from.Transport.Netid(), call, reply, err)
	}
	if r.XID != binary.BigEndian.Uint32(call) {
		t.Errorf("call %x gets a reply with xid %x", call, r.XID)
	}
	if len(reply)%4 != 0 || len(reply) > roomOf(from, call) {
		t.Errorf("over %s call of %d octets %x gets %d octets", from.Transport.Netid(), len(call), call, len(reply))
	}
	if len(r.Verf.Body) != 0 || r.Verf.Flavor != oncrpc.AuthNone {
		t.Errorf("call %x gets a verifier: %x", call, reply)
	}
}

// FuzzAppendReply sends any octets, from any caller, to a portmapper with remote calls on.
func FuzzAppendReply(f *testing.F) {
	for i, r := range readLines[recorded](f, filepath.Join(wireDir, "rpcbind-1.2.6.jsonl")) {
		f.Add(uint8(i), unhex(f, r.Call))
	}
	f.Fuzz(func(t *testing.T, who uint8, call []byte) {
		from := fuzzCallers[int(who)%len(fuzzCallers)]
		p := newSubjectWith(t, Config{Relay: new(fakeRelay)}, services...)
		before := bytes.Clone(call)
		checkReply(t, from, call, ask(p, from, call))
		if !bytes.Equal(call, before) {
			t.Error("the call was changed")
		}
		dumped(t, p)
		getStat(t, p)
	})
}

// TestEveryPrefix sends every recorded call cut at each octet, from every caller.
func TestEveryPrefix(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range readLines[recorded](t, filepath.Join(wireDir, "rpcbind-1.2.6.jsonl")) {
		call := unhex(t, r.Call)
		if seen[string(call[4:])] {
			continue // the same but for the xid
		}
		seen[string(call[4:])] = true
		p := newSubjectWith(t, Config{Relay: new(fakeRelay)}, services...)
		for n := range call {
			for _, from := range fuzzCallers {
				reply := ask(p, from, call[:n:n])
				checkReply(t, from, call[:n], reply)
				if n < oncrpc.CallHeaderSize && len(reply) > 0 {
					t.Errorf("%s: %d octets of it are answered %x", r.Name, n, reply)
				}
			}
		}
	}
	if len(seen) < 80 {
		t.Errorf("only %d different calls", len(seen))
	}
}
