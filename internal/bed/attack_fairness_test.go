package bed_test

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// manyDescriptors lets the test and what it starts hold so many, or as many as it may.
func manyDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(n, l.Max)}) == nil {
		return
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d descriptors", l.Max)
}

// resultsOf makes a call that is answered, and returns its results.
func resultsOf(t *testing.T, c *bed.Conn, call []byte) []byte {
	t.Helper()
	if err := c.SendCall(withXID(call, 7)); err != nil {
		t.Fatal(err)
	}
	reply, err := c.Receive(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return results(reply)
}

// lookups makes calls of another host for a while, each over a new socket of that transport, and returns how long each took in
// order of time. One that isn't answered fails the test.
func lookups(t *testing.T, ns *bed.NS, tr bed.Transport, n int) []time.Duration {
	t.Helper()
	times := make([]time.Duration, 0, n)
	for i := range n {
		began := time.Now()
		c, err := ns.TryDial(tr, bed.From{Remote: true})
		if err != nil {
			t.Errorf("%s: call %d: %v", tr, i, err)
			continue
		}
		if err = c.SendCall(withXID(getPort(100000, 2, 6), uint32(i))); err == nil {
			_, err = c.Receive(2 * time.Second)
		}
		c.Close()
		if err != nil {
			t.Errorf("%s: call %d isn't answered: %v", tr, i, err)
			continue
		}
		times = append(times, time.Since(began))
		time.Sleep(time.Millisecond)
	}
	slices.Sort(times)
	return times
}

// quantiles says the median and the 99th of a hundred.
func quantiles(times []time.Duration) (median, high time.Duration) {
	if len(times) == 0 {
		return 0, 0
	}
	return times[len(times)/2], times[len(times)*99/100]
}

// TestConnectionsOfOneUser: a user of this host who opens as many TCP connections as there may be keeps no other host from being
// served.
func TestConnectionsOfOneUser(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		manyDescriptors(t, 40_000)
		ns.Start(t, bed.Gportmap)
		open := 0
		for range 16_384 {
			c, err := ns.TryDial(bed.TCP, bed.From{UID: 12345})
			if err != nil {
				continue
			}
			open++
			t.Cleanup(func() { c.Close() })
		}
		t.Logf("%d connections", open)
		for _, tr := range []bed.Transport{bed.TCP, bed.TCP6, bed.UDP} {
			if times := lookups(t, ns, tr, 20); len(times) != 20 {
				t.Errorf("%s: %d of 20 calls of another host are answered", tr, len(times))
			}
		}
		must(t, ns, bed.TCP, bed.From{UID: 1001}, getPort(100000, 2, 6)) // nor another user
	})
}

// TestFullTableOfUsers: users who fill the table don't keep the system's services from being registered.
func TestFullTableOfUsers(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Gportmap)
		program := uint32(0x30190000)
		for user := range uint32(16) {
			c := ns.Dial(t, bed.Unix, bed.From{UID: 20_000 + user})
			for range 4200 {
				program++
				if !bytes.Equal(resultsOf(t, c, setAddr(4, program, 1, "udp", "0.0.0.0.8.1")), boolean(true)) {
					break
				}
			}
		}
		for uid, want := range map[uint32]bool{20_100: false, 108: true, 0: true} {
			if got := must(t, ns, bed.Unix, bed.From{UID: uid}, setAddr(4, 100024, uid, "udp", "0.0.0.0.8.1")); !bytes.Equal(got, boolean(want)) {
				t.Errorf("SET of uid %d in a table full of users' registrations: %x, want %v", uid, got, want)
			}
		}
	})
}

