package bed_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// TestRpcbindAfterAKilledGportmap kills gportmap, right after removals and a while after, and starts rpcbind -w on what it left.
// What was removed is not there; right after it may be listed as of program 0, in printable text.
func TestRpcbindAfterAKilledGportmap(t *testing.T) {
	bed.NeedRpcbind(t)
	for _, wait := range []bool{false, true} {
		t.Run(fmt.Sprintf("wait %v", wait), func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				shell(t, "gportmap").want(t, 0)
				seedRegistrations(t)
				for _, netid := range []string{"udp", "tcp", "local"} {
					shell(t, "gportmap set 100003 3 "+netid+map[bool]string{true: " /run/x", false: " 0.0.0.0.8.1"}[netid == "local"]).want(t, 0)
				}
				shell(t, "gportmap set 100003 4 tcp 0.0.0.0.8.1; gportmap unset 100003 3; gportmap unset 100003 4 tcp").want(t, 0)
				if wait {
					waitUntil(t, "the state is written anew", func() bool {
						b, err := os.ReadFile("/run/rpcbind/rpcbind.xdr")
						d := xdr.NewDecoder(b)
						saved := rpcbind.ReadRPCBList(&d, 9000)
						return err == nil && d.Err() == nil && !slices.ContainsFunc(saved, func(b rpcbind.RPCB) bool { return b.Program == 0 })
					})
				}
				crash(t)
				ns.Start(t, bed.Rpcbind)
				seedIntact(t)
				for _, b := range listed(t) {
					if b.Program == 100003 || wait && b.Program == 0 || strings.ContainsFunc(string(b.Netid)+b.Addr+b.Owner, unicode.IsControl) {
						t.Errorf("rpcbind lists %+v", b)
					}
				}
				if wait {
					if out := shell(t, "rpcinfo -p").want(t, 0).stdout; strings.Contains(out, "\n         0") {
						t.Errorf("program 0 in version 2's list:\n%s", out)
					}
				}
			})
		})
	}
}
