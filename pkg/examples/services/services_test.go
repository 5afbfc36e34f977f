package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func list(t *testing.T, host string) []service {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), []string{host}, &out); err != nil {
		t.Fatal(err)
	}
	var services []service
	if err := json.Unmarshal([]byte(out.String()), &services); err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	return services
}

func TestServices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	pm := portmapper.New(portmapper.Options{})
	for _, addr := range []net.Addr{&net.TCPAddr{IP: net.IPv4zero, Port: 2049}, &net.UnixAddr{Name: path, Net: "unix"}} {
		if err := pm.Register(100003, 3, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := pm.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	var nfs []service
	for _, s := range list(t, pm.Addr()) {
		if s.Program != rpcbind.Program {
			nfs = append(nfs, s)
		}
	}
	at := netip.MustParseAddrPort("0.0.0.0:2049")
	want := []service{
		{Program: 100003, Version: 3, Netid: "tcp", Address: &at, Owner: "superuser"},
		{Program: 100003, Version: 3, Netid: "local", Path: path, Owner: "superuser"},
	}
	if !reflect.DeepEqual(nfs, want) {
		t.Errorf("%+v\nwant\n%+v", nfs, want)
	}
}

// An old portmapper has version 2 alone; here, one with nothing registered, and one that says what would do harm.
func TestOddPortmappers(t *testing.T) {
	serve := func(version uint32, results []byte) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := new(oncrpc.Server)
		err = s.Register(rpcbind.Program, version, oncrpc.Procedures{rpcbind.ProcDump: func(context.Context, *oncrpc.Request, []byte) ([]byte, error) {
			return results, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		return l.Addr().String()
	}
	none := xdr.AppendBool(nil, false)
	if got := list(t, serve(rpcbind.PMAPVers, none)); got == nil || len(got) != 0 {
		t.Errorf("nothing registered: %v", got)
	}
	harm := rpcbind.RPCB{Program: 1, Version: 1, Netid: "\x1b[2J", Addr: "\"\n", Owner: "\xff"}
	at := serve(rpcbind.RPCBVers4, append(rpcbind.AppendRPCBElement(nil, harm), none...))
	var out strings.Builder
	if err := run(t.Context(), []string{at}, &out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\xff") {
		t.Errorf("%q", out.String())
	}
	if err := run(t.Context(), []string{serve(rpcbind.RPCBVers4, []byte("not a list"))}, io.Discard); err == nil {
		t.Error("no error for what isn't a list")
	}
	if err := run(t.Context(), []string{"two", "hosts"}, io.Discard); err == nil {
		t.Error("no error for two hosts")
	}
}
