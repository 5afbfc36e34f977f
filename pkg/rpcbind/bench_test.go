package rpcbind_test

import (
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func BenchmarkParseUAddr(b *testing.B) {
	for _, bb := range []struct{ name, uaddr string }{
		{"family=inet", "192.168.100.100.8.1"},
		{"family=inet6", "2001:db8:0:1:1:1:1:1.8.1"},
	} {
		in := []byte(bb.uaddr)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := rpcbind.ParseUAddr(in); !ok {
					b.Fatal("not parsed")
				}
			}
		})
	}
}

func BenchmarkAppendUAddr(b *testing.B) {
	for _, bb := range []struct{ name, addr string }{
		{"family=inet", "192.168.100.100:2049"},
		{"family=inet6", "[2001:db8:0:1:1:1:1:1]:2049"},
	} {
		ap := netip.MustParseAddrPort(bb.addr)
		buf := make([]byte, 0, rpcbind.MaxUAddrSize)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rpcbind.AppendUAddr(buf, ap)
			}
		})
	}
}

func BenchmarkAppendRPCB(b *testing.B) {
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		rpcbind.AppendRPCB(buf, nfs)
	}
}

func BenchmarkReadRPCB(b *testing.B) {
	in := rpcbind.AppendRPCB(nil, nfs)
	b.ReportAllocs()
	for b.Loop() {
		d := xdr.NewDecoder(in)
		if rpcbind.ReadRPCB(&d, 255); d.Err() != nil {
			b.Fatal(d.Err())
		}
	}
}

func BenchmarkReadMapping(b *testing.B) {
	in := rpcbind.AppendMapping(nil, nfsPort)
	b.ReportAllocs()
	for b.Loop() {
		d := xdr.NewDecoder(in)
		if rpcbind.ReadMapping(&d); d.Err() != nil {
			b.Fatal(d.Err())
		}
	}
}

func BenchmarkReadRPCBList(b *testing.B) {
	var in []byte
	for range 34 { // an NFS server's registrations
		in = rpcbind.AppendRPCBElement(in, nfs)
	}
	in = xdr.AppendBool(in, false)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		d := xdr.NewDecoder(in)
		if rpcbind.ReadRPCBList(&d, 255); d.Err() != nil {
			b.Fatal(d.Err())
		}
	}
}
