package registry

import (
	"fmt"
	"testing"
)

// TestSince holds when registrations say that they were made: those before there was a clock don't.
func TestSince(t *testing.T) {
	table := New()
	mustSet(t, table, rpcb(1, 1, "tcp", "0.0.0.0.0.1", "a"), rpcb(2, 1, "tcp", "0.0.0.0.0.2", "a"))
	now := uint32(1000)
	table.SetClock(func() uint32 { return now })
	mustSet(t, table, rpcb(3, 1, "tcp", "0.0.0.0.0.3", "a"))
	now++
	mustSet(t, table, rpcb(3, 1, "tcp", "0.0.0.0.0.3", "a")) // it is there
	if err := table.Replace(table.Lookup(2, 1, "tcp"), rpcb(2, 1, "tcp", "0.0.0.0.0.4", "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Unset(1, 1, every, "a"); err != nil {
		t.Fatal(err)
	}
	mustSet(t, table, rpcb(4, 1, "tcp", "0.0.0.0.0.5", "a"))
	got := ""
	for _, e := range table.Entries() {
		got += fmt.Sprintf("%d:%d ", e.Program, e.Since)
	}
	if want := "3:1000 2:1001 4:1001 "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
