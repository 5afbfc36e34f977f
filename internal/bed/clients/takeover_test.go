package clients_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestTakeover has nfs-ganesha, statd, ypserv and ypbind registered at rpcbind, lets gportmap take over while showmount and
// ypcat run all the time, and then rpcbind -w take everything back. The servers aren't started again and don't notice.
func TestTakeover(t *testing.T) {
	requiresNIS(t)
	requires(t, program{"ganesha.nfsd", "nfs-ganesha"}, program{"rpc.statd", "nfs-common"}, program{"showmount", "nfs-common"})
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		prepareNFS(t)
		from := ns.StartBare(t, bed.Rpcbind)
		eventually(t, "rpcbind answers", func() bool { return run(t, ns, line("rpcinfo")).code == 0 })
		start(t, line("rpc.statd -F --no-notify -p 20051 -o 20052"))
		awaitService(t, ns, "100024 1")
		start(t, line("ganesha.nfsd -F -L STDERR -f /run/ganesha/ganesha.conf -p /run/ganesha/pid"))
		awaitService(t, ns, "100011 2")
		startYpserv(t, ns, "domain "+nisDomain+" server "+bed.HostIPv4+"\n")
		start(t, line("ypbind -n -debug -p 20062"))
		eventually(t, "ypwhich names the server", func() bool { return run(t, ns, line("ypwhich")).code == 0 })
		registered := services(t, ns)
		if n := strings.Count(registered, "\n"); n < 30 {
			t.Fatalf("only %d registrations:\n%s", n, registered)
		}

		mounts := callAgain(t, "showmount -e 127.0.0.1", "/run/export (everyone)\n")
		maps := callAgain(t, "ypcat passwd.byname", "\n"+nisUser+"\n")
		meanwhile := func(times int64) {
			t.Helper()
			mountsNow, mapsNow := mounts.done.Load(), maps.done.Load()
			eventually(t, "showmount and ypcat are done", func() bool {
				return mounts.done.Load() >= mountsNow+times && maps.done.Load() >= mapsNow+times
			})
		}
		meanwhile(5)
		d := ns.StartBare(t, bed.Gportmap, "--takeover")
		eventually(t, "gportmap serves", func() bool { return strings.Contains(d.Log(), "started: ") })
		meanwhile(20)
		mounts.stop(t)
		maps.stop(t)
		if err := from.Wait(); err != nil {
			t.Logf("rpcbind: %v", err)
		}
		for text := range strings.Lines(d.Log()) {
			if strings.Contains(text, "taken over") {
				t.Log(strings.TrimSpace(text))
			}
		}
		if got := services(t, ns); got != registered {
			t.Errorf("after the takeover:\n%s\nwant\n%s", indent(got), indent(registered))
		}

		if err := d.Stop(); err != nil {
			t.Fatalf("gportmap's end: %v", err)
		}
		ns.Start(t, bed.Rpcbind) // with -w
		if got := services(t, ns); got != registered {
			t.Errorf("after rpcbind -w took it back:\n%s\nwant\n%s", indent(got), indent(registered))
		}
		for words, want := range map[string]string{"showmount -e 127.0.0.1": "/run/export (everyone)\n", "ypcat passwd.byname": nisUser} {
			if got := run(t, ns, line(words)); got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("%s after the way back:\n%s", words, indent(got.String()))
			}
		}
	})
}

// services returns rpcinfo's lines of everything but the portmapper itself, with owners.
func services(t *testing.T, ns *bed.NS) string {
	t.Helper()
	var b strings.Builder
	for text := range strings.Lines(run(t, ns, line("rpcinfo")).stdout) {
		if !strings.HasPrefix(strings.TrimSpace(text), "100000 ") && !strings.Contains(text, "program") {
			b.WriteString(text)
		}
	}
	return b.String()
}

// repeated is a command that runs again and again. One that fails is run once more.
type repeated struct {
	words  string
	end    chan struct{}
	result chan error
	done   atomic.Int64
	twice  atomic.Int64
}

func callAgain(t *testing.T, words, want string) *repeated {
	r := &repeated{words: words, end: make(chan struct{}), result: make(chan error, 1)}
	attempt := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		out, err := prepare(t, ctx, line(words)).CombinedOutput()
		if err == nil && !strings.Contains(string(out), want) {
			err = fmt.Errorf("it says %q", out)
		} else if err != nil {
			err = fmt.Errorf("%w: %q", err, out)
		}
		return err
	}
	go func() {
		for {
			select {
			case <-r.end:
				r.result <- nil
				return
			default:
			}
			if attempt() != nil {
				r.twice.Add(1)
				if err := attempt(); err != nil {
					r.result <- fmt.Errorf("%s failed twice: %w", words, err)
					return
				}
			}
			r.done.Add(1)
		}
	}()
	return r
}

func (r *repeated) stop(t *testing.T) {
	t.Helper()
	close(r.end)
	select {
	case err := <-r.result:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Errorf("%s doesn't end", r.words)
	}
	t.Logf("%s: %d times, %d of them run once more", r.words, r.done.Load(), r.twice.Load())
}
