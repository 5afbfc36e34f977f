// Package bench_test measures gportmap against rpcbind and against the least that could answer, in one interleaved run:
// make bench. As a part of the tests it runs for a second or two, for its own sake: it then looks at the answers and
// not at the times.
package bench_test

import (
	"flag"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
)

var (
	full   = flag.Bool("load.full", false, "measure, for minutes, and not only try the measurement (make bench)")
	out    = flag.String("load.out", "", "directory for performance.json, performance.svg and the tables")
	rounds = flag.Int("load.rounds", 5, "how often each subject is measured, in turn")
	only   = flag.String("load.only", "", "measure only the load with this key")
	soak   = flag.Duration("load.soak", 10*time.Second, "how long random datagrams are sent")
	upTo   = flag.Int("load.programs", 0, "register no more programs than this, 0: all")
)

func TestMain(m *testing.M) {
	flag.Parse()
	bed.Main(m)
}

// A plan is how much is measured.
type plan struct {
	rounds      int
	time        time.Duration // of one measurement
	few, many   int           // programs registered
	sizes       []int         // of the table, for the plot
	connections int           // idle ones
	abusers     int           // of each kind
	madeUp      int           // programs
	soak        time.Duration
}

func newPlan() plan {
	if *full {
		return plan{rounds: *rounds, time: 500 * time.Millisecond, few: 10, many: 10_000, sizes: []int{10, 30, 100, 300, 1000, 3000, 10_000}, connections: 10_000, abusers: 5, madeUp: 1_000_000, soak: *soak}
	}
	return plan{rounds: 1, time: 20 * time.Millisecond, few: 10, many: 100, sizes: []int{10, 100}, connections: 100, abusers: 1, madeUp: 2000, soak: 100 * time.Millisecond}
}

// figures are what was measured of one subject by one load in one round.
type figures struct {
	Rate  float64 `json:"calls_per_second"`
	CPU   float64 `json:"server_cpu_us"` // of the server's processor time a call
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Lost  int     `json:"lost"`
	Wrong int     `json:"wrong"`
}

// TestLoads measures everything and prints it.
func TestLoads(t *testing.T) {
	bed.NeedRpcbind(t)
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc for the responder in C: apt-get install gcc libc6-dev")
	}
	r := bed.Collect(t, bed.Options{}, func(t *testing.T, ns *bed.NS) report { return measureAll(t, ns, newPlan()) })
	if bed.Inside() {
		return
	}
	r.print(os.Stdout)
	if *out != "" {
		r.write(t, *out)
	}
}

func measureAll(t *testing.T, ns *bed.NS, p plan) report {
	runtime.LockOSThread() // for good: this thread is pinned
	// Nothing here needs collecting while something is measured.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Cur = files.Max; unix.Setrlimit(unix.RLIMIT_NOFILE, &files) != nil || files.Cur < uint64(p.connections+1000) {
		t.Fatalf("%d descriptors are not enough to hold %d connections; see ulimit -Hn", files.Cur, p.connections)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("10000 65000"), 0); err != nil {
		t.Fatal(err)
	}
	r := report{Machine: thisMachine()}
	if *only == "" || *only == "facts" {
		r.Facts = measureFacts(t, ns, p)
	}
	if *only == "facts" {
		return r
	}
	subjects := startSubjects(t, ns, p.many)
	registered := 0
	for _, size := range p.sizes {
		if *upTo > 0 && size > *upTo {
			break
		}
		for _, s := range subjects[:2] {
			s.register(t, registered, size)
		}
		registered = size
		switch size {
		case p.few:
			r.Loads = append(r.Loads, measureLoads(t, p, subjects, atTen(), size)...)
		case p.many:
			r.Loads = append(r.Loads, measureLoads(t, p, subjects, atTenThousand(), size)...)
		}
		r.Sizes = append(r.Sizes, measureLoads(t, p, subjects, tableSize(), size)...)
	}
	return r
}

// tableSize is what the plot shows: calls a second of a busy server, and how long one call takes when there is no other.
func tableSize() []load {
	busy, alone := atTen()[0], atTen()[2]
	busy.reach, alone.reach = nil, nil
	return []load{busy, alone}
}

// measured is a load and what came of it.
type measured struct {
	Key      string               `json:"key"`
	Title    string               `json:"title"`
	Programs int                  `json:"programs"`
	Rounds   map[string][]figures `json:"rounds"` // by subject
	Reach    []reached            `json:"reach,omitempty"`
}

// measureLoads measures each load, the subjects in turn.
func measureLoads(t *testing.T, p plan, subjects []*subject, loads []load, programs int) []measured {
	var all []measured
	for _, l := range loads {
		if *only != "" && l.key != *only {
			continue
		}
		m := measured{Key: l.key, Title: l.title, Programs: programs, Rounds: map[string][]figures{}}
		for range p.rounds {
			for _, s := range subjects {
				if s.name == responderName && l.noC {
					continue
				}
				m.Rounds[s.name] = append(m.Rounds[s.name], l.measure(t, s, programs, p.time))
			}
		}
		m.judge(l.reach)
		all = append(all, m)
	}
	return all
}

func (l load) measure(t *testing.T, s *subject, programs int, d time.Duration) figures {
	if l.sameCPU {
		pin(t, serverCPU)
		defer pin(t, generatorCPU())
	}
	runtime.GC()
	var c tally
	var err error
	var used time.Duration
	for tries := 0; tries < 5 && err == nil && c.answered == 0; tries++ { // a machine may give us no time for as long
		before := processorTime(t, s.pids[l.transport])
		c, err = l.run(s, programs, d)
		used = processorTime(t, s.pids[l.transport]) - before
	}
	if err != nil {
		t.Fatalf("%s: %s with %d programs: %v", s.name, l.title, programs, err)
	}
	if c.answered == 0 || c.wrong > 0 {
		t.Errorf("%s: %s with %d programs: %d replies, %d wrong ones", s.name, l.title, programs, c.answered, c.wrong)
	}
	return figures{
		Rate: float64(c.answered) / c.took.Seconds(),
		CPU:  micros(used) / float64(max(c.answered, 1)),
		P50:  c.latency.quantile(.5), P99: c.latency.quantile(.99), P999: c.latency.quantile(.999),
		Lost: c.lost, Wrong: c.wrong,
	}
}

// median returns the median of one figure of all rounds.
func median(rounds []figures, of func(figures) float64) float64 {
	var v []float64
	for _, f := range rounds {
		v = append(v, of(f))
	}
	return middleOf(v)
}

func middleOf(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
