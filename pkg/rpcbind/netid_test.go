package rpcbind_test

import (
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func TestNetidTransport(t *testing.T) {
	tests := []struct {
		netid rpcbind.Netid
		want  rpcbind.Transport
		ip    bool
	}{
		{"udp", rpcbind.Transport{Netid: "udp", Semantics: 1, Family: "inet", Proto: "udp"}, true},
		{"tcp", rpcbind.Transport{Netid: "tcp", Semantics: 3, Family: "inet", Proto: "tcp"}, true},
		{"udp6", rpcbind.Transport{Netid: "udp6", Semantics: 1, Family: "inet6", Proto: "udp"}, true},
		{"TCP6", rpcbind.Transport{Netid: "tcp6", Semantics: 3, Family: "inet6", Proto: "tcp"}, true},
		{"local", rpcbind.Transport{Netid: "local", Semantics: 3, Family: "loopback", Proto: "-"}, false},
	}
	for _, tt := range tests {
		if got, ok := tt.netid.Transport(); got != tt.want || !ok || got.IP() != tt.ip {
			t.Errorf("%s: %+v, %v, IP %v; want %+v, IP %v", tt.netid, got, ok, got.IP(), tt.want, tt.ip)
		}
	}
	for _, netid := range []rpcbind.Netid{"", "rdma", "sctp", "udp ", "udp66", "ud", "unix"} {
		if got, ok := netid.Transport(); ok || got.IP() {
			t.Errorf("%q: %+v, IP %v; want none", netid, got, got.IP())
		}
	}
}

func TestNetidIs(t *testing.T) {
	tests := []struct {
		a, b rpcbind.Netid
		want bool
	}{
		{"tcp", "tcp", true}, {"tcp", "TCP", true}, {"tCp6", "TcP6", true}, {"", "", true},
		{"tcp", "tcp6", false}, {"tcp", "udp", false}, {"tcp", "", false},
		{"[\\]", "{|}", false},      // 0x20 apart and no letters
		{"tc\xd0", "tc\xf0", false}, // letters of other alphabets keep their case
	}
	for _, tt := range tests {
		if tt.a.Is(tt.b) != tt.want || tt.b.Is(tt.a) != tt.want {
			t.Errorf("%q, %q: want %v", tt.a, tt.b, tt.want)
		}
	}
}

func TestProt(t *testing.T) {
	for netid, want := range map[rpcbind.Netid]uint32{"tcp": 6, "UDP": 17, "tcp6": 0, "udp6": 0, "local": 0, "": 0} {
		if got, ok := netid.Prot(); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v; want %d", netid, got, ok, want)
		}
	}
	for prot, want := range map[uint32]rpcbind.Netid{6: "tcp", 17: "udp", 0: "", 58: "", 0xffffffff: "", 256 + 6: ""} {
		if got, ok := rpcbind.NetidOfProt(prot); got != want || ok != (want != "") {
			t.Errorf("%d: %q, %v; want %q", prot, got, ok, want)
		}
	}
}
