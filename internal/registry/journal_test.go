package registry

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// journal keeps in memory what it is given, as the files would have it.
type journal struct {
	rpcbs, mappings []byte
	appends         int
	removes         int
	rewrites        int
	full            bool   // neither Append nor Remove can keep anything
	seen            func() // called at each change, before it returns
}

func (j *journal) Append(rpcb, mapping []byte) bool {
	j.appends++
	if j.seen != nil {
		j.seen()
	}
	if j.full {
		return false
	}
	j.rpcbs = append(j.rpcbs, rpcb...)
	j.mappings = append(j.mappings, mapping...)
	return true
}

func (j *journal) Remove(r Removal) bool {
	j.removes++
	if j.full {
		return false
	}
	j.rpcbs = append(j.rpcbs, r.Record...)
	for _, offset := range r.RPCBs {
		clear(j.rpcbs[offset+4 : offset+8])
	}
	for _, offset := range r.Mappings {
		clear(j.mappings[offset+4 : offset+8])
	}
	return true
}

func (j *journal) Rewrite(rpcbs, mappings List) {
	j.rewrites++
	j.rpcbs, j.mappings = rpcbs.Append(nil), mappings.Append(nil)
}

// live returns the lists that a journal keeps, without what was removed.
func (j *journal) live(t *testing.T) (rpcbs, mappings []byte) {
	t.Helper()
	end := []byte{0, 0, 0, 0}
	d := xdr.NewDecoder(slices.Concat(j.rpcbs, end))
	for _, b := range Replay(rpcbind.ReadRPCBList(&d, 1000)) {
		rpcbs = rpcbind.AppendRPCBElement(rpcbs, b)
	}
	if d.Err() != nil {
		t.Fatalf("the journal's rpcblist is %q: %v", j.rpcbs, d.Err())
	}
	d = xdr.NewDecoder(slices.Concat(j.mappings, end))
	for _, m := range rpcbind.ReadMappingList(&d) {
		if m.Program != 0 {
			mappings = rpcbind.AppendMappingElement(mappings, m)
		}
	}
	return rpcbs, mappings
}

// want checks that the journal has the table, and how many calls it took since the last check.
func (j *journal) want(t *testing.T, table *Table, appends, removes, rewrites int) {
	t.Helper()
	rpcbs, mappings := j.live(t)
	if !bytes.Equal(rpcbs, table.RPCBs().Append(nil)) || !bytes.Equal(mappings, table.Mappings().Append(nil)) {
		t.Errorf("the journal has\n%q\n%q\nthe table\n%q\n%q", rpcbs, mappings, table.RPCBs().Append(nil), table.Mappings().Append(nil))
	}
	if j.appends != appends || j.removes != removes || j.rewrites != rewrites {
		t.Errorf("%d appends, %d removes and %d rewrites, want %d, %d and %d", j.appends, j.removes, j.rewrites, appends, removes, rewrites)
	}
	j.appends, j.removes, j.rewrites = 0, 0, 0
}

func TestJournal(t *testing.T) {
	table := New()
	if err := table.SetOwn(rpcb(100000, 4, "tcp", "0.0.0.0.0.111", "superuser")); err != nil {
		t.Fatal(err)
	}
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"))
	j := new(journal)
	table.SetJournal(j)
	j.want(t, table, 0, 0, 1) // with what was there before
	mustSet(t, table, rpcb(1, 1, "udp", "0.0.0.0.8.1", "1000"))
	j.want(t, table, 1, 0, 0)
	mustSet(t, table, rpcb(1, 1, "local", "/run/x", "1000"))
	j.want(t, table, 1, 0, 0)
	mustSet(t, table, rpcb(1, 1, "local", "/run/x", "1001")) // is there already
	j.want(t, table, 0, 0, 0)
	if err := table.Set(rpcb(1, 1, "local", "/run/y", "1000")); !errors.Is(err, ErrTaken) {
		t.Error(err)
	}
	if _, err := table.Unset(1, 1, every, "1001"); !errors.Is(err, ErrNotOwner) {
		t.Error(err)
	}
	if n, err := table.Unset(1, 2, every, "1000"); n != 0 || err != nil {
		t.Error(n, err)
	}
	j.want(t, table, 0, 0, 0) // nothing changed
	if n, err := table.Unset(1, 1, func(n rpcbind.Netid) bool { return n != "tcp" }, "1000"); n != 2 || err != nil {
		t.Error(n, err)
	}
	j.want(t, table, 0, 1, 0) // two at once
	if n, err := table.Unset(1, 1, every, "1000"); n != 1 || err != nil {
		t.Error(n, err)
	}
	j.want(t, table, 0, 1, 0)
	mustSet(t, table, rpcb(1, 1, "udp", "0.0.0.0.8.9", "1000")) // removed before: the record must not outlast it
	j.want(t, table, 1, 0, 0)
	table.Compact()
	j.want(t, table, 0, 0, 1)
	if !bytes.Equal(j.rpcbs, table.RPCBs().Append(nil)) || !bytes.Equal(j.mappings, table.Mappings().Append(nil)) {
		t.Error("something is left of what was removed")
	}
	table.Compact() // nothing to do
	j.want(t, table, 0, 0, 0)
	table.Save()
	j.want(t, table, 0, 0, 1)
}

