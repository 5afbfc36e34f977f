package bed_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// registerMany registers so many programs for a user by one connection, each with the longest strings that the default limits
// allow.
func registerMany(t *testing.T, ns *bed.NS, uid uint32, first, count int) {
	t.Helper()
	c := ns.Dial(t, bed.Unix, bed.From{UID: uid})
	defer c.Close()
	for i := range count {
		name := fmt.Sprintf("%d.", first+i)
		netid := name + strings.Repeat("n", rpcbind.DefaultStringOctets-len(name))
		addr := name + strings.Repeat("a", rpcbind.DefaultStringOctets-len(name))
		reply, err := c.Call(withXID(setAddr(4, uint32(first+i), 1, netid, addr), uint32(i)))
		if err != nil || !bytes.HasSuffix(reply, words(0, 1)) {
			t.Fatalf("SET number %d of user %d: %x, %v", i, uid, reply, err)
		}
	}
}

// TestTakeoverOfLongLists: lists beyond 4 MiB are read as a whole, from rpcbind and from a gportmap. Version 2
// would tell of none of them.
func TestTakeoverOfLongLists(t *testing.T) {
	bed.NeedRpcbind(t)
	for _, old := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(old.String(), func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				stateDir(t)
				startOld(t, ns, old)
				for i, uid := range []uint32{1001, 1002} {
					registerMany(t, ns, uid, 700000+i*10000, 4096)
				}
				regs := listed(t)
				// On a busy machine rpcbind has lost a few of those that it answered with TRUE.
				if len(regs) < 8000 || old == bed.Gportmap && len(regs) != 2*4096 {
					t.Fatalf("%d are registered", len(regs))
				}
				d := takeOver(t, ns)
				if got := listed(t); !slices.Equal(got, regs) {
					t.Errorf("%d registrations after the takeover, want the same %d", len(got), len(regs))
				}
				t.Log(logLine(d, "taken over from"))
			})
		})
	}
}

// TestLongestList: what the default limits let be registered, 36 MB as a list, our own programs can read.
func TestLongestList(t *testing.T) {
	if bed.RaceEnabled {
		t.Skip("memory or time that the race detector multiplies: .ci/unit runs this without it as well")
	}
	if testing.Short() {
		t.Skip("short: reads lists of 36 MB")
	}
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		const programs = rpcbind.DefaultRegistrations - 20 // the portmapper's own have a part
		var saved []byte
		for i := range programs {
			name := fmt.Sprintf("%d.", i)
			saved = rpcbind.AppendRPCBElement(saved, rpcbind.RPCB{
				Program: uint32(700000 + i), Version: 1, Owner: rpcbind.OwnerSuperuser,
				Netid: rpcbind.Netid(name + strings.Repeat("n", rpcbind.DefaultStringOctets-len(name))),
				Addr:  name + strings.Repeat("a", rpcbind.DefaultStringOctets-len(name)),
			})
		}
		if err := os.WriteFile("/run/rpcbind/rpcbind.xdr", append(saved, 0, 0, 0, 0), 0o600); err != nil {
			t.Fatal(err)
		}
		ns.Start(t, bed.Gportmap)
		ctx, cancel := context.WithTimeout(context.Background(), takeoverPatience)
		defer cancel()
		c, err := rpcbind.DialPortmapper(ctx, "tcp", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		list, err := c.Dump(ctx)
		if err != nil || len(list) < programs {
			t.Fatalf("%d are listed, %v", len(list), err)
		}
		octets := 0
		for _, b := range list {
			octets += len(rpcbind.AppendRPCBElement(nil, b))
		}
		t.Logf("%d registrations, %d octets as a list", len(list), octets)
		if octets < 34<<20 || octets > rpcbind.DefaultMaxReply {
			t.Errorf("the longest list has %d octets, DefaultMaxReply is %d", octets, rpcbind.DefaultMaxReply)
		}
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		rpcinfo := filepath.Join(t.TempDir(), "rpcinfo")
		if out, err := exec.Command("go", "build", "-o", rpcinfo, "github.com/gportmap/gportmap/cmd/rpcinfo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, args := range [][]string{
			{path, "list"}, {path, "list", "--host", "127.0.0.1"}, {path, "status", "--json"}, {path, "doctor"},
			{rpcinfo}, {rpcinfo, "127.0.0.1"}, {rpcinfo, "-s"},
		} {
			ctx, cancel := context.WithTimeout(context.Background(), takeoverPatience)
			defer cancel()
			var out, errs bytes.Buffer
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Stdout, cmd.Stderr = &out, &errs
			begun := time.Now()
			err := cmd.Run()
			t.Logf("%q: %v, %d octets", args, time.Since(begun).Round(time.Millisecond), out.Len())
			said := out.String() + errs.String()
			failed := err != nil || out.Len() < 1<<20
			if slices.Contains(args, "doctor") { // it may have found something else
				failed = len(said) == 0 || strings.Contains(said, "limit") || strings.Contains(said, "doesn't answer")
			}
			if failed {
				t.Errorf("%q: %v, %.500s", args, err, said)
			}
		}
	})
}
