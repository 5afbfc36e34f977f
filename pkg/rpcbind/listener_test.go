package rpcbind

import (
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"testing"
)

func TestAddresses(t *testing.T) {
	tcp := func(addr string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", addr); return a }
	udp := func(addr string) net.Addr { a, _ := net.ResolveUDPAddr("udp", addr); return a }
	tests := []struct {
		name      string
		listeners []any
		want      []RPCB
	}{
		{"IPv4", []any{tcp("10.0.0.5:2049")}, []RPCB{{100003, 3, TCP, "10.0.0.5.8.1", ""}}},
		{"IPv4 wildcard", []any{udp("0.0.0.0:2049")}, []RPCB{{100003, 3, UDP, "0.0.0.0.8.1", ""}}},
		{"IPv6", []any{tcp("[fe80::1%lo]:2049")}, []RPCB{{100003, 3, TCP6, "fe80::1.8.1", ""}}},
		{"IPv4 as IPv6", []any{tcp("[::ffff:10.0.0.5]:2049")}, []RPCB{{100003, 3, TCP, "10.0.0.5.8.1", ""}}},
		{"both", []any{tcp("[::]:2049")}, []RPCB{{100003, 3, TCP6, "::.8.1", ""}, {100003, 3, TCP, "0.0.0.0.8.1", ""}}},
		{"two transports", []any{tcp("1.2.3.4:1"), udp("1.2.3.4:2")},
			[]RPCB{{100003, 3, TCP, "1.2.3.4.0.1", ""}, {100003, 3, UDP, "1.2.3.4.0.2", ""}}},
		{"two addresses", []any{tcp("127.0.0.1:2049"), tcp("10.0.0.5:2049"), tcp("10.0.0.6:2049")},
			[]RPCB{{100003, 3, TCP, "0.0.0.0.8.1", ""}}},
		{"two IPv6 addresses", []any{tcp("[::1]:2049"), tcp("[fd09::1]:2049")}, []RPCB{{100003, 3, TCP6, "::.8.1", ""}}},
		{"twice the same", []any{tcp("127.0.0.1:2049"), tcp("127.0.0.1:2049")}, []RPCB{{100003, 3, TCP, "127.0.0.1.8.1", ""}}},
		{"a path", []any{&net.UnixAddr{Name: "/run/x", Net: "unix"}}, []RPCB{{100003, 3, Local, "/run/x", ""}}},
		{"an abstract name", []any{&net.UnixAddr{Name: "@x", Net: "unix"}}, []RPCB{{100003, 3, Local, "@x", ""}}},
		{"nothing", nil, nil},
		{"nil", []any{nil}, nil},
		{"a string", []any{"127.0.0.1:1"}, nil},
		{"no port", []any{tcp("127.0.0.1:0")}, nil},
		{"no IP, package net's wildcard", []any{&net.TCPAddr{Port: 20490}}, []RPCB{{100003, 3, TCP6, "::.80.10", ""}, {100003, 3, TCP, "0.0.0.0.80.10", ""}}},
		{"no IP, UDP", []any{&net.UDPAddr{Port: 20490}}, []RPCB{{100003, 3, UDP6, "::.80.10", ""}, {100003, 3, UDP, "0.0.0.0.80.10", ""}}},
		{"no port, no IP", []any{&net.TCPAddr{}}, nil},
		{"two ports", []any{tcp("127.0.0.1:1"), tcp("127.0.0.2:2")}, nil},
		{"a relative path", []any{&net.UnixAddr{Name: "x", Net: "unix"}}, nil},
		{"local datagrams", []any{&net.UnixAddr{Name: "/run/x", Net: "unixgram"}}, nil},
		{"IP", []any{&net.IPAddr{IP: net.IPv4zero}}, nil},
	}
	for _, tt := range tests {
		got, err := Addresses(100003, 3, tt.listeners...)
		var e *Error
		switch {
		case tt.want == nil && !errors.As(err, &e):
			t.Errorf("%s: %v, %v; want an *Error", tt.name, got, err)
		case tt.want != nil && (err != nil || !reflect.DeepEqual(got, tt.want)):
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

// What real sockets tell.
func TestAddressesOfSockets(t *testing.T) {
	netids := func(l any) (list []Netid) {
		found, err := Addresses(1, 1, l)
		if err != nil {
			t.Error(err)
		}
		for _, b := range found {
			list = append(list, b.Netid)
		}
		return list
	}
	both := []Netid{TCP6, TCP}
	if l, err := net.Listen("tcp6", "[::]:0"); err != nil {
		t.Logf("without IPv6: %v", err)
		both = []Netid{TCP}
	} else {
		if got := netids(l); !reflect.DeepEqual(got, []Netid{TCP6}) {
			t.Errorf("tcp6 [::]: %v", got)
		}
		l.Close()
	}
	for _, tt := range []struct {
		network, address string
		want             []Netid
	}{{"tcp", ":0", both}, {"tcp4", ":0", []Netid{TCP}}, {"tcp", "127.0.0.1:0", []Netid{TCP}},
		{"unix", filepath.Join(t.TempDir(), "s"), []Netid{Local}}} {
		l, err := net.Listen(tt.network, tt.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := netids(l); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s %s: %v, want %v", tt.network, tt.address, got, tt.want)
		}
		l.Close()
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if got := netids(pc); !reflect.DeepEqual(got, []Netid{UDP}) {
		t.Errorf("udp4: %v", got)
	}
}
