package rpcbind_test

import (
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
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

var (
	nfs       = rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "superuser"}
	nfsEntry  = rpcbind.Entry{Addr: "127.0.0.1.8.1", Transport: rpcbind.Transport{Netid: "tcp", Semantics: 3, Family: "inet", Proto: "tcp"}}
	nfsPort   = rpcbind.Mapping{Program: 100003, Version: 3, Prot: 6, Port: 2049}
	statdPort = rpcbind.Mapping{Program: 100024, Version: 1, Prot: 17, Port: 65535}
)

// Written by hand from RFC 1833 sections 2.1 and 3.1.
const (
	nfsOctets = "000186a3 00000003 00000003 74637000 0000000b 302e302e302e302e382e3100" +
		"00000009 737570657275736572000000"
	nfsEntryOctets = "0000000d 3132372e302e302e312e382e31000000 00000003 74637000 00000003" +
		"00000004 696e6574 00000003 74637000"
	nfsPortOctets   = "000186a3 00000003 00000006 00000801"
	statdPortOctets = "000186b8 00000001 00000011 0000ffff"
	more, end       = "00000001", "00000000"
)

// codec is a message of this package: how it is written and read.
type codec struct {
	name   string
	octets string
	write  func() []byte
	value  any
	read   func(*xdr.Decoder) any
}

func readRPCB(d *xdr.Decoder) any      { return rpcbind.ReadRPCB(d, 255) }
func readMapping(d *xdr.Decoder) any   { return rpcbind.ReadMapping(d) }
func readRPCBs(d *xdr.Decoder) any     { return rpcbind.ReadRPCBList(d, 255) }
func readMappings(d *xdr.Decoder) any  { return rpcbind.ReadMappingList(d) }
func readEntryList(d *xdr.Decoder) any { return rpcbind.ReadEntryList(d, 255) }

func listEnd(b []byte) []byte { return xdr.AppendBool(b, false) }

var codecs = []codec{
	{"rpcb", nfsOctets, func() []byte { return rpcbind.AppendRPCB(nil, nfs) }, nfs, readRPCB},
	{"empty rpcb", "00000000 00000000 00000000 00000000 00000000",
		func() []byte { return rpcbind.AppendRPCB(nil, rpcbind.RPCB{}) }, rpcbind.RPCB{}, readRPCB},
	{"mapping", nfsPortOctets, func() []byte { return rpcbind.AppendMapping(nil, nfsPort) }, nfsPort, readMapping},
	{"rpcblist of none", end, func() []byte { return listEnd(nil) }, []rpcbind.RPCB(nil), readRPCBs},
	{"rpcblist of two", more + nfsOctets + more + nfsOctets + end,
		func() []byte { return listEnd(rpcbind.AppendRPCBElement(rpcbind.AppendRPCBElement(nil, nfs), nfs)) },
		[]rpcbind.RPCB{nfs, nfs}, readRPCBs},
	{"pmaplist of none", end, func() []byte { return listEnd(nil) }, []rpcbind.Mapping(nil), readMappings},
	{"pmaplist of two", more + nfsPortOctets + more + statdPortOctets + end,
		func() []byte {
			return listEnd(rpcbind.AppendMappingElement(rpcbind.AppendMappingElement(nil, nfsPort), statdPort))
		},
		[]rpcbind.Mapping{nfsPort, statdPort}, readMappings},
	{"entry list of none", end, func() []byte { return listEnd(nil) }, []rpcbind.Entry(nil), readEntryList},
	{"entry list of one", more + nfsEntryOctets + end,
		func() []byte { return listEnd(rpcbind.AppendEntryElement(nil, nfsEntry)) }, []rpcbind.Entry{nfsEntry}, readEntryList},
}

func TestCodecs(t *testing.T) {
	for _, c := range codecs {
		want := unhex(t, c.octets)
		if got := c.write(); string(got) != string(want) {
			t.Errorf("%s: written\n% x, want\n% x", c.name, got, want)
		}
		d := xdr.NewDecoder(append(want, "behind"...))
		if got := c.read(&d); d.Err() != nil || !reflect.DeepEqual(got, c.value) || string(d.Rest()) != "behind" {
			t.Errorf("%s: read %+v, %v, %d octets left; want %+v", c.name, got, d.Err(), len(d.Rest()), c.value)
		}
	}
	if n := len(unhex(t, nfsPortOctets)); n != rpcbind.MappingSize {
		t.Errorf("a mapping has %d octets, MappingSize is %d", n, rpcbind.MappingSize)
	}
	for _, b := range []rpcbind.RPCB{{}, nfs, {Netid: "udp6", Addr: "::1.0.1", Owner: "0"}} {
		if n := len(rpcbind.AppendRPCB(nil, b)); b.Size() != n {
			t.Errorf("%+v: Size is %d, encoded it has %d octets", b, b.Size(), n)
		}
	}
}

