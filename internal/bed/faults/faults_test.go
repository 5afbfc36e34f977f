// Package faults walks through what gportmap does, system call by system call, and lets something go wrong at each.
//
// A walk is a scenario: a start, a takeover, a reload, a SET, a stop and so on, of the daemon as it is released, in a network,
// mount and process namespace of its own. A filter of seccomp's stops every system call of it until this process says how it
// goes on (seccomp_unotify(2)), so a step is a system call, with its path, descriptor or address, and how often it was made.
// The first walk notes the steps. Then each is taken with a fault of each kind:
//
//   - SIGTERM, SIGINT, SIGHUP or SIGKILL comes while the step is held up, and is dealt with before that goes on;
//   - the call isn't made, and answers EINTR, EIO, ENOSPC, EMFILE, ENOMEM or EPERM.
//
// Whatever comes: the program doesn't crash and doesn't hang; if it ends it says why, and nothing stays bound; if it serves,
// then on all transports and with all registrations; after a takeover one portmapper serves, unless the daemon was killed or
// had taken over before it was told to end. Then everything is killed and a daemon is started as if nothing had happened. It
// has what was ever answered TRUE, status finds it well, and what is in /run when it has ended is what is there without faults.
//
//	make faults                       # 300 of each scenario, in half an hour; make faults FAULTS=0: all, in hours
//	go test ./internal/bed/faults     # a small sample, another one each day, and what found something once
//	go test ./internal/bed/faults -args -faults.seed=20250101
//	go test ./internal/bed/faults -args -faults.sample=0 -faults.only='^stop$' -faults.at='EIO at unlinkat'
package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// repeats is how many times of the same call are tried: /proc is read entry by entry.
const repeats = 2

func TestMain(m *testing.M) {
	if path := os.Getenv(envFilter); path != "" {
		fmt.Fprintln(os.Stderr, becomeFiltered(path))
		os.Exit(1)
	}
	bed.MainAsReleased(m)
}

var (
	flagSeed   = flag.Uint64("faults.seed", 0, "which sample; 0: today's")
	flagSample = flag.Int("faults.sample", 5, "faults of each scenario that are tried; 0: all")
	flagOnly   = flag.String("faults.only", "", "only scenarios that match")
	flagAt     = flag.String("faults.at", "", "only steps that match, as in 'EIO at openat /run/gportmap'")
)

// errnos are what calls answer.
var errnos = []syscall.Errno{syscall.EINTR, syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.ENOMEM, syscall.EPERM}

// faultsOf returns the faults that are tried at a step.
func faultsOf(p point) []fault {
	all := []fault{{signal: syscall.SIGTERM}, {signal: syscall.SIGINT}, {signal: syscall.SIGHUP}, {signal: syscall.SIGKILL}}
	if strings.HasPrefix(p.call, "close ") {
		return all // whatever close answers, the descriptor is closed: that can't be made so
	}
	for _, e := range errnos {
		all = append(all, fault{errno: e})
	}
	return all
}

// A chosen trial.
type choice struct {
	point
	fault
}

// counts are what was tried.
type counts struct{ Steps, Repeated, Points, Tried, Reached int }

func TestFaults(t *testing.T) {
	seed := *flagSeed
	if seed == 0 {
		now := time.Now().UTC()
		seed = uint64(now.Year()*10000 + int(now.Month())*100 + now.Day())
	}
	if !bed.Inside() {
		t.Logf("-faults.seed=%d", seed)
		for _, l := range leftOut {
			t.Logf("%d system calls left out: %s", len(l.calls), l.why)
		}
		t.Logf("also left out:\n%s", alsoLeftOut)
	}
	only, at := regexp.MustCompile(*flagOnly), regexp.MustCompile(*flagAt)
	var sum counts
	var mu sync.Mutex
	t.Cleanup(func() { // when the scenarios, which run side by side, have ended
		if bed.Inside() {
			return
		}
		t.Logf("%d system calls, of which %d repeat another one; %d steps × faults tried at %d steps, %d of them reached",
			sum.Steps, sum.Repeated, sum.Tried, sum.Points, sum.Reached)
	})
	for i, sc := range scenarios() {
		if !only.MatchString(sc.name) {
			continue
		}
		t.Run(strings.ReplaceAll(sc.name, " ", "_"), func(t *testing.T) {
			if !bed.Inside() {
				t.Parallel()
			}
			c := bed.Collect(t, bed.Options{}, func(t *testing.T, _ *bed.NS) counts {
				return walk(t, sc, at, rand.New(rand.NewPCG(seed, uint64(i))))
			})
			mu.Lock()
			defer mu.Unlock()
			sum.Steps += c.Steps
			sum.Points += c.Points
			sum.Repeated += c.Repeated
			sum.Tried += c.Tried
			sum.Reached += c.Reached
		})
	}
}

// sample chooses those that found something once, and others at random.
func sample(t *testing.T, sc *scenario, all []choice, random *rand.Rand) (chosen []choice) {
	for _, found := range sc.found {
		i := slices.IndexFunc(all, func(c choice) bool { return fmt.Sprintf("%v at %v", c.fault, c.point) == found })
		if i >= 0 {
			chosen = append(chosen, all[i])
		} else if *flagAt == "" {
			t.Errorf("%s: there is no %s any more: remove or replace it in the table of scenarios", sc.name, found)
		}
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return append(chosen, all[:min(len(all), *flagSample)]...)
}

// walk tries a scenario.
func walk(t *testing.T, sc scenario, at *regexp.Regexp, random *rand.Rand) (c counts) {
	plain := &trial{scenario: &sc, t: t}
	plain.try()
	if t.Failed() {
		return c
	}
	var all []choice
	for _, p := range plain.walk {
		c.Steps++
		if p.nth > repeats {
			c.Repeated++
			continue
		}
		for _, f := range faultsOf(p) {
			if at.MatchString(fmt.Sprintf("%v at %v", f, p)) {
				all = append(all, choice{p, f})
			}
		}
	}
	if *flagSample > 0 {
		all = sample(t, &sc, all, random)
	}
	points := make(map[point]bool)
	for _, one := range all {
		tr := &trial{scenario: &sc, t: t, at: one.point, fault: one.fault}
		tr.try()
		c.Tried++
		points[one.point] = true
		if tr.reached {
			c.Reached++
		}
		if !slices.Equal(tr.left, plain.left) && !tr.failed {
			tr.problem("in /run is\n%v\ninstead of\n%v", tr.left, plain.left)
		}
	}
	c.Points = len(points)
	t.Logf("%s: %d system calls, %d repeat another one; %d faults at %d steps, %d reached", sc.name, c.Steps, c.Repeated, c.Tried, c.Points, c.Reached)
	return c
}
