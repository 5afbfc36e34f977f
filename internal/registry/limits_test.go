package registry

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func numbered(prog int, owner string) rpcbind.RPCB {
	return rpcbind.RPCB{Program: uint32(prog), Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: owner}
}

// fillFor registers programs for an owner until one is refused, and returns how many there were.
func fillFor(t *testing.T, table *Table, first int, owner string) int {
	t.Helper()
	for n := 0; ; n++ {
		switch err := table.Set(numbered(first+n, owner)); {
		case errors.Is(err, ErrFull):
			return n
		case err != nil:
			t.Fatal(err)
		case n > 1000:
			t.Fatal("there is no bound")
		}
	}
}

// TestLimits fills a table: each owner has its bound, all of them together leave root's reserve, and root has a bound as
// well. What is there stays.
func TestLimits(t *testing.T) {
	table := New()
	if err := table.SetOwn(numbered(100000, "superuser")); err != nil {
		t.Fatal(err)
	}
	table.SetLimits(Limits{Entries: 20, Reserve: 5, PerOwner: 6})
	for i, want := range []int{6, 6, 3, 0} {
		if got := fillFor(t, table, 1000*(i+1), strconv.Itoa(i)); got != want {
			t.Errorf("owner %d registers %d programs, want %d", i, got, want)
		}
	}
	if got := fillFor(t, table, 9000, "superuser"); got != 5 {
		t.Errorf("root registers %d programs in its reserve, want 5", got)
	}
	// What is registered is TRUE again, and what goes makes room.
	if err := table.Set(numbered(1000, "0")); err != nil {
		t.Errorf("SET of what is registered: %v", err)
	}
	old := table.Lookup(1000, 1, "tcp")
	other := numbered(1000, "0")
	other.Addr = "0.0.0.0.9.9"
	if err := table.Replace(old, other); err != nil {
		t.Errorf("a dead one is replaced in a full table: %v", err)
	}
	for range 6 {
		if _, err := table.Unset(9000, 1, func(rpcbind.Netid) bool { return true }, "superuser"); err != nil {
			t.Fatal(err)
		}
		if err := table.Set(numbered(9000, "superuser")); err != nil {
			t.Errorf("root's program after an UNSET: %v", err)
		}
	}
	table.SetLimits(Limits{})
	if err := table.Set(numbered(77, "0")); err != nil {
		t.Errorf("without limits: %v", err)
	}
}

func TestLimitOfLength(t *testing.T) {
	table := New()
	table.SetLimits(Limits{Octets: 20})
	b := numbered(7, "0")
	b.Netid, b.Addr = "local", "/"+strings.Repeat("x", 19)
	if err := table.Set(b); err != nil {
		t.Error(err)
	}
	b.Program, b.Addr = 8, b.Addr+"x"
	if err := table.Set(b); !errors.Is(err, ErrTooLong) {
		t.Errorf("an address of 21 octets: %v", err)
	}
	b.Netid, b.Addr = rpcbind.Netid(strings.Repeat("n", 21)), "x"
	if err := table.Set(b); !errors.Is(err, ErrTooLong) {
		t.Errorf("a netid of 21 octets: %v", err)
	}
}

// TestOwnersAreCounted compares the counts with the table after random changes.
func TestOwnersAreCounted(t *testing.T) {
	table, r := New(), rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		b := numbered(1+r.IntN(40), strconv.Itoa(r.IntN(4)))
		switch r.IntN(3) {
		case 0:
			_, _ = table.Unset(b.Program, 1, func(rpcbind.Netid) bool { return true }, "superuser")
		case 1:
			if old := table.Lookup(b.Program, 1, "tcp"); old != nil {
				b.Owner, b.Addr = "superuser", "0.0.0.0.7."+strconv.Itoa(r.IntN(256))
				_ = table.Replace(old, b)
			}
		default:
			_ = table.Set(b)
		}
	}
	want := make(map[string]int)
	for _, e := range table.Entries() {
		want[e.Owner]++
	}
	if len(want) != len(table.owned) || table.total() != table.Len() {
		t.Errorf("%v counted, %v there; %d of %d", table.owned, want, table.total(), table.Len())
	}
	for owner, n := range want {
		if table.owned[owner].entries != n {
			t.Errorf("owner %s: %d counted, %d there", owner, table.owned[owner].entries, n)
		}
	}
}

// TestReserveBesideTooMany restores more registrations of users than the limits allow: root has its part of the reserve all the same.
func TestReserveBesideTooMany(t *testing.T) {
	table := New()
	for i := range 30 {
		if err := table.Set(numbered(1000+i, "7")); err != nil {
			t.Fatal(err)
		}
	}
	table.SetLimits(Limits{Entries: 20, Reserve: 10})
	if got := fillFor(t, table, 9000, "superuser"); got != 5 {
		t.Errorf("root registers %d programs, want 5", got)
	}
	if got := fillFor(t, table, 8000, "8"); got != 0 {
		t.Errorf("a user registers %d programs, want 0", got)
	}
}
