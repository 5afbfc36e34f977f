package oncrpc

import (
	"bytes"
	"slices"
	"testing"
)

// seeds are messages as Linux's rpcbind got and sent them, and some that no one should send.
var seeds = []string{
	// NULL; GETPORT; GETADDR of version 4; NULL with AUTH_SYS; AUTH_SHORT.
	"\x00\x00\x10\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x00\x00\x02" + zero20,
	"\x00\x00\x10\x4e\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x00\x00\x02\x00\x00\x00\x03" + zero16 +
		"\x00\x06\x1a\x81\x00\x00\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00",
	"\x00\x00\x10\x7b\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x00\x00\x04\x00\x00\x00\x03" + zero16 +
		"\x00\x01\x86\xa0\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"\x00\x00\x10\x9b\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x00\x00\x04\x00\x00\x00\x00" +
		"\x00\x00\x00\x01\x00\x00\x00\x18\x00\x00\x00\x01\x00\x00\x00\x04host\x00\x00\x03\xe8\x00\x00\x03\xe8\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00",
	"\x00\x00\x10\x9e\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x00\x00\x04\x00\x00\x00\x00" +
		"\x00\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00",
	// SUCCESS with a port; PROG_MISMATCH; AUTH_REJECTEDCRED; RPC_MISMATCH.
	"\x00\x00\x10\x4e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x01",
	"\x00\x00\x10\x04\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x04",
	"\x00\x00\x10\x9e\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02",
	"\x00\x00\x10\x3d\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02",
}

const (
	zero16 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	zero20 = "\x00\x00\x00\x00" + zero16
)

// FuzzParseCall: no panic; what is parsed is inside the message; written again it is the message, but for padding and
// an RPC version of 0, which AppendCall doesn't write.
func FuzzParseCall(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		c, err := ParseCall(message)
		if err != nil {
			if err != ErrNotACall {
				t.Fatalf("error %v", err)
			}
			return
		}
		if len(c.Cred.Body) > MaxAuthBody || len(c.Verf.Body) > MaxAuthBody {
			t.Fatalf("bodies of %d and %d octets", len(c.Cred.Body), len(c.Verf.Body))
		}
		if !bytes.HasSuffix(message, c.Args) {
			t.Fatal("the arguments aren't the end of the message")
		}
		CheckCred(c.Cred)
		again := AppendCall(nil, c)
		if len(again) != len(message) {
			t.Fatalf("%d octets written again as %d", len(message), len(again))
		}
		if c.RPCVersion == 0 {
			return
		}
		parsed, err := ParseCall(again)
		if err != nil || !bytes.Equal(AppendCall(nil, parsed), again) {
			t.Fatalf("% x\nwritten again is\n% x, %v", message, again, err)
		}
	})
}

// FuzzParseReply: no panic; an accepted one's results are the end of the message; what the Append functions can write
// of it parses as the same.
func FuzzParseReply(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := ParseReply(message)
		if err != nil {
			if err != ErrNotAReply {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !bytes.HasSuffix(message, r.Results) || len(r.Verf.Body) > MaxAuthBody {
			t.Fatalf("%+v isn't what % x says", r, message)
		}
		if err := r.Err(); (err == nil) != (!r.Denied && r.Accept == Success) || err != nil && err.Error() == "" {
			t.Fatalf("%+v has the error %v", r, err)
		}
		var again []byte
		switch {
		case r.Denied && r.Reject == AuthError:
			again = AppendAuthError(nil, r.XID, r.Auth)
		case r.Denied:
			again = AppendRPCMismatch(nil, r.XID)
			r.Low, r.High = RPCVersion, RPCVersion
		case r.Accept == ProgMismatch:
			again = AppendProgMismatch(nil, r.XID, r.Low, r.High)
		default:
			again = append(AppendAccepted(nil, r.XID, r.Accept), r.Results...)
		}
		got, err := ParseReply(again)
		got.Verf, r.Verf = OpaqueAuth{}, OpaqueAuth{}
		same := got.XID == r.XID && got.Denied == r.Denied && got.Accept == r.Accept && got.Reject == r.Reject &&
			got.Auth == r.Auth && got.Low == r.Low && got.High == r.High && bytes.Equal(got.Results, r.Results)
		if err != nil || !same {
			t.Fatalf("%+v\nwritten again is\n%+v, %v", r, got, err)
		}
	})
}

// FuzzRecordReader: a stream read in any segments gives what it gives when it is there at once, and never holds more
// than has arrived.
func FuzzRecordReader(f *testing.F) {
	call := []byte(seeds[1])
	f.Add(fragment(nil, call, true), []byte{1}, uint16(9000))
	f.Add(fragment(fragment(nil, call[:10], false), call[10:], true), []byte{3, 200, 1}, uint16(9000))
	f.Add(append(fragment(nil, call, true), 0x80, 0, 0, 0, 0, 0, 0, 0), []byte{5}, uint16(100))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, []byte{2}, uint16(65535))
	f.Add([]byte{0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 3, 4, 0x80, 0, 0, 0}, []byte{1, 2}, uint16(4))
	f.Fuzz(func(t *testing.T, stream, segments []byte, limit uint16) {
		sizes := []int{len(stream)}
		for _, s := range segments {
			sizes = append(sizes, int(s))
		}
		if len(segments) > 0 {
			sizes = sizes[1:]
		}
		want, wantErr := cutRecords(stream, int(limit))
		r := RecordReader{Limit: int(limit)}
		got, err := readRecords(&r, stream, sizes)
		if !slices.Equal(got, want) || err != wantErr {
			t.Fatalf("%q, %v\nat once %q, %v", got, err, want, wantErr)
		}
		if held := cap(r.record); held > 2*len(stream)+64 {
			t.Fatalf("%d octets held for a stream of %d", held, len(stream))
		}
	})
}
