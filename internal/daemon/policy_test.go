package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestBoundTo asks for the port of a socket of ours, on behalf of us, of root and of somebody else.
func TestBoundTo(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	us, addr := strconv.Itoa(os.Getuid()), rpcbind.UAddr(at)
	if us == "0" {
		us = rpcbind.OwnerSuperuser
	}
	bound := boundTo(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		owner, netid, addr string
		want               error
	}{
		{us, "udp", addr, nil},
		{rpcbind.OwnerSuperuser, "udp", addr, nil},
		{"4242", "udp", addr, ErrNotBound},
		{rpcbind.OwnerUnknown, "udp", addr, ErrNotBound},
		{us, "tcp", addr, ErrNotBound},
		{us, "local", "/run/x.sock", nil},
		{us, "rdma", addr, nil},
		{us, "udp", "junk", nil}, // the table refuses it
	} {
		err := bound(c.owner, rpcbind.RPCB{Program: 7, Version: 1, Netid: rpcbind.Netid(c.netid), Addr: c.addr})
		if !errors.Is(err, c.want) {
			t.Errorf("%s at %s %s: %v, want %v", c.owner, c.netid, c.addr, err, c.want)
		}
	}
}

// TestLogRefused holds what the log tells of attempts at others' registrations: both owners, at a level that is seen.
func TestLogRefused(t *testing.T) {
	var out bytes.Buffer
	refused := logRefused(slog.New(slog.NewTextHandler(&out, nil)))
	from := portmap.Caller{Transport: portmap.TCP, Remote: netip.MustParseAddrPort("127.0.0.1:4000"), Loopback: true}
	wanted := rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.9.9", Owner: "1002"}
	holder := &registry.Entry{RPCB: rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "superuser"}}
	refused(portmap.Refused{From: from, Set: true, Wanted: wanted, Holder: holder, Err: registry.ErrTaken})
	for _, want := range []string{"level=WARN", "SET refused", "owner=1002", "holder=superuser", "program=100003", "held=0.0.0.0.8.1", "127.0.0.1:4000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s lacks %s", out.String(), want)
		}
	}
	out.Reset()
	refused(portmap.Refused{From: from, Wanted: wanted, Err: registry.ErrFull})
	if out.Len() > 0 { // nobody else's, so it is for those who debug
		t.Errorf("%s", out.String())
	}
}

func TestLimitsHaveDefaults(t *testing.T) {
	l := Limits{}.complete()
	if l.Registrations != 65536 || l.RegistrationsPerOwner != 4096 || l.AnswerRate != 10000 || l.LogLines != 1000 {
		t.Errorf("%+v", l)
	}
	if table := l.table(); table.Reserve != 8192 || table.Entries != 65536 || table.Octets != 256 {
		t.Errorf("%+v", table)
	}
	if l := (Limits{AnswerRate: -1, StringOctets: 99}).complete(); l.AnswerRate != -1 || l.StringOctets != 99 {
		t.Errorf("%+v", l)
	}
	if n := connectionDescriptors(); n < 1 {
		t.Errorf("%d descriptors for connections", n)
	}
}
