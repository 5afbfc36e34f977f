package bed_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// Flags of TestOracleRandom.
var (
	seedFlag  = flag.Uint64("bed.seed", 0, "seed of the random sequences; 0 chooses one")
	stepsFlag = flag.Int("bed.steps", 4000, "calls in each random sequence")
)

func TestMain(m *testing.M) {
	if lock, ok := strings.CutPrefix(os.Getenv(enemyEnv), "yes "); ok {
		enemy(lock)
	}
	flag.Parse()
	if *seedFlag == 0 {
		// Set, and not only kept: the children get the flags that are set.
		flag.Set("bed.seed", fmt.Sprint(time.Now().UnixNano()))
	}
	bed.Main(m)
}

// TestNull is the bed's own test: every transport and kind of caller reaches
// the oracle.
func TestNull(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Rpcbind)
		call := bed.NullCall(7, 100000, 2)
		linkLocal := bed.From{Remote: true, Addr: bed.Addr(bed.PeerLinkLocal + "%" + bed.PeerInterface)}
		for _, test := range []struct {
			tr   bed.Transport
			from bed.From
		}{
			{bed.UDP, bed.From{}}, {bed.TCP, bed.From{}}, {bed.UDP6, bed.From{}}, {bed.TCP6, bed.From{}}, {bed.Unix, bed.From{}},
			{bed.UDP, bed.From{UID: 1234, Connected: true}}, {bed.TCP, bed.From{UID: 1234, Port: 700}}, {bed.Unix, bed.From{UID: 1234}},
			{bed.UDP, bed.From{Remote: true}}, {bed.TCP6, bed.From{Remote: true}}, {bed.TCP6, linkLocal},
		} {
			reply, err := ns.Call(t, test.tr, test.from, call)
			if err != nil || len(reply) != 24 {
				t.Errorf("%s %+v: %x, %v", test.tr, test.from, reply, err)
			}
		}
		notACall := append([]byte{}, call...)
		notACall[7] = 1 // REPLY
		if _, err := ns.Call(t, bed.UDP, bed.From{}, notACall); !errors.Is(err, bed.ErrSilence) {
			t.Errorf("a reply sent as a call over UDP: %v, want silence", err)
		}
		if _, err := ns.Call(t, bed.TCP, bed.From{}, call[:20]); !errors.Is(err, bed.ErrClosed) {
			t.Errorf("half a header over TCP: %v, want a close", err)
		}
		out, err := ns.RemoteCommand(t, "ip", "-br", "address")
		if err != nil || !strings.Contains(out, bed.PeerIPv4) {
			t.Errorf("ip on the remote host: %v\n%s", err, out)
		}
		if out, err := exec.Command("ip", "-br", "address").CombinedOutput(); err != nil || strings.Contains(string(out), bed.PeerIPv4) {
			t.Errorf("ip on this host: %v\n%s", err, out)
		}
	})
}
