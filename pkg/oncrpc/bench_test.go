package oncrpc_test

import (
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
