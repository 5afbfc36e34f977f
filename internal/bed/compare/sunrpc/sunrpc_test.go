package sunrpc_test

import (
	"context"
	"net"
	"net/rpc"
	"testing"

	"github.com/prashanthpai/sunrpc"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// mapping is GETPORT's argument, as the library with reflection takes it.
type mapping struct{ Program, Version, Prot, Port uint32 }

const getport = "Portmapper.Getport"

// serve answers GETPORT on loopback TCP.
func serve(b *testing.B) string {
	b.Helper()
	var s oncrpc.Server
	err := s.Register(100000, 2, oncrpc.Procedures{3: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		d := r.Decoder()
		if d.Fixed(16); d.Err() != nil {
			return nil, oncrpc.ErrGarbageArgs
		}
		return xdr.AppendUint32(results, 2049), nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		s.Close()
		<-served
	})
	return l.Addr().String()
}

// measure runs a call one after another and from 64 goroutines.
func measure(b *testing.B, lib string, call func(*testing.B)) {
	b.Run("inflight=1/lib="+lib, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(b)
		}
	})
	b.Run("inflight=64/lib="+lib, func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				call(b)
			}
		})
	})
}

// Calls over loopback TCP, to the same server.
func BenchmarkCall(b *testing.B) {
	address := serve(b)
	ours, err := oncrpc.Dial(b.Context(), "tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	measure(b, "gportmap", func(b *testing.B) {
		args := make([]byte, 0, 16)
		for _, v := range []uint32{100003, 3, 6, 0} {
			args = xdr.AppendUint32(args, v)
		}
		results, err := ours.Call(context.Background(), oncrpc.Call{Program: 100000, Version: 2, Procedure: 3, Args: args})
		d := xdr.NewDecoder(results)
		if port := d.Uint32(); err != nil || port != 2049 {
			b.Error(port, err)
		}
	})

	id := sunrpc.ProcedureID{ProgramNumber: 100000, ProgramVersion: 2, ProcedureNumber: 3}
	if err := sunrpc.RegisterProcedure(sunrpc.Procedure{ID: id, Name: getport}, true); err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	theirs := rpc.NewClientWithCodec(sunrpc.NewClientCodec(conn, nil))
	defer theirs.Close()
	measure(b, "sunrpc", func(b *testing.B) {
		var port uint32
		if err := theirs.Call(getport, mapping{100003, 3, 6, 0}, &port); err != nil || port != 2049 {
			b.Error(port, err)
		}
	})
}