func TestCodecTruncationLadder(t *testing.T) {
	for _, c := range codecs {
		whole := unhex(t, c.octets)
		for n := range whole {
			d := xdr.NewDecoder(whole[:n:n])
			if c.read(&d); d.Err() != xdr.ErrTruncated {
				t.Errorf("%s cut to %d of %d octets: %v", c.name, n, len(whole), d.Err())
			}
		}
	}
}

// A length of 2^31-1, 2^32-1 and others near 2^32 in the place of every word: an error or a message that was read with
// no more than it has.
func TestCodecHostileWords(t *testing.T) {
	for _, c := range codecs {
		whole := unhex(t, c.octets)
		for i := 0; i < len(whole); i += 4 {
			for _, v := range []uint32{2, 256, 9001, math.MaxInt32, 1 << 31, math.MaxUint32 - 3, math.MaxUint32 - 2, math.MaxUint32} {
				b := append(xdr.AppendUint32(append([]byte(nil), whole[:i]...), v), whole[i+4:]...)
				d := xdr.NewDecoder(b)
				got := c.read(&d)
				if n := len(fmt.Sprint(got)); n > 20*len(b)+100 {
					t.Errorf("%s, word %d is %#x: read as %d characters", c.name, i/4, v, n)
				}
			}
		}
	}
}

func TestStringLimits(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, b := range []rpcbind.RPCB{{Netid: rpcbind.Netid(long)}, {Addr: long}, {Owner: long}} {
		encoded := rpcbind.AppendRPCB(nil, b)
		d := xdr.NewDecoder(encoded)
		if rpcbind.ReadRPCB(&d, 255); d.Err() != xdr.ErrTooLong {
			t.Errorf("a string of 256 with a limit of 255: %v", d.Err())
		}
		d = xdr.NewDecoder(encoded)
		if got := rpcbind.ReadRPCB(&d, 256); d.Err() != nil || got != b {
			t.Errorf("a string of 256 with a limit of 256: %v", d.Err())
		}
	}
	for _, e := range []rpcbind.Entry{{Addr: long}, {Transport: rpcbind.Transport{Netid: rpcbind.Netid(long)}},
		{Transport: rpcbind.Transport{Family: long}}, {Transport: rpcbind.Transport{Proto: long}}} {
		d := xdr.NewDecoder(rpcbind.AppendEntryElement(nil, e))
		if rpcbind.ReadEntryList(&d, 255); d.Err() != xdr.ErrTooLong {
			t.Errorf("an entry's string of 256 with a limit of 255: %v", d.Err())
		}
	}
}

// A list's discriminant has to be 0 or 1.
func TestListDiscriminant(t *testing.T) {
	for _, in := range []string{"00000002", "ffffffff", more + nfsPortOctets + "00000100"} {
		d := xdr.NewDecoder(unhex(t, in))
		if rpcbind.ReadMappingList(&d); d.Err() != xdr.ErrBadBool {
			t.Errorf("%s: %v, want %v", in, d.Err(), xdr.ErrBadBool)
		}
	}
}

func TestAppendAllocations(t *testing.T) {
	buf := make([]byte, 0, 256)
	sink := 0
	for name, f := range map[string]func(){
		"AppendRPCBElement":    func() { sink += len(rpcbind.AppendRPCBElement(buf, nfs)) },
		"AppendMappingElement": func() { sink += len(rpcbind.AppendMappingElement(buf, nfsPort)) },
		"AppendEntryElement":   func() { sink += len(rpcbind.AppendEntryElement(buf, nfsEntry)) },
		"ReadMapping": func() {
			d := xdr.NewDecoder(buf[:16])
			sink += int(rpcbind.ReadMapping(&d).Port) + 1
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	if sink == 0 {
		t.Error("nothing was done")
	}
}
