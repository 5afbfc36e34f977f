package daemon

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// BenchmarkRestore times what a start does about the registrations of the daemon before, up to the first answer.
func BenchmarkRestore(b *testing.B) {
	for _, programs := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("programs=%d", programs), func(b *testing.B) {
			c := Config{StateDir: b.TempDir(), Log: slog.New(slog.DiscardHandler)}
			fill := func(table *registry.Table) {
				for i := range programs {
					r := rpcbind.RPCB{Program: uint32(300_000 + i), Version: 1, Netid: rpcbind.UDP, Addr: fmt.Sprintf("0.0.0.0.%d.%d", 8+i>>8, i&0xff), Owner: "superuser"}
					if err := table.Set(r); err != nil {
						b.Fatal(err)
					}
				}
			}
			start := func(then func(*registry.Table)) *registry.Table {
				state, err := openState(c)
				if err != nil {
					b.Fatal(err)
				}
				defer state.Close()
				table := registry.New()
				end := restore(c.Log, table, state, nil)
				then(table)
				end()
				return table
			}
			start(fill)
			b.ReportAllocs()
			for b.Loop() {
				if n := start(func(*registry.Table) {}).Len(); n != programs {
					b.Fatalf("%d of %d are restored", n, programs)
				}
			}
		})
	}
}