// TestManyVersionsOfOneProgram: 57,000 versions of one program make neither lookups nor a restart slow.
func TestManyVersionsOfOneProgram(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		const program = 0x301a0001
		d := ns.Start(t, bed.Gportmap)
		for user := range uint32(14) {
			c := ns.Dial(t, bed.Unix, bed.From{UID: 20_000 + user})
			for i := range uint32(4090) {
				if got := resultsOf(t, c, setAddr(4, program, 4090*user+i, "udp", "0.0.0.0.8.1")); !bytes.Equal(got, boolean(true)) {
					t.Fatalf("SET: %x", got)
				}
			}
		}
		took := func(vers uint32) time.Duration {
			c := ns.Dial(t, bed.UDP, bed.From{Remote: true})
			times := make([]time.Duration, 300)
			for i := range times {
				began := time.Now()
				if err := c.SendCall(withXID(getPort(program, vers, 17), uint32(i))); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Receive(time.Second); err != nil {
					t.Fatal(err)
				}
				times[i] = time.Since(began)
			}
			slices.Sort(times)
			return times[len(times)/2]
		}
		newest, oldest, none := took(4090*14-1), took(0), took(1<<31)
		t.Logf("GETPORT of the newest version %v, of the oldest %v, of none %v", newest, oldest, none)
		if max(oldest, none) > 4*newest+100*time.Microsecond {
			t.Error("a lookup takes as long as there are versions")
		}
		if err := d.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = d.Wait()
		began := time.Now()
		d = ns.Start(t, bed.Gportmap)
		t.Logf("restart in %v", time.Since(began))
		if time.Since(began) > 5*time.Second {
			t.Error("57,260 versions of one program: the daemon takes longer than 5 s to start")
		}
		if !strings.Contains(d.Log(), "count=57260") {
			t.Error("not every registration was restored")
		}
	})
}

// TestConflictingSets: users who send SETs that are refused, over a hundred connections or by thousands of datagrams, delay
// nobody's lookups.
func TestConflictingSets(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		const program, mallory = 0x301b0001, 12345
		ns.Start(t, bed.Gportmap)
		ns.Hold(t, "udp", "0.0.0.0:2049")
		must(t, ns, bed.Unix, bed.From{UID: mallory}, setAddr(4, program, 1, "udp", "0.0.0.0.8.1"))
		must(t, ns, bed.UDP, bed.From{UID: mallory}, setAddr(4, program+1, 1, "udp", "0.0.0.0.8.1"))
		conflict := bytes.Repeat(bed.Record(setAddr(4, program, 1, "udp", "0.0.0.0.8.2")), 50)
		quiet := make(map[bed.Transport]time.Duration)
		for _, tr := range []bed.Transport{bed.UDP, bed.TCP} {
			median, high := quantiles(lookups(t, ns, tr, 500))
			quiet[tr] = high
			t.Logf("quiet: %s %v, 99 of 100 in %v", tr, median, high)
		}
		check := func(attack string) {
			t.Helper()
			for _, tr := range []bed.Transport{bed.UDP, bed.TCP} {
				median, high := quantiles(lookups(t, ns, tr, 500))
				t.Logf("%s: %s %v, 99 of 100 in %v", attack, tr, median, high)
				// The goal is 5 ms more, on a machine that does nothing else. Without the turns it was a second.
				if high > 3*quiet[tr]+200*time.Millisecond {
					t.Errorf("%s: 99 of 100 lookups by %s in %v, without it %v", attack, tr, high, quiet[tr])
				}
			}
		}
		var stop atomic.Bool
		var attackers sync.WaitGroup
		for i := range 100 {
			c := ns.Dial(t, []bed.Transport{bed.Unix, bed.TCP}[i%2], bed.From{UID: mallory})
			attackers.Go(func() {
				for !stop.Load() {
					if c.Send(conflict) != nil {
						return
					}
					for range 50 {
						if _, err := c.Receive(10 * time.Second); err != nil {
							return
						}
					}
				}
			})
		}
		time.Sleep(200 * time.Millisecond)
		check("100 connections")
		stop.Store(true)
		attackers.Wait()
		stop.Store(false)
		c := ns.Dial(t, bed.UDP, bed.From{UID: mallory})
		var sent atomic.Int64
		attackers.Go(func() {
			for !stop.Load() {
				for range 8 {
					_ = c.Send(setAddr(4, program+1, 1, "udp", "0.0.0.0.8.2"))
					sent.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
		})
		began := time.Now()
		time.Sleep(200 * time.Millisecond)
		check("datagrams")
		stop.Store(true)
		attackers.Wait()
		t.Logf("%.0f SETs/s by datagram", float64(sent.Load())/time.Since(began).Seconds())
	})
}
