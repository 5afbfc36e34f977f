package oncrpc_test

import (
	"context"
	"net"
	"runtime"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

func BenchmarkParseCall(b *testing.B) {
	for _, bb := range []struct{ name, auth string }{
		{"cred=AUTH_NONE", none},
		{"cred=AUTH_SYS", "00000001 00000020" + sysBody},
	} {
		call := unhex(b, "12345678 00000000 00000002 000186a0 00000002 00000003"+bb.auth+none+
			"000186a3 00000003 00000006 00000000")
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := oncrpc.ParseCall(call)
				if err != nil {
					b.Fatal(err)
				}
				if _, ok := oncrpc.CheckCred(c.Cred); !ok {
					b.Fatal("credential refused")
				}
			}
		})
	}
}

func BenchmarkAppendCall(b *testing.B) {
	buf := make([]byte, 0, 128)
	call := oncrpc.Call{XID: 1, Program: 100000, Version: 2, Procedure: 3, Args: make([]byte, 16)}
	b.ReportAllocs()
	for b.Loop() {
		oncrpc.AppendCall(buf, call)
	}
}

func BenchmarkAppendAccepted(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		oncrpc.AppendAccepted(buf, 1, oncrpc.Success)
	}
}

func BenchmarkParseReply(b *testing.B) {
	reply := append(oncrpc.AppendAccepted(nil, 1, oncrpc.Success), 0, 0, 8, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := oncrpc.ParseReply(reply); err != nil {
			b.Fatal(err)
		}
	}
}

// A call and its reply over loopback: one after another, and from many goroutines over one connection.
func BenchmarkClientCall(b *testing.B) {
	for _, network := range []string{"tcp", "udp"} {
		var s oncrpc.Server
		if err := s.Register(1, 1, oncrpc.Procedures{}); err != nil {
			b.Fatal(err)
		}
		var address string
		served := make(chan error, 1)
		if network == "tcp" {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			address = l.Addr().String()
			go func() { served <- s.Serve(l) }()
		} else {
			conn, err := net.ListenPacket(network, "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			address = conn.LocalAddr().String()
			go func() { served <- s.ServePacket(conn) }()
		}
		c, err := oncrpc.Dial(b.Context(), network, address)
		if err != nil {
			b.Fatal(err)
		}
		call := func(b *testing.B) {
			if _, err := c.Call(context.Background(), oncrpc.Call{Program: 1, Version: 1}); err != nil {
				b.Error(err)
			}
		}
		b.Run("net="+network+"/inflight=1", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call(b)
			}
		})
		b.Run("net="+network+"/inflight=64", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(b)
				}
			})
		})
		c.Close()
		s.Close()
		<-served
	}
}
