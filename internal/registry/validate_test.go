package registry

import (
	"errors"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		prog  uint32
		netid rpcbind.Netid
		addr  string
		ip    string // "" if the netid isn't one of IP
		err   error
	}{
		{1, "tcp", "0.0.0.0.8.1", "0.0.0.0:2049", nil},
		{4294967295, "udp", "255.255.255.255.255.255", "255.255.255.255:65535", nil},
		{1, "TCP", "10.0.0.1.0.0", "10.0.0.1:0", nil},
		{1, "tcp6", "::.8.1", "[::]:2049", nil},
		{1, "udp6", "fe80::1.0.111", "[fe80::1]:111", nil},
		{1, "UDP6", "::ffff:1.2.3.4.0.111", "[::ffff:1.2.3.4]:111", nil},
		{1, "local", "/run/rpcbind.sock", "", nil},
		{1, "local", "", "", nil},
		{1, "local", "/run/Grüße und so", "", nil},
		{1, "rdma", "0.0.0.0.78.81", "", nil},
		{1, "rdma6", "::.78.81", "", nil},
		{1, "sctp", "anything at all", "", nil},
		{1, "ticots", "host.rpc", "", nil},
		{1, "~!x", "", "", nil},

		{0, "tcp", "0.0.0.0.8.1", "", ErrProgramZero},
		{0, "", "", "", ErrProgramZero},
		{1, "", "0.0.0.0.8.1", "", ErrBadNetid},
		{1, "tcp ", "0.0.0.0.8.1", "", ErrBadNetid},
		{1, "t cp", "x", "", ErrBadNetid},
		{1, "tcp\x00", "0.0.0.0.8.1", "", ErrBadNetid},
		{1, "\x1b[31m", "x", "", ErrBadNetid},
		{1, "tcp\x7f", "x", "", ErrBadNetid},
		{1, "tüp", "x", "", ErrBadNetid},
		{1, "tcp", "", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0.300.5", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0.256.1", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0.8.-1", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0.8.1 ", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0.8.1\x00", "", ErrBadAddr},
		{1, "tcp", "0.0.0.0.08.1", "", ErrBadAddr},
		{1, "tcp", "256.0.0.0.8.1", "", ErrBadAddr},
		{1, "tcp", "localhost.8.1", "", ErrBadAddr},
		{1, "tcp", "::.8.1", "", ErrBadAddr},
		{1, "tcp", "::ffff:1.2.3.4.8.1", "", ErrBadAddr},
		{1, "TCP6", "0.0.0.0.8.1", "", ErrBadAddr},
		{1, "tcp6", "fe80::1%eth0.8.1", "", ErrBadAddr},
		{1, "udp6", "/run/x", "", ErrBadAddr},
		{1, "local", "/run/\n", "", ErrBadAddr},
		{1, "local", "/run/\x1b[31m", "", ErrBadAddr},
		{1, "local", "/run/\x00x", "", ErrBadAddr},
		{1, "local", "/run/\xff", "", ErrBadAddr},
		{1, "rdma", "\u202e", "", ErrBadAddr},
		{1, "sctp", "a\tb", "", ErrBadAddr},
	}
	for _, tt := range tests {
		b := rpcb(tt.prog, 1, tt.netid, tt.addr, "superuser")
		ip, err := Validate(b)
		var got string
		if ip.IsValid() {
			got = ip.String()
		}
		if !errors.Is(err, tt.err) || got != tt.ip {
			t.Errorf("Validate(%d, %q, %q) = %q, %v, want %q, %v", tt.prog, tt.netid, tt.addr, got, err, tt.ip, tt.err)
		}
		table := New()
		for name, set := range map[string]func(rpcbind.RPCB) error{"Set": table.Set, "SetOwn": New().SetOwn} {
			if err := set(b); !errors.Is(err, tt.err) {
				t.Errorf("%s(%d, %q, %q) = %v, want %v", name, tt.prog, tt.netid, tt.addr, err, tt.err)
			}
		}
		if (table.Len() == 1) != (tt.err == nil) {
			t.Errorf("Set(%d, %q, %q) leaves %d entries", tt.prog, tt.netid, tt.addr, table.Len())
		}
	}
}

func TestValidateTakesLongAddresses(t *testing.T) {
	if _, err := Validate(rpcb(1, 1, rpcbind.Local, "/"+strings.Repeat("x", 8000), "")); err != nil {
		t.Error(err)
	}
}
