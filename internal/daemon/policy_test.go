package daemon

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"testing"

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
