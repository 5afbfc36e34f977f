package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// longNetid returns a netid of so many octets.
func longNetid(i, octets int) rpcbind.Netid {
	return rpcbind.Netid(fmt.Sprintf("%0*d", octets, i))
}

// readBack returns what a reader finds in a journal that holds every limit.
func readBack(t *testing.T, j *journal) []rpcbind.RPCB {
	t.Helper()
	if len(j.rpcbs) > MaxJournal {
		t.Fatalf("the journal has %d octets, its readers take %d", len(j.rpcbs), MaxJournal)
	}
	d := xdr.NewDecoder(append(j.rpcbs[:len(j.rpcbs):len(j.rpcbs)], 0, 0, 0, 0))
	list := Replay(rpcbind.ReadRPCBList(&d, MaxString))
	if d.Err() != nil {
		t.Fatalf("what the journal was given can't be read: %v", d.Err())
	}
	return list
}

// TestLargestRemovals removes many registrations with long netids at once, all of a version and nearly all. What comes behind
// has to be read again.
func TestLargestRemovals(t *testing.T) {
	for _, octets := range []int{244, 256, MaxString} {
		for _, but := range []rpcbind.Netid{"", longNetid(7, octets)} {
			table, j := New(), new(journal)
			table.SetJournal(j)
			for i := range 40 {
				mustSet(t, table, rpcb(300001, 1, longNetid(i, octets), "/x", "1000"))
			}
			left := 0
			if but != "" {
				left = 1
			}
			n, err := table.Unset(300001, 1, func(n rpcbind.Netid) bool { return n != but }, "1000")
			if n != 40-left || err != nil {
				t.Fatalf("Unset = %d, %v", n, err)
			}
			for i := range uint32(16) {
				mustSet(t, table, rpcb(300002+i, 1, rpcbind.UDP, "0.0.0.0.8.1", "1000"))
			}
			if got := readBack(t, j); len(got) != 16+left {
				t.Errorf("netids of %d octets, all but %.10q: %d registrations are read, want %d", octets, but, len(got), 16+left)
			}
		}
	}
}

// TestLargestTable fills a table without other limits until it is full, twice over, and reads all of it back.
func TestLargestTable(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it writes 128 MiB")
	}
	table, j := New(), new(journal)
	table.SetJournal(j)
	netid, addr := rpcbind.Netid(strings.Repeat("n", MaxString)), strings.Repeat("/", MaxString)
	fill := func(first uint32) (n int) {
		for ; ; n++ {
			switch err := table.Set(rpcb(first+uint32(n), 1, netid, addr, "1000")); {
			case errors.Is(err, ErrFull):
				return n
			case err != nil:
				t.Fatal(err)
			}
		}
	}
	n := fill(1)
	if octets := table.RPCBOctets(); n == 0 || octets > MaxOctets || octets < MaxOctets-3*MaxString {
		t.Fatalf("%d registrations of %d octets", n, octets)
	}
	largest := 0
	for i := range uint32(n) {
		if _, err := table.Unset(1+i, 1, every, "1000"); err != nil {
			t.Fatal(err)
		}
		if i%128 == 0 { // as much is there as before, beside what was removed
			fill(1_000_000 + 1000*i)
			largest = max(largest, len(j.rpcbs))
		}
	}
	if got := readBack(t, j); len(got) != table.Len() {
		t.Errorf("%d registrations are read, %d are there", len(got), table.Len())
	}
	if largest > MaxJournal || largest < MaxOctets {
		t.Errorf("the journal had up to %d octets, its readers take %d", largest, MaxJournal)
	}
	long := rpcb(7, 1, netid+"n", "/", "1000")
	if err := table.Set(long); !errors.Is(err, ErrTooLong) {
		t.Errorf("a netid that no reader takes: %v", err)
	}
}

// TestReserveOfSystemUsers: users can't crowd out the system's services, and these not root.
func TestReserveOfSystemUsers(t *testing.T) {
	table := New()
	table.SetLimits(Limits{Entries: 100, Reserve: 20, SystemUID: 999, PerOwner: 50})
	for i, c := range []struct {
		owner string
		want  int
	}{{"1000", 50}, {"65534", 30}, {"1001", 0}, {"unknown", 0}, {"999", 10}, {"108", 0}, {"superuser", 10}, {"superuser", 0}} {
		if got := fillFor(t, table, 1000*(i+1), c.owner); got != c.want {
			t.Errorf("%s registers %d programs, want %d", c.owner, got, c.want)
		}
	}
}

// BenchmarkVersions times what a program of many versions costs.
func BenchmarkVersions(b *testing.B) {
	for _, n := range []uint32{10, 57_000} {
		table := New()
		for v := range n {
			mustSet(b, table, rpcb(300001, v, rpcbind.UDP, "0.0.0.0.8.1", "1000"))
		}
		b.Run(fmt.Sprintf("lookup/versions=%d", n), func(b *testing.B) {
			for b.Loop() {
				table.Port(300001, 3, rpcbind.UDP)
				table.Port(300001, n+3, rpcbind.UDP)
			}
		})
		b.Run(fmt.Sprintf("change/versions=%d", n), func(b *testing.B) {
			for b.Loop() {
				mustSet(b, table, rpcb(300001, n, rpcbind.UDP, "0.0.0.0.8.1", "1000"))
				if _, err := table.Unset(300001, n, every, "1000"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
