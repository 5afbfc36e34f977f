package registry

import (
	"strconv"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The writer of TestReadersAndWriter registers the versions 1 to versions of each program on tcp, in this order, and
// removes them in this order, for ever, with a new address in every round. So whatever a reader sees at one time is
// a run of neighbouring versions, in order, of one round.
const (
	concurrentPrograms = 3 * minBuckets // the index grows under the readers
	concurrentVersions = 4
	concurrentRounds   = 6
)

func roundAddr(round int) string { return "0.0.0.0.8." + strconv.Itoa(round) }

func TestReadersAndWriter(t *testing.T) {
	table := New()
	mustSet(t, table, rpcb(7_000_000, 1, rpcbind.TCP, "0.0.0.0.7.7", "superuser")) // is never touched
	done := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 3 {
		readers.Go(func() {
			for prog := uint32(i); ; prog++ {
				readAll(t, table, 1+prog%concurrentPrograms)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for round := range concurrentRounds {
		changeAll(t, table, round)
	}
	close(done)
	readers.Wait()
	if table.Len() != 1 {
		t.Errorf("%d entries remain, want 1", table.Len())
	}
}

func changeAll(t *testing.T, table *Table, round int) {
	for prog := range uint32(concurrentPrograms) {
		for vers := range uint32(concurrentVersions) {
			if err := table.Set(rpcb(1+prog, 1+vers, rpcbind.TCP, roundAddr(round), "1000")); err != nil {
				t.Errorf("Set: %v", err)
			}
		}
	}
	for prog := range uint32(concurrentPrograms) {
		for vers := range uint32(concurrentVersions) {
			if n, err := table.Unset(1+prog, 1+vers, every, "1000"); n != 1 || err != nil {
				t.Errorf("Unset = %d, %v", n, err)
			}
		}
	}
}

// readAll reads the table in every way and checks that each answer is one that the table could have at one time.
func readAll(t *testing.T, table *Table, prog uint32) {
	if e := table.Lookup(7_000_000, 1, rpcbind.TCP); e == nil || e.Addr != "0.0.0.0.7.7" {
		t.Errorf("the entry that is always there: %+v", e)
	}
	for vers := uint32(1); vers <= concurrentVersions; vers++ {
		if e := table.Lookup(prog, vers, rpcbind.TCP); e != nil &&
			(e.Program != prog || e.Version > concurrentVersions || !e.Netid.Is(rpcbind.TCP) || e.Owner != "1000") {
			t.Errorf("Lookup(%d, %d) = %+v", prog, vers, e)
		}
	}
	byProgram := make(map[uint32][]rpcbind.RPCB)
	list := listOf(t, table.RPCBs().Append(nil))
	for _, b := range list {
		byProgram[b.Program] = append(byProgram[b.Program], b)
	}
	for _, run := range byProgram {
		checkRun(t, "RPCBs", run)
	}
	if len(byProgram[7_000_000]) != 1 || list[0].Program != 7_000_000 {
		t.Error("the entry that is always there isn't the first of the dump")
	}
	mappings := mappingsOf(t, table.Mappings().Append(nil))
	if len(mappings) == 0 || mappings[0].Program != 7_000_000 || mappings[0].Port != 7*256+7 {
		t.Errorf("the entry that is always there isn't the first of the mappings: %v", mappings)
	}
	if n := table.Len(); n < 1 || n > 1+concurrentPrograms*concurrentVersions {
		t.Errorf("Len() = %d", n)
	}
}

// checkRun checks that the registrations of a program are neighbouring versions of one round, in order.
func checkRun(t *testing.T, what string, run []rpcbind.RPCB) {
	for i := 1; i < len(run); i++ {
		a, b := run[i-1], run[i]
		if b.Program != a.Program || b.Version != a.Version+1 || b.Addr != a.Addr {
			t.Errorf("%s saw %v", what, run)
			return
		}
	}
}