// TestJournalOfManyChanges makes random changes, each of which the journal has; its size stays in proportion to the table's.
func TestJournalOfManyChanges(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 9))
	table, j := New(), new(journal)
	table.SetJournal(j)
	rewrites := 0
	netids := []rpcbind.Netid{"tcp", "UDP", "local", "sctp"}
	for step := range 20_000 {
		prog, vers := 1+random.Uint32N(20), 1+random.Uint32N(2)
		netid := netids[random.IntN(len(netids))]
		addr := map[bool]string{true: "/run/x", false: "0.0.0.0.8.1"}[netid == "local"]
		switch random.IntN(6) {
		case 0:
			table.Unset(prog, vers, every, "superuser")
		case 1:
			table.Unset(prog, vers, netid.Is, "superuser")
		case 2:
			if old := table.Lookup(prog, vers, netid); old != nil && old.Version == vers && netid != "local" {
				if err := table.Replace(old, rpcb(prog, vers, netid, roundAddr(step%200), "superuser")); err != nil {
					t.Fatal(err)
				}
			}
		default:
			_ = table.Set(rpcb(prog, vers, netid, addr, "1000"))
		}
		if step%100 == 0 {
			rewrites += j.rewrites
			j.want(t, table, j.appends, j.removes, j.rewrites)
		}
	}
	if limit := 2*len(table.RPCBs().Append(nil)) + compactAbove + 1000; len(j.rpcbs) > limit {
		t.Errorf("the journal has %d octets, the table's list %d", len(j.rpcbs), len(table.RPCBs().Append(nil)))
	}
	if rewrites == 1 { // by SetJournal
		t.Error("the journal was never written anew")
	}
}

// TestReplay has the journals of daemons that died between two of the steps of a change.
func TestReplay(t *testing.T) {
	a, b, c := rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"), rpcb(1, 1, "udp", "0.0.0.0.8.1", "1000"), rpcb(1, 2, "tcp", "0.0.0.0.8.1", "1000")
	other := rpcb(1, 1, "TCP", "0.0.0.0.8.2", "1000")
	named, _ := removalRecord([]*Entry{{RPCB: a}, {RPCB: b}}, false)
	all, _ := removalRecord([]*Entry{{RPCB: a}, {RPCB: b}}, true)
	record, everything := decoded(t, named), decoded(t, all)
	erased := a
	erased.Program = 0
	for _, test := range []struct {
		name string
		list []rpcbind.RPCB
		want []rpcbind.RPCB
	}{
		{"nothing removed", []rpcbind.RPCB{a, b, c}, []rpcbind.RPCB{a, b, c}},
		{"erased", []rpcbind.RPCB{erased, b, c}, []rpcbind.RPCB{b, c}},
		{"record alone", []rpcbind.RPCB{a, b, c, record}, []rpcbind.RPCB{c}},
		{"record and half of the rest", []rpcbind.RPCB{erased, b, c, record}, []rpcbind.RPCB{c}},
		{"registered again", []rpcbind.RPCB{a, b, c, record, other}, []rpcbind.RPCB{c, other}},
		{"record of all", []rpcbind.RPCB{a, b, c, everything, other}, []rpcbind.RPCB{c, other}},
		{"record of all and half of the rest", []rpcbind.RPCB{erased, b, c, everything}, []rpcbind.RPCB{c}},
		{"replaced, not erased yet", []rpcbind.RPCB{a, b, other}, []rpcbind.RPCB{a, b, other}},
		{"rpcbind's, of program 0", []rpcbind.RPCB{a, {Netid: "tcp", Owner: "removed program x"}, {Owner: "superuser"}}, []rpcbind.RPCB{a}},
	} {
		if got := Replay(test.list); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func decoded(t *testing.T, element []byte) rpcbind.RPCB {
	t.Helper()
	d := xdr.NewDecoder(append(element, 0, 0, 0, 0))
	list := rpcbind.ReadRPCBList(&d, 1000)
	if d.Err() != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, d.Err())
	}
	return list[0]
}

func TestSizeOfAnElement(t *testing.T) {
	for octets := range 9 {
		b := rpcb(1, 1, rpcbind.Netid(strings.Repeat("n", octets)), strings.Repeat("a", octets/2), strings.Repeat("o", octets/3))
		if got, want := elementSize(rpcbList, newEntry(b, netip.AddrPort{})), len(rpcbind.AppendRPCBElement(nil, b)); got != want {
			t.Errorf("%+v: %d octets, want %d", b, got, want)
		}
	}
}

// TestJournalComesFirst holds that nobody sees a registration that the journal doesn't have yet.
func TestJournalComesFirst(t *testing.T) {
	table := New()
	calls := 0
	table.SetJournal(&journal{seen: func() {
		calls++
		if table.Lookup(1, 1, "tcp") != nil {
			t.Error("the registration is seen before it is kept")
		}
	}})
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"))
	if calls != 1 || table.Lookup(1, 1, "tcp") == nil {
		t.Errorf("%d calls, registered: %v", calls, table.Lookup(1, 1, "tcp"))
	}
}

