package registry

import (
	"fmt"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// fill registers programs 1 to n, each in two versions on tcp and udp.
func fill(t testing.TB, table *Table, n int) {
	t.Helper()
	for prog := range uint32(n) {
		mustSet(t, table,
			rpcb(prog+1, 3, rpcbind.TCP, "0.0.0.0.8.1", "superuser"),
			rpcb(prog+1, 3, rpcbind.UDP, "0.0.0.0.8.1", "superuser"),
			rpcb(prog+1, 4, rpcbind.TCP, "0.0.0.0.8.1", "superuser"),
			rpcb(prog+1, 4, rpcbind.UDP, "0.0.0.0.8.1", "superuser"))
	}
}

// lookups looks up a version that is there, another version and a program that isn't there.
func lookups(table *Table, programs int) (found int) {
	for _, q := range [...]struct{ prog, vers uint32 }{{1, 3}, {uint32(programs), 9}, {uint32(programs) + 1, 3}} {
		if table.Lookup(q.prog, q.vers, rpcbind.UDP) != nil {
			found++
		}
	}
	return found
}

var sizes = []int{10, 10_000}

// BenchmarkLookup times three lookups: two that find something and one that doesn't.
func BenchmarkLookup(b *testing.B) {
	for _, programs := range sizes {
		b.Run(fmt.Sprintf("programs=%d", programs), func(b *testing.B) {
			table := New()
			fill(b, table, programs)
			b.ReportAllocs()
			for b.Loop() {
				if found := lookups(table, programs); found != 2 {
					b.Fatalf("found %d, want 2", found)
				}
			}
		})
	}
}

// BenchmarkSetUnset times a registration and its removal.
func BenchmarkSetUnset(b *testing.B) {
	for _, programs := range sizes {
		b.Run(fmt.Sprintf("programs=%d", programs), func(b *testing.B) {
			table := New()
			fill(b, table, programs)
			entry := rpcb(uint32(programs)+1, 1, rpcbind.TCP, "0.0.0.0.8.1", "superuser")
			b.ReportAllocs()
			for b.Loop() {
				if err := table.Set(entry); err != nil {
					b.Fatal(err)
				}
				if n, err := table.Unset(entry.Program, 1, every, entry.Owner); n != 1 || err != nil {
					b.Fatalf("Unset = %d, %v", n, err)
				}
			}
		})
	}
}

// BenchmarkDump times a dump of a table that has just changed, which has to be encoded anew, and of one that hasn't.
func BenchmarkDump(b *testing.B) {
	for _, programs := range sizes {
		for _, changed := range []bool{false, true} {
			b.Run(fmt.Sprintf("programs=%d/changed=%v", programs, changed), func(b *testing.B) {
				table := New()
				fill(b, table, programs)
				b.ReportAllocs()
				for b.Loop() {
					if changed {
						table.mu.Lock()
						for _, b := range table.blocks.list {
							b.lists = [kindsOfList][]byte{}
						}
						table.blocks.lists[rpcbList].Store(nil)
						table.mu.Unlock()
					}
					if table.RPCBs().Octets == 0 {
						b.Fatal("empty dump")
					}
				}
			})
		}
	}
}
