package rpcbind_test

import (
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// addGolden adds as seeds the different results of a procedure that rpcbind sent, and whole lists of this package.
func addGolden(f *testing.F, version, procedure uint32) {
	f.Helper()
	seen := make(map[string]bool)
	for _, r := range readGolden(f) {
		call, _ := oncrpc.ParseCall(r.call)
		reply, err := oncrpc.ParseReply(r.reply)
		if err != nil || call.Version != version || call.Procedure != procedure || seen[string(reply.Results)] {
			continue
		}
		seen[string(reply.Results)] = true
		f.Add(reply.Results)
	}
	for _, c := range codecs {
		f.Add(c.write())
	}
	f.Add([]byte("\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
}

// checkList holds a list that was read against its encoding: no more elements than fit, no longer strings than there
// are octets, and written again it has the same size and is read as the same.
func checkList[T comparable](t *testing.T, in []byte, read func(*xdr.Decoder) []T, write func([]byte, T) []byte, smallest int) {
	t.Helper()
	d := xdr.NewDecoder(in)
	list := read(&d)
	if len(list)*smallest > len(in) {
		t.Fatalf("%d elements of %d octets or more from %d octets", len(list), smallest, len(in))
	}
	var again []byte
	for _, element := range list {
		again = write(again, element)
	}
	again = xdr.AppendBool(again, false)
	if d.Err() == nil && len(again) != len(in)-len(d.Rest()) || d.Err() != nil && len(again) > len(in)+xdr.Unit {
		t.Fatalf("%d octets are written again as %d", len(in)-len(d.Rest()), len(again))
	}
	d = xdr.NewDecoder(again)
	reread := read(&d)
	if d.Err() != nil || len(reread) != len(list) || len(d.Rest()) != 0 {
		t.Fatalf("%d elements are written again as %d, %v", len(list), len(reread), d.Err())
	}
	for i := range list {
		if list[i] != reread[i] {
			t.Fatalf("element %d: %+v is written again as %+v", i, list[i], reread[i])
		}
	}
}

func FuzzReadRPCBList(f *testing.F) {
	addGolden(f, rpcbind.RPCBVers4, rpcbind.ProcDump)
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func(d *xdr.Decoder) []rpcbind.RPCB { return rpcbind.ReadRPCBList(d, 9000) }
		checkList(t, in, read, rpcbind.AppendRPCBElement, 24)
	})
}

func FuzzReadMappingList(f *testing.F) {
	addGolden(f, rpcbind.PMAPVers, rpcbind.ProcDump)
	f.Fuzz(func(t *testing.T, in []byte) {
		checkList(t, in, rpcbind.ReadMappingList, rpcbind.AppendMappingElement, 20)
	})
}

func FuzzReadEntryList(f *testing.F) {
	addGolden(f, rpcbind.RPCBVers4, rpcbind.ProcGetAddrList)
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func(d *xdr.Decoder) []rpcbind.Entry { return rpcbind.ReadEntryList(d, 9000) }
		checkList(t, in, read, rpcbind.AppendEntryElement, 24)
	})
}