// TestJournalThatCantKeep is given everything instead.
func TestJournalThatCantKeep(t *testing.T) {
	table := New()
	j := &journal{full: true}
	table.SetJournal(j)
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"))
	j.want(t, table, 1, 0, 2)
	if _, err := table.Unset(1, 1, every, "1000"); err != nil {
		t.Error(err)
	}
	j.want(t, table, 0, 1, 1)
}

func TestReplace(t *testing.T) {
	const there, wanted = "0.0.0.0.8.1", "0.0.0.0.8.2"
	for _, c := range []struct {
		name    string
		old     rpcbind.RPCB
		owner   string       // of the new one
		between func(*Table) // happens before Replace, after the old one was found
		want    error
		addr    string // registered afterwards
	}{
		{"by its owner", rpcb(1, 1, "tcp", there, "1000"), "1000", nil, nil, wanted},
		{"by root", rpcb(1, 1, "tcp", there, "1000"), "superuser", nil, nil, wanted},
		{"by another", rpcb(1, 1, "tcp", there, "1000"), "1001", nil, ErrNotOwner, there},
		{"root's by another", rpcb(1, 1, "tcp", there, "superuser"), "1001", nil, ErrNotOwner, there},
		{"unregistered meanwhile", rpcb(1, 1, "tcp", there, "1000"), "1001", func(table *Table) {
			table.Unset(1, 1, every, "superuser")
		}, nil, wanted},
		{"registered anew meanwhile", rpcb(1, 1, "tcp", there, "1000"), "1000", func(table *Table) {
			table.Unset(1, 1, every, "superuser")
			table.Set(rpcb(1, 1, "tcp", "0.0.0.0.8.3", "1000"))
		}, ErrTaken, "0.0.0.0.8.3"},
		{"registered as wanted meanwhile", rpcb(1, 1, "tcp", there, "1000"), "1001", func(table *Table) {
			table.Unset(1, 1, every, "superuser")
			table.Set(rpcb(1, 1, "tcp", wanted, "1000"))
		}, nil, wanted},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New()
			mustSet(t, table, c.old, rpcb(1, 1, "udp", there, "1000"), rpcb(1, 2, "tcp", there, "1000"))
			j := new(journal)
			table.SetJournal(j)
			old := table.Lookup(1, 1, "tcp")
			if c.between != nil {
				c.between(table)
			}
			b := rpcb(1, 1, "tcp", wanted, c.owner)
			if err := table.Replace(old, b); !errors.Is(err, c.want) {
				t.Errorf("Replace: %v, want %v", err, c.want)
			}
			if e := table.Lookup(1, 1, "tcp"); e == nil || e.Addr != c.addr {
				t.Errorf("registered is %+v, want %s", e, c.addr)
			}
			j.want(t, table, j.appends, j.removes, j.rewrites)
			if c.want == nil && c.between == nil {
				wantList(t, table, rpcb(1, 1, "udp", there, "1000"), rpcb(1, 2, "tcp", there, "1000"), b)
				// Nothing of the old one is left.
				if n, err := table.Unset(1, 1, every, "superuser"); n != 2 || err != nil {
					t.Error(n, err)
				}
				mustSet(t, table, rpcb(1, 1, "tcp", there, "1000"))
				wantList(t, table, rpcb(1, 2, "tcp", there, "1000"), rpcb(1, 1, "tcp", there, "1000"))
			}
		})
	}
}

func TestReplaceKeepsOurOwnAndValidates(t *testing.T) {
	table := New()
	if err := table.SetOwn(rpcb(100000, 4, "tcp", "0.0.0.0.0.111", "superuser")); err != nil {
		t.Fatal(err)
	}
	old := table.Lookup(100000, 4, "tcp")
	if err := table.Replace(old, rpcb(100000, 4, "tcp", "0.0.0.0.8.1", "superuser")); !errors.Is(err, ErrOwnEntry) {
		t.Errorf("our own: %v", err)
	}
	if err := table.Replace(old, rpcb(100000, 4, "tcp", "0.0.0.0.300.1", "superuser")); !errors.Is(err, ErrBadAddr) {
		t.Errorf("no address: %v", err)
	}
	wantList(t, table, rpcb(100000, 4, "tcp", "0.0.0.0.0.111", "superuser"))
}

// TestReplaceUnderReaders replaces a registration again and again: nobody finds none in between.
func TestReplaceUnderReaders(t *testing.T) {
	table := New()
	mustSet(t, table, rpcb(1, 1, "tcp", roundAddr(0), "1000"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for round := 1; round < 2000; round++ {
			if err := table.Replace(table.Lookup(1, 1, "tcp"), rpcb(1, 1, "tcp", roundAddr(round%200), "1000")); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		if e := table.Lookup(1, 1, "tcp"); e == nil {
			t.Fatal("not registered")
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
