package bed_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// A nuisance is what an enemy does again and again, so often in a second at most.
type nuisance struct {
	name string
	each time.Duration
	act  func(i uint32)
}

// TestAllAttacksTogether runs every attack of SECURITY.md at once for -bed.soak. Meanwhile another host looks programs up and a
// system user registers and unregisters: every one of their calls is answered rightly. Memory and descriptors stay bounded.
func TestAllAttacksTogether(t *testing.T) {
	if bed.RaceEnabled {
		t.Skip("memory or time that the race detector multiplies: .ci/unit runs this without it as well")
	}
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		manyDescriptors(t, 20_000)
		d := ns.Start(t, bed.Gportmap, "-r")
		const kept = 16
		for i := range uint32(kept) {
			must(t, ns, bed.Unix, root, setAddr(4, 0x30300000+i, 1, "tcp", "0.0.0.0.8.1"))
		}
		ctx, end := context.WithCancel(context.Background())
		var busy sync.WaitGroup
		for _, a := range nuisances(t, ns) {
			busy.Go(func() {
				for i := uint32(0); ctx.Err() == nil; i++ {
					a.act(i)
					time.Sleep(a.each)
				}
			})
		}
		w := watchDaemon(t, d)
		for began, next := time.Now(), time.Minute; time.Since(began) < *soak; {
			honest(t, ns, w)
			if w.look(t, d); time.Since(began) > next {
				next += time.Minute
				t.Logf("%v: %v", time.Since(began).Round(time.Second), w)
			}
			time.Sleep(50 * time.Millisecond)
		}
		end()
		busy.Wait()
		t.Logf("in all %v: %v", *soak, w)
		if w.memory > 150<<20 {
			t.Errorf("%d MB with the kernel's, the bound is 150", w.memory>>20)
		}
		for i := range uint32(kept) {
			if got := must(t, ns, bed.Unix, root, getPort(0x30300000+i, 1, 6)); !bytes.Equal(got, words(2049)) {
				t.Errorf("registration %d: %x", i, got)
			}
		}
	})
}

// honest makes the calls of those who have to be served.
func honest(t *testing.T, ns *bed.NS, w *watched) {
	t.Helper()
	for _, tr := range []bed.Transport{bed.TCP, bed.TCP6, bed.UDP6} {
		w.calls++
		for try := 0; ; try++ { // a datagram may be lost; clients send it again
			reply, err := ns.Call(t, tr, bed.From{Remote: true}, withXID(getPort(0x30300000, 1, 6), rand.Uint32()))
			if err == nil && bytes.Equal(results(reply), words(2049)) {
				break
			}
			if w.again++; tr != bed.UDP6 || try == 4 {
				t.Fatalf("a lookup over %s isn't answered: %x, %v (%v)", tr, reply, err, w)
			}
		}
	}
	statd := bed.From{UID: 108}
	for _, call := range [][]byte{setAddr(4, 100024, 1, "udp", "0.0.0.0.3.5"), unsetAddr(4, 100024, 1, "")} {
		w.calls++
		if got := must(t, ns, bed.Unix, statd, call); !bytes.Equal(got, boolean(true)) {
			t.Fatalf("a system user's registration: %x (%v)", got, w)
		}
	}
}

// watched is what the daemon cost so far.
type watched struct {
	calls, again        int
	memory, descriptors int // the most
	first               int // memory at the beginning
	looks               int
}

func watchDaemon(t *testing.T, d *bed.Daemon) *watched {
	return &watched{first: residentMemory(t, d.PID())}
}

func (w *watched) look(t *testing.T, d *bed.Daemon) {
	if w.looks++; w.looks%20 != 1 {
		return // it takes time
	}
	w.memory = max(w.memory, residentMemory(t, d.PID())+socketMemory(t))
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID())); err == nil {
		w.descriptors = max(w.descriptors, len(entries))
	}
}

func (w *watched) String() string {
	return fmt.Sprintf("%d honest calls answered, %d of them sent again; %.1f MB with the kernel's at most, %.1f at the beginning; %d descriptors at most",
		w.calls, w.again, float64(w.memory)/1e6, float64(w.first)/1e6, w.descriptors)
}

// nuisances are those of local users and of another host.
func nuisances(t *testing.T, ns *bed.NS) []nuisance {
	mallory, far := bed.From{UID: 12345}, bed.From{Remote: true}
	loopback, packets := ns.Dial(t, bed.UDP, mallory), ns.Dial(t, bed.UDP, far)
	random := rand.New(rand.NewPCG(rand.Uint64(), 5))
	whole := wholeCalls()
	long := func(i uint32) []byte {
		return setAddr(4, 0x30310000+i%2000, 1, strings.Repeat("n", 240), strings.Repeat("a", 250))
	}
	// ring holds so many connections that don't read, and closes the oldest for a new one.
	ring := func(tr bed.Transport, from bed.From, n int, first []byte) func(uint32) {
		open := make([]*bed.Conn, n)
		return func(i uint32) {
			at := &open[int(i)%n]
			if *at != nil {
				(*at).Close()
			}
			if *at, _ = ns.TryDial(tr, from); *at != nil {
				(*at).SendSome(first)
			}
		}
	}
	changing, _ := ns.TryDial(bed.Unix, mallory)
	flood := func(c *bed.Conn, call func(i uint32) []byte) func(uint32) {
		return func(i uint32) {
			for k := range uint32(50) {
				c.SendSome(withXID(call(50*i+k), 50*i+k))
			}
		}
	}
	halved := bed.Record(getPort(100000, 2, 6))[:30]
	return []nuisance{
		{"conflicting SETs", 10 * time.Millisecond, flood(loopback, func(uint32) []byte { return setAddr(4, 0x30300001, 1, "tcp", "0.0.0.0.9.9") })},
		{"lookups of made-up programs", 5 * time.Millisecond, flood(packets, func(i uint32) []byte { return getPort(0x40000000+i, i%7, 17) })},
		{"remote calls to nobody", 10 * time.Millisecond, flood(packets, func(i uint32) []byte { return message(2, 5, words(0x30300000, 1, 0, 0)) })},
		{"damaged calls", 5 * time.Millisecond, func(uint32) { packets.SendSome(damage(random, whole[random.IntN(len(whole))])) }},
		{"long entries that change", time.Millisecond, func(i uint32) {
			if changing.SendCall(withXID(unsetAddr(4, 0x30310000+i%2000, 1, ""), i)) == nil && changing.SendCall(withXID(long(i), i)) == nil {
				_, _ = changing.Receive(time.Second)
				_, _ = changing.Receive(time.Second)
			}
		}},
		{"DUMPs that nobody reads, over TCP", 10 * time.Millisecond, ring(bed.TCP, mallory, 400, bed.Record(dump(4)))},
		{"DUMPs that nobody reads, local", 10 * time.Millisecond, ring(bed.Unix, mallory, 200, bed.Record(dump(4)))},
		{"GETSTATs that nobody reads", 10 * time.Millisecond, ring(bed.TCP6, far, 200, bytes.Repeat(bed.Record(message(4, 12, nil)), 300))},
		{"half records", 10 * time.Millisecond, ring(bed.TCP6, far, 30, halved)},
		{"endless fragments", 10 * time.Millisecond, ring(bed.TCP, mallory, 200, bytes.Repeat(bed.AppendFragment(nil, []byte("1234"), false), 1000))},
	}
}
