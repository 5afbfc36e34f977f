package bed_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestConflictingSetsDelayNobody has a user with many sockets send 8,000 SETs a second that conflict with registrations of its
// own, so that whether their servers are gone is asked each time. Another host's lookups go on.
func TestConflictingSetsDelayNobody(t *testing.T) {
	const program, sockets, rate, lookups = 0x30190001, 10000, 8000, 300
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		limit := unix.Rlimit{Cur: sockets + 1000, Max: sockets + 1000}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		ns.Start(t, bed.Gportmap)
		call := getPort(rpcbind.Program, 2, rpcbind.ProtUDP)
		// measure returns how long another host's lookups took, in order; each is sent once.
		measure := func(tr bed.Transport) []time.Duration {
			var took []time.Duration
			for i := range lookups {
				c, err := ns.TryDial(tr, bed.From{Remote: true})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				err = c.SendCall(withXID(call, uint32(i)))
				if err == nil {
					_, err = c.Receive(2 * time.Second)
				}
				if err == nil {
					took = append(took, time.Since(began))
				}
				c.Close()
			}
			slices.Sort(took)
			return took
		}
		quiet := map[bed.Transport][]time.Duration{bed.UDP: measure(bed.UDP), bed.TCP: measure(bed.TCP)}
		held := make([]int, 0, sockets)
		as(t, attacker, func() {
			for range sockets {
				fd, _ := bound(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}}, 0)
				held = append(held, fd)
			}
			at, _ := bound(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}}, 2049)
			held = append(held, at)
		})
		defer func() {
			for _, fd := range held {
				unix.Close(fd)
			}
		}()
		for _, c := range []struct{ name, addr string }{
			{"a server that one lookup doesn't find", "0.0.0.0.8.1"}, // it is at 127.0.0.2
			{"a server that is gone", "0.0.0.0.8.2"},
		} {
			t.Run(c.name, func(t *testing.T) {
				must(t, ns, bed.UDP, bed.From{UID: attacker}, setAddr(4, program, 1, "udp", c.addr))
				ctx, stop := context.WithCancel(t.Context())
				var attack sync.WaitGroup
				attack.Go(func() {
					c := ns.Dial(t, bed.UDP, bed.From{UID: attacker})
					others := [][]byte{setAddr(4, program, 1, "udp", "0.0.0.0.9.1"), setAddr(4, program, 1, "udp", "0.0.0.0.9.2")}
					began, sent := time.Now(), 0
					for ctx.Err() == nil {
						for ; sent < int(time.Since(began)*rate/time.Second); sent++ {
							_ = c.SendCall(withXID(others[sent%2], uint32(sent)))
						}
						time.Sleep(time.Millisecond)
					}
				})
				time.Sleep(100 * time.Millisecond)
				for _, tr := range []bed.Transport{bed.UDP, bed.TCP} {
					got, before := measure(tr), quiet[tr]
					t.Logf("%s: %d of %d answered; quiet p50 %v p99 %v, attacked p50 %v p99 %v", tr, len(got), lookups,
						before[len(before)/2], before[len(before)*99/100], got[len(got)/2], got[len(got)*99/100])
					if len(got) != lookups {
						t.Errorf("%s: %d of %d lookups were answered", tr, len(got), lookups)
					}
					if p99 := got[len(got)*99/100]; p99 > before[len(before)*99/100]+50*time.Millisecond {
						t.Errorf("%s: p99 %v, quiet %v", tr, p99, before[len(before)*99/100])
					}
				}
				stop()
				attack.Wait()
				must(t, ns, bed.Unix, root, unsetAddr(4, program, 1, ""))
			})
		}
	})
}
