package registry

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// heap returns the octets that are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestMemoryOfARegistration: at most 300 octets, with both of DUMP's lists, in a large table, and given back.
func TestMemoryOfARegistration(t *testing.T) {
	const programs = 60_000
	table := New()
	before := heap()
	for i := range uint32(programs) {
		mustSet(t, table, rpcb(300_000+i, 1, rpcbind.UDP, fmt.Sprintf("0.0.0.0.%d.%d", 8+i>>8&0x7f, i&0xff), "1000"))
	}
	plain := (heap() - before) / programs
	table.RPCBs()
	listed := (heap() - before) / programs
	for i := range uint32(programs) {
		if _, err := table.Unset(300_000+i, 1, every, "1000"); err != nil {
			t.Fatal(err)
		}
	}
	left := heap() - before
	t.Logf("a registration has %d octets, with the lists for DUMP %d; %d octets are left in the empty table", plain, listed, left)
	if listed > 300 {
		t.Errorf("a registration has %d octets, want 300 at most", listed)
	}
	if left > 64<<10 {
		t.Errorf("an empty table has %d octets", left)
	}
	runtime.KeepAlive(table)
}
