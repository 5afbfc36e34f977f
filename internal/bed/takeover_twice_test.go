package bed_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestTakeoversAtOnce starts two takeovers from one gportmap at the same time: one portmapper serves afterwards, with every
// registration, and whoever lost says so and starts none.
func TestTakeoversAtOnce(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		stateDir(t)
		shell(t, "gportmap").want(t, 0)
		regs := registerSome(t, ns)
		for i := range 8 {
			out := shell(t, "gportmap takeover & first=$!; gportmap takeover; wait $first")
			waitUntil(t, "one portmapper runs", func() bool { return len(portmappers(t)) == 1 })
			time.Sleep(200 * time.Millisecond)
			if names := portmappers(t); !slices.Equal(names, []string{"gportmap"}) {
				t.Fatalf("round %d: %v run; they said %s%s", i, names, out.stdout, out.stderr)
			}
			sameListed(t, "after two takeovers", regs)
		}
	})
}
