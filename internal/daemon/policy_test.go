package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/sys"
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
	bound := boundTo(slog.New(slog.DiscardHandler), &sys.Owners{})
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
	if table := l.table(); table.Reserve != 8192 || table.SystemUID < 99 || table.Entries != 65536 || table.Octets != 256 {
		t.Errorf("%+v", table)
	}
	if l := (Limits{AnswerRate: -1, StringOctets: 99}).complete(); l.AnswerRate != -1 || l.StringOctets != 99 {
		t.Errorf("%+v", l)
	}
	if n := connectionDescriptors(); n < 1 {
		t.Errorf("%d descriptors for connections", n)
	}
}

// TestReloadBesideAChange changes hosts.deny, and the rules by a reload at every moment while the change is being noticed. Both
// count from then on.
func TestReloadBesideAChange(t *testing.T) {
	dir := t.TempDir()
	d := &door{log: slog.New(slog.DiscardHandler), policy: &access.Policy{}}
	for i, name := range []string{"hosts.allow", "hosts.deny", "hosts"} {
		d.paths[i] = filepath.Join(dir, name)
	}
	if err := d.reload(access.Rules{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := d.watch(ctx)
	defer func() { cancel(); <-over }()
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for n := range rounds {
		deny := fmt.Sprintf("rpcbind: 10.0.0.%d\n", n)
		if err := os.WriteFile(d.paths[1], []byte(deny), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(130 * time.Millisecond)))) // the change is noticed after 100 ms
		exposure := access.Exposure(n % 2)
		if err := d.reload(access.Rules{Exposure: exposure}); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			want, err := d.read()
			if err != nil || !d.hosts.Same(want) || d.rules.Exposure != exposure {
				t.Errorf("round %d, %s: exposure %v, want %v; the lists count: %v, %v", n, when, d.rules.Exposure, exposure, d.hosts.Same(want), err)
			}
		}
		check("after the reload")
		time.Sleep(10 * time.Millisecond)
		check("later")
	}
	// Lists that can't be read leave everything as it is.
	if err := errors.Join(os.Remove(d.paths[1]), os.Mkdir(d.paths[1], 0o700)); err != nil {
		t.Fatal(err)
	}
	before := d.hosts
	if err := d.reload(access.Rules{Exposure: access.Exposure(rounds % 2)}); err == nil || d.hosts != before || d.rules.Exposure == access.Exposure(rounds%2) {
		t.Errorf("hosts.deny is a directory: %v", err)
	}
}
