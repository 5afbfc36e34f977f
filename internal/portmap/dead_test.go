package portmap

import (
	"bytes"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestDeadServerIsReplaced is PROTOCOL section 8 no. 8: a SET with another address takes the place of a registration whose
// server is gone. Who may not unregister it isn't told whether it is.
func TestDeadServerIsReplaced(t *testing.T) {
	root := localCaller(Local)
	user := Caller{Transport: Local, UID: 1000, HasUID: true}
	other := Caller{Transport: Local, UID: 1001, HasUID: true}
	const there, wanted = "0.0.0.0.8.1", "0.0.0.0.8.2"
	for _, tt := range []struct {
		name  string
		from  Caller
		vers  uint32
		args  []byte
		dead  bool
		want  []byte
		asked int // how often Dead is
		addr  string
		owner string
	}{
		{"gone, its owner", user, 4, rpcbOf(300001, 1, "tcp", wanted, ""), true, yes, 1, wanted, "1000"},
		{"gone, its owner, v3, in capitals", user, 3, rpcbOf(300001, 1, "TCP", wanted, ""), true, yes, 1, wanted, "1000"},
		{"gone, its owner, v2", user, 2, words(300001, 1, 6, 2050), true, yes, 1, wanted, "1000"},
		{"gone, root", root, 4, rpcbOf(300001, 1, "tcp", wanted, ""), true, yes, 1, wanted, "superuser"},
		{"gone, another user", other, 4, rpcbOf(300001, 1, "tcp", wanted, ""), true, no, 0, there, "1000"},
		{"alive, its owner", user, 4, rpcbOf(300001, 1, "tcp", wanted, ""), false, no, 1, there, "1000"},
		{"alive, root", root, 2, words(300001, 1, 6, 2050), false, no, 1, there, "1000"},
		{"gone, the same address", other, 4, rpcbOf(300001, 1, "tcp", there, ""), true, yes, 0, there, "1000"},
		{"gone, no address", user, 4, rpcbOf(300001, 1, "tcp", "0.0.0.0.300.1", ""), true, no, 0, there, "1000"},
		{"our own", root, 4, rpcbOf(100000, 4, "tcp", wanted, ""), true, no, 0, there, "1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			table := registry.New()
			if err := table.SetOwn(rpcbind.RPCB{Program: 100000, Version: 4, Netid: "tcp", Addr: "0.0.0.0.0.111", Owner: "superuser"}); err != nil {
				t.Fatal(err)
			}
			old := rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: there, Owner: "1000"}
			if err := table.Set(old); err != nil {
				t.Fatal(err)
			}
			p := New(Config{Table: table, Policy: localPolicy{}, Dead: func(e *registry.Entry, _ string) bool {
				asked++
				if e.RPCB != old || e.IP.Port() != 2049 {
					t.Errorf("asked about %+v", e)
				}
				return tt.dead
			}})
			wantReply(t, p, tt.from, callTo(tt.vers, 1, tt.args), tt.want)
			if asked != tt.asked {
				t.Errorf("Dead was asked %d times, want %d", asked, tt.asked)
			}
			if e := table.Lookup(300001, 1, "tcp"); e == nil || e.Addr != tt.addr || e.Owner != tt.owner {
				t.Errorf("registered is %+v, want %s of %s", e, tt.addr, tt.owner)
			}
			sets := p.stats.block(tt.vers).sets.Load()
			if want := int32(tt.want[len(tt.want)-1]); int32(sets) != want {
				t.Errorf("%d sets counted, want %d", sets, want)
			}
		})
	}
}

// TestWithoutDeadNothingIsReplaced is what rpcbind does.
func TestWithoutDeadNothingIsReplaced(t *testing.T) {
	p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1"})
	before := dumped(t, p)
	wantReply(t, p, localCaller(Local), callTo(4, 1, rpcbOf(300001, 1, "tcp", "0.0.0.0.8.2", "")), no)
	if got := dumped(t, p); !bytes.Equal(got, before) {
		t.Errorf("the table is then %q, want %q", got, before)
	}
}
