package rpcbind_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// recorded is a call and its reply as Linux's rpcbind 1.2.6 got and sent them. Reply is nil for silence.
type recorded struct {
	name        string
	call, reply []byte
}

func readGolden(t testing.TB) []recorded {
	t.Helper()
	f, err := os.ReadFile("../../testdata/wire/rpcbind-1.2.6.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	for line := range bytes.Lines(f) {
		var pair struct{ Name, Call, Reply string }
		if err := json.Unmarshal(line, &pair); err != nil {
			t.Fatal(err)
		}
		r := recorded{name: pair.Name, call: unhex(t, pair.Call)}
		if pair.Reply != "" {
			r.reply = unhex(t, pair.Reply)
		}
		all = append(all, r)
	}
	if len(all) < 400 {
		t.Fatalf("%d recorded calls, want more than 400", len(all))
	}
	return all
}

// Every recorded call and reply is read and written again as it was.
func TestGoldenRoundTrip(t *testing.T) {
	results := 0
	for _, r := range readGolden(t) {
		call, err := oncrpc.ParseCall(r.call)
		if err != nil {
			t.Errorf("%s: call % x: %v", r.name, r.call, err)
			continue
		}
		if got := oncrpc.AppendCall(nil, call); !bytes.Equal(got, r.call) {
			t.Errorf("%s: call\n% x\nis written again\n% x", r.name, r.call, got)
		}
		if r.reply == nil {
			continue
		}
		reply, err := oncrpc.ParseReply(r.reply)
		if err != nil || reply.XID != call.XID {
			t.Errorf("%s: reply % x: %v", r.name, r.reply, err)
			continue
		}
		checkCred(t, r.name, call, reply)
		if got := rewriteReply(reply); !bytes.Equal(got, r.reply) {
			t.Errorf("%s: reply\n% x\nis written again\n% x", r.name, r.reply, got)
		}
		if got, known := rewriteResults(call, reply); known {
			results++
			if !bytes.Equal(got, reply.Results) {
				t.Errorf("%s: results\n% x\nare written again\n% x", r.name, reply.Results, got)
			}
		}
	}
	if results < 200 {
		t.Errorf("only %d results were decoded", results)
	}
}

// checkCred compares the judgement of CheckCred with rpcbind's.
func checkCred(t *testing.T, name string, call oncrpc.Call, reply oncrpc.Reply) {
	stat, ok := oncrpc.CheckCred(call.Cred)
	switch {
	case ok && reply.Denied && reply.Auth != oncrpc.AuthTooWeak:
		t.Errorf("%s: rpcbind answers %v, CheckCred lets it pass", name, reply.Auth)
	case !ok && (!reply.Denied || reply.Auth != stat):
		t.Errorf("%s: CheckCred says %v, rpcbind doesn't", name, stat)
	}
}

func rewriteReply(r oncrpc.Reply) []byte {
	switch {
	case r.Denied && r.Reject == oncrpc.AuthError:
		return oncrpc.AppendAuthError(nil, r.XID, r.Auth)
	case r.Denied:
		return oncrpc.AppendRPCMismatch(nil, r.XID)
	case r.Accept == oncrpc.ProgMismatch:
		return oncrpc.AppendProgMismatch(nil, r.XID, r.Low, r.High)
	}
	return append(oncrpc.AppendAccepted(nil, r.XID, r.Accept), r.Results...)
}

// rewriteResults decodes the results of a call that this package has a type for, and encodes them again.
func rewriteResults(call oncrpc.Call, reply oncrpc.Reply) (b []byte, known bool) {
	if reply.Denied || reply.Accept != oncrpc.Success {
		return nil, false
	}
	d := xdr.NewDecoder(reply.Results)
	switch {
	case call.Procedure == rpcbind.ProcNull:
	case call.Procedure == rpcbind.ProcSet, call.Procedure == rpcbind.ProcUnset:
		b = xdr.AppendBool(nil, d.Bool())
	case call.Version == rpcbind.PMAPVers && call.Procedure == rpcbind.ProcGetPort:
		b = xdr.AppendUint32(nil, d.Uint32())
	case call.Version == rpcbind.PMAPVers && call.Procedure == rpcbind.ProcDump:
		for _, m := range rpcbind.ReadMappingList(&d) {
			b = rpcbind.AppendMappingElement(b, m)
		}
		b = xdr.AppendBool(b, false)
	case call.Procedure == rpcbind.ProcGetAddr, call.Procedure == rpcbind.ProcGetVersAddr:
		b = xdr.AppendOpaque(nil, d.Opaque(9000))
	case call.Procedure == rpcbind.ProcDump:
		for _, r := range rpcbind.ReadRPCBList(&d, 9000) {
			b = rpcbind.AppendRPCBElement(b, r)
		}
		b = xdr.AppendBool(b, false)
	case call.Procedure == rpcbind.ProcGetAddrList:
		for _, e := range rpcbind.ReadEntryList(&d, 9000) {
			b = rpcbind.AppendEntryElement(b, e)
		}
		b = xdr.AppendBool(b, false)
	case call.Procedure == rpcbind.ProcGetStat:
		b = rpcbind.AppendStats(nil, rpcbind.ReadStats(&d, 9000))
	default:
		return nil, false
	}
	return b, d.Err() == nil
}

// Every recorded call and reply, cut at every octet, is read without a panic, and its header never as a whole one.
func TestGoldenTruncationLadder(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range readGolden(t) {
		if seen[r.name] {
			continue
		}
		seen[r.name] = true
		call, _ := oncrpc.ParseCall(r.call)
		for n := range len(r.call) - len(call.Args) {
			if _, err := oncrpc.ParseCall(r.call[:n:n]); err != oncrpc.ErrNotACall {
				t.Errorf("%s: call cut to %d octets: %v", r.name, n, err)
			}
		}
		for n := range r.reply {
			reply, err := oncrpc.ParseReply(r.reply[:n:n])
			if err != nil {
				continue
			}
			if _, whole := rewriteResults(call, reply); whole {
				t.Errorf("%s: results cut to %d of %d octets are read as whole", r.name, len(reply.Results), len(r.reply)-oncrpc.AcceptedHeaderSize)
			}
		}
	}
}

// The universal addresses that rpcbind wrote are written again as they were.
func TestGoldenUAddrs(t *testing.T) {
	found := 0
	for _, r := range readGolden(t) {
		call, _ := oncrpc.ParseCall(r.call)
		reply, err := oncrpc.ParseReply(r.reply)
		if err != nil || call.Version < 3 || call.Procedure != rpcbind.ProcGetAddr || len(reply.Results) == 0 {
			continue
		}
		d := xdr.NewDecoder(reply.Results)
		if ap, ok := rpcbind.ParseUAddr(d.Opaque(100)); ok {
			found++
			if again := hex.EncodeToString(xdr.AppendString(nil, rpcbind.UAddr(ap))); again != hex.EncodeToString(reply.Results) {
				t.Errorf("%s: %x is written again as %s", r.name, reply.Results, again)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d universal addresses found", found)
	}
}
