package bed_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestRemovalsOfLongNetidsSurviveSIGKILL: a user registers many long netids of a version and removes them by one call. What
// others register afterwards outlives a daemon that is killed.
func TestRemovalsOfLongNetidsSurviveSIGKILL(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		const attacked, others, mallory = 0x30170001, 0x30170100, 1001
		yes := boolean(true)
		d := ns.Start(t, bed.Gportmap)
		for i := range 40 {
			call := setAddr(4, attacked, 1, fmt.Sprintf("%s%03d", strings.Repeat("n", 241), i), "/x")
			if got := must(t, ns, bed.Unix, bed.From{UID: mallory}, call); !bytes.Equal(got, yes) {
				t.Fatalf("SET of a long netid: %x", got)
			}
		}
		if got := must(t, ns, bed.Unix, bed.From{UID: mallory}, unsetAddr(4, attacked, 1, "")); !bytes.Equal(got, yes) {
			t.Fatalf("UNSET: %x", got)
		}
		for i := range uint32(32) {
			must(t, ns, bed.Unix, root, setAddr(4, others+i, 1, "udp", "0.0.0.0.8.1"))
		}
		if err := d.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = d.Wait()
		ns.Start(t, bed.Gportmap)
		left := 0
		for _, b := range decodeRPCBs(must(t, ns, bed.TCP, root, dump(4))) {
			switch {
			case b.Program == attacked:
				t.Errorf("%v is there again", b)
			case b.Program >= others && b.Program < others+32:
				left++
			}
		}
		if left != 32 {
			t.Errorf("%d of 32 registrations are there after SIGKILL", left)
		}
	})
}
