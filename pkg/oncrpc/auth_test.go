package oncrpc_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

func TestAppendSysCred(t *testing.T) {
	got := oncrpc.AppendSysCred(nil, oncrpc.SysCred{Stamp: 1, MachineName: "host", UID: 1000, GID: 100, GIDs: []uint32{100, 4}})
	if want := unhex(t, sysBody); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestCheckCred(t *testing.T) {
	sys := func(name string, gids int) []byte {
		return oncrpc.AppendSysCred(nil, oncrpc.SysCred{MachineName: name, GIDs: make([]uint32, gids)})
	}
	tests := []struct {
		name string
		auth oncrpc.OpaqueAuth
		stat oncrpc.AuthStat
		ok   bool
	}{
		{"AUTH_NONE", oncrpc.OpaqueAuth{}, 0, true},
		{"AUTH_NONE with a body", oncrpc.OpaqueAuth{Body: []byte("anything")}, 0, true},
		{"AUTH_SYS", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: unhex(t, sysBody)}, 0, true},
		{"AUTH_SYS, octets behind", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: append(sys("a", 1), 1, 2, 3)}, 0, true},
		{"AUTH_SYS, 16 groups", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys("", 16)}, 0, true},
		{"AUTH_SYS, 17 groups", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys("", 17)}, oncrpc.AuthBadCred, false},
		{"AUTH_SYS, name of 255", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(strings.Repeat("h", 255), 0)}, 0, true},
		{"AUTH_SYS, name of 256", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: sys(strings.Repeat("h", 256), 0)},
			oncrpc.AuthBadCred, false},
		{"AUTH_SYS, name of 2^32-1", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: unhex(t, "00000001 ffffffff 00000000")},
			oncrpc.AuthBadCred, false},
		{"AUTH_SYS, 2^30 groups", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys,
			Body: unhex(t, "00000001 00000000 00000000 00000000 40000000")}, oncrpc.AuthBadCred, false},
		{"AUTH_SYS, 2^32-1 groups", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys,
			Body: unhex(t, "00000001 00000000 00000000 00000000 ffffffff")}, oncrpc.AuthBadCred, false},
		{"AUTH_SYS, empty", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys}, oncrpc.AuthBadCred, false},
		{"AUTH_SHORT", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthShort}, oncrpc.AuthRejectedCred, false},
		{"AUTH_DES", oncrpc.OpaqueAuth{Flavor: oncrpc.AuthDES}, oncrpc.AuthFailed, false},
		{"flavor 4", oncrpc.OpaqueAuth{Flavor: 4}, oncrpc.AuthRejectedCred, false},
		{"RPCSEC_GSS", oncrpc.OpaqueAuth{Flavor: oncrpc.RPCSecGSS, Body: unhex(t, "00000001 ffffffff")},
			oncrpc.AuthRejectedCred, false},
		{"flavor 2^32-1", oncrpc.OpaqueAuth{Flavor: 0xffffffff}, oncrpc.AuthRejectedCred, false},
	}
	for _, tt := range tests {
		if stat, ok := oncrpc.CheckCred(tt.auth); stat != tt.stat || ok != tt.ok {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, stat, ok, tt.stat, tt.ok)
		}
	}
}

func TestSysCredTruncationLadder(t *testing.T) {
	whole := unhex(t, sysBody)
	for n := range whole {
		if stat, ok := oncrpc.CheckCred(oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: whole[:n:n]}); ok || stat != oncrpc.AuthBadCred {
			t.Errorf("cut to %d octets: %v, %v", n, stat, ok)
		}
	}
}
