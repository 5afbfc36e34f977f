package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// changing is a portmapper whose registrations are those of the next step each time it is asked; nil stands for a refusal.
func changing(t *testing.T, w *world, steps ...[]rpcbind.RPCB) {
	t.Helper()
	var mu sync.Mutex
	asked := 0
	portmapper(t, w, map[uint32]oncrpc.Procedures{3: {rpcbind.ProcDump: func(_ context.Context, _ *oncrpc.Request, dst []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		step := steps[min(asked, len(steps)-1)]
		asked++
		if step == nil {
			return nil, oncrpc.ErrSystemErr
		}
		for _, b := range step {
			dst = rpcbind.AppendRPCBElement(dst, b)
		}
		return xdr.AppendBool(dst, false), nil
	}}})
}

var timeOfDay = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d `)

func TestWatch(t *testing.T) {
	moved := registered[2]
	moved.Addr = "0.0.0.0.78.134"
	w := testWorld(t)
	// After a refusal it asks again by another connection.
	changing(t, &w, registered[:2], registered, registered, []rpcbind.RPCB{registered[1], moved}, nil, nil, nil, nil, []rpcbind.RPCB{moved})
	got := runIn(t, w, "--watch --interval 10ms --count 6")
	want := `           ` + listHead + `               100000    4    tcp6      ::.0.111               portmapper superuser
               100000    3    local     /run/rpcbind.sock      portmapper superuser
+  536870913    1    udp       0.0.0.0.78.133         -          4242
-     100000    4    tcp6      ::.0.111               portmapper superuser
-  536870913    1    udp       0.0.0.0.78.133         -          4242
+  536870913    1    udp       0.0.0.0.78.134         -          4242
! rpcinfo: can't contact rpcbind: : RPC: Remote system error
! the portmapper answers again
-     100000    3    local     /run/rpcbind.sock      portmapper superuser
`
	if events := timeOfDay.ReplaceAllString(got.stdout, ""); events != want || got.code != 0 || got.stderr != "" {
		t.Errorf("exit %d\n%s%swant\n%s", got.code, events, got.stderr, want)
	}
}

func TestWatchInJSON(t *testing.T) {
	w := testWorld(t)
	changing(t, &w, registered[:1], []rpcbind.RPCB{}, nil)
	var events []string
	for _, v := range decoded(t, w, "--json --watch --interval 10ms --count 2", 1) {
		events = append(events, v["event"].(string))
		if v["time"] == nil || (v["registration"] == nil) != (v["event"] == eventSilent) || (v["error"] == nil) == (v["event"] == eventSilent) {
			t.Errorf("%v", v)
		}
	}
	if got := strings.Join(events, " "); got != "listed unregistered unreachable" {
		t.Errorf("events: %s", got)
	}
}

// Without an answer there is nothing to watch.
func TestWatchNobody(t *testing.T) {
	expect(t, testWorld(t), "--watch", said{stderr: "rpcinfo: can't contact rpcbind: RPC: Remote system error - No such file or directory\n", code: 1})
}

// An interruption ends it well.
func TestWatchInterrupted(t *testing.T) {
	w := testWorld(t)
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: {rpcbind.ProcDump: func(_ context.Context, _ *oncrpc.Request, dst []byte) ([]byte, error) {
		interrupt()
		return xdr.AppendBool(dst, false), nil
	}}})
	var out bytes.Buffer
	w.stdout, w.stderr = &out, &out
	if code := run(ctx, []string{"rpcinfo", "--watch"}, w); code != 0 {
		t.Errorf("exit %d: %s", code, out.String())
	}
}
