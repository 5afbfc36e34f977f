package bed_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

var ratio = flag.Bool("bed.ratio", false, "measure gportmap against rpcbind (make bench)")

// ratioRounds is how often each daemon is measured, in turn: machines are noisy, and only what was measured side by
// side can be compared.
const ratioRounds = 5

// A load is a way of asking that is measured.
type load struct {
	name     string
	network  string
	sockets  int
	inFlight int // calls sent by a socket before their replies are read
	programs int // registered
}

var loads = []load{
	{"UDP GETPORT, 4 sockets, 32 in flight each", "udp", 4, 32, 10},
	{"the same, 1,000 programs registered", "udp", 4, 32, 1000},
	{"UDP GETPORT, one at a time", "udp", 1, 1, 10},
	{"TCP GETPORT, 1 connection, 64 in flight", "tcp", 1, 64, 10},
}

// measured is a load's result for one daemon in one round.
type measured struct {
	Rate float64 // calls answered in a second
	CPU  float64 // microseconds of the daemon's processor time a call, from the kernel's accounting
}

// TestRatio prints how gportmap compares with rpcbind on this machine, as medians of rounds in which the two were
// measured one after the other.
func TestRatio(t *testing.T) {
	if !*ratio {
		t.Skip("a measurement, no test: make bench runs it")
	}
	bed.NeedRpcbind(t)
	type pair struct{ Rpcbind, Gportmap []measured }
	results := bed.Collect(t, bed.Options{}, func(t *testing.T, ns *bed.NS) []pair {
		pairs := make([]pair, len(loads))
		for range ratioRounds {
			for i, l := range loads {
				pairs[i].Rpcbind = append(pairs[i].Rpcbind, l.measure(t, ns, bed.Rpcbind))
				pairs[i].Gportmap = append(pairs[i].Gportmap, l.measure(t, ns, bed.Gportmap))
			}
		}
		return pairs
	})
	if bed.Inside() {
		return
	}
	fmt.Printf("%-44s %21s %21s %s\n", "", "rpcbind", "gportmap", "ratio")
	for i, l := range loads {
		r, g := median(results[i].Rpcbind), median(results[i].Gportmap)
		fmt.Printf("%-44s %8.0f/s %6.1f µs %10.0f/s %6.1f µs  calls ×%.1f, CPU a call ×%.2f\n", l.name,
			r.Rate, r.CPU, g.Rate, g.CPU, g.Rate/r.Rate, g.CPU/r.CPU)
	}
}

// median returns the medians of rate and CPU time, each by itself.
func median(m []measured) measured {
	middle := func(value func(measured) float64) float64 {
		v := make([]float64, len(m))
		for i := range m {
			v[i] = value(m[i])
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return measured{middle(func(m measured) float64 { return m.Rate }), middle(func(m measured) float64 { return m.CPU })}
}

const ratioTime = 700 * time.Millisecond

func (l load) measure(t *testing.T, ns *bed.NS, s bed.Subject) measured {
	ns.ForgetRegistrations(t) // the daemon before this one had others
	d := ns.Start(t, s)
	defer d.Stop()
	registerPrograms(t, l.programs)
	conns := make([]net.Conn, l.sockets)
	for i := range conns {
		c, err := net.Dial(l.network, "127.0.0.1:111")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	before := processorTime(t, d.PID())
	begin := time.Now()
	counts := make(chan int, len(conns))
	errs := make(chan error, len(conns))
	for _, c := range conns {
		go func() {
			n, err := l.ask(c, begin.Add(ratioTime))
			counts <- n
			errs <- err
		}()
	}
	calls := 0
	for range conns {
		calls += <-counts
		if err := <-errs; err != nil {
			t.Fatalf("%v: %s: %v", s, l.name, err)
		}
	}
	took := time.Since(begin)
	used := processorTime(t, d.PID()) - before
	return measured{float64(calls) / took.Seconds(), float64(used.Microseconds()) / float64(calls)}
}

// firstProgram is the first of the programs that are registered for a measurement, on port 2049.
const firstProgram = 0x20000000

func registerPrograms(t *testing.T, programs int) {
	c, err := rpcbind.DialPortmapper(t.Context(), "unix", rpcbind.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range programs {
		ok, err := c.Set(t.Context(), rpcbind.RPCB{Program: firstProgram + uint32(i), Version: 1, Netid: rpcbind.TCP, Addr: "0.0.0.0.8.1"})
		if err != nil || !ok {
			t.Fatalf("SET: %v, %v", ok, err)
		}
	}
}

// ask calls GETPORT of the program registered last until the time is over, and returns how many calls were answered.
// Each reply has to be the right one.
func (l load) ask(c net.Conn, until time.Time) (int, error) {
	if err := c.SetDeadline(until.Add(5 * time.Second)); err != nil {
		return 0, err
	}
	stream := l.network == "tcp"
	call := getPortCall(firstProgram + uint32(l.programs) - 1)
	const replySize = oncrpc.AcceptedHeaderSize + 4
	var out []byte
	calls := 0
	in := make([]byte, 64<<10)
	for time.Now().Before(until) {
		out = out[:0]
		for i := range l.inFlight {
			binary.BigEndian.PutUint32(call, uint32(calls+i))
			if !stream {
				if _, err := c.Write(call); err != nil {
					return calls, err
				}
				continue
			}
			out = append(oncrpc.BeginRecord(out), call...)
			oncrpc.EndRecord(out, len(out)-len(call)-oncrpc.RecordMarkSize)
		}
		if stream {
			if _, err := c.Write(out); err != nil {
				return calls, err
			}
		}
		for got := 0; got < l.inFlight; {
			n, err := c.Read(in)
			if err != nil {
				return calls, err
			}
			if !stream {
				if n != replySize || binary.BigEndian.Uint32(in[n-4:]) != 2049 {
					return calls, fmt.Errorf("a reply of %d octets: %x", n, in[:n])
				}
				got++
				continue
			}
			if n%(replySize+oncrpc.RecordMarkSize) != 0 {
				return calls, fmt.Errorf("replies of %d octets in one read", n)
			}
			got += n / (replySize + oncrpc.RecordMarkSize)
		}
		calls += l.inFlight
	}
	return calls, nil
}

func getPortCall(program uint32) []byte {
	args := rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: program, Version: 1, Prot: rpcbind.ProtTCP})
	return oncrpc.AppendCall(nil, oncrpc.Call{
		Program: rpcbind.Program, Version: rpcbind.PMAPVers, Procedure: rpcbind.ProcGetPort, Args: args,
	})
}

// processorTime returns the user and system time of a process, in the kernel's ticks of 10 ms (proc_pid_stat(5)).
func processorTime(t *testing.T, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the command name may have blanks
	fields := strings.Fields(rest)
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
