package registry

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// journal keeps in memory what it is given, as the files would have it.
type journal struct {
	rpcbs, mappings []byte
	appends         int
	rewrites        int
	full            bool   // Append can't keep anything
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

func (j *journal) Rewrite(rpcbs, mappings []byte) {
	j.rewrites++
	j.rpcbs, j.mappings = slices.Clone(rpcbs), slices.Clone(mappings)
}

// want checks that the journal has the table, and how many calls it took since the last check.
func (j *journal) want(t *testing.T, table *Table, appends, rewrites int) {
	t.Helper()
	if !bytes.Equal(j.rpcbs, table.RPCBs()) || !bytes.Equal(j.mappings, table.Mappings()) {
		t.Errorf("the journal has\n%q\n%q\nthe table\n%q\n%q", j.rpcbs, j.mappings, table.RPCBs(), table.Mappings())
	}
	if j.appends != appends || j.rewrites != rewrites {
		t.Errorf("%d appends and %d rewrites, want %d and %d", j.appends, j.rewrites, appends, rewrites)
	}
	j.appends, j.rewrites = 0, 0
}

func TestJournal(t *testing.T) {
	table := New()
	if err := table.SetOwn(rpcb(100000, 4, "tcp", "0.0.0.0.0.111", "superuser")); err != nil {
		t.Fatal(err)
	}
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"))
	j := new(journal)
	table.SetJournal(j)
	j.want(t, table, 0, 1) // with what was there before
	mustSet(t, table, rpcb(1, 1, "udp", "0.0.0.0.8.1", "1000"))
	j.want(t, table, 1, 0)
	mustSet(t, table, rpcb(1, 1, "local", "/run/x", "1000"))
	j.want(t, table, 1, 0)
	mustSet(t, table, rpcb(1, 1, "local", "/run/x", "1001")) // is there already
	j.want(t, table, 0, 0)
	if err := table.Set(rpcb(1, 1, "local", "/run/y", "1000")); !errors.Is(err, ErrTaken) {
		t.Error(err)
	}
	if _, err := table.Unset(1, 1, every, "1001"); !errors.Is(err, ErrNotOwner) {
		t.Error(err)
	}
	if n, err := table.Unset(1, 2, every, "1000"); n != 0 || err != nil {
		t.Error(n, err)
	}
	j.want(t, table, 0, 0) // nothing changed
	if n, err := table.Unset(1, 1, func(n rpcbind.Netid) bool { return n != "tcp" }, "1000"); n != 2 || err != nil {
		t.Error(n, err)
	}
	j.want(t, table, 0, 1) // two at once
	table.Save()
	j.want(t, table, 0, 1)
}

// TestJournalComesFirst holds that nobody sees a registration that the journal doesn't have yet.
func TestJournalComesFirst(t *testing.T) {
	table := New()
	calls := 0
	table.SetJournal(&journal{seen: func() {
		calls++
		if table.Lookup(1, 1, "tcp") != nil || len(table.Program(1)) != 0 {
			t.Error("the registration is seen before it is kept")
		}
	}})
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"))
	if calls != 1 || table.Lookup(1, 1, "tcp") == nil {
		t.Errorf("%d calls, registered: %v", calls, table.Lookup(1, 1, "tcp"))
	}
}

// TestJournalThatCantAppend is given everything instead.
func TestJournalThatCantAppend(t *testing.T) {
	table := New()
	j := &journal{full: true}
	table.SetJournal(j)
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.8.1", "1000"))
	j.want(t, table, 1, 2)
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
			j.want(t, table, j.appends, j.rewrites)
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
