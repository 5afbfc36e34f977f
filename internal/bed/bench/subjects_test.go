package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The processors. With one processor both are the same, and the figures are those of both sides together.
const serverCPU = 0

func generatorCPU() int { return min(1, runtime.NumCPU()-1) }

// pin keeps the calling thread, which has to be locked, and what it starts on one processor.
func pin(t testing.TB, cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Fatalf("pin to processor %d: %v", cpu, err)
	}
}

// A subject is what is measured. All three run at the same time, and one of them is asked at a time.
type subject struct {
	name  string
	port  int
	local string // path of its socket

	pids map[string]int // by "udp", "tcp", "local"
}

const (
	rpcbindName   = "rpcbind"
	gportmapName  = "gportmap"
	responderName = "C responder"
)

// startSubjects starts rpcbind on its port and the other two beside it, all pinned to the server's processor.
func startSubjects(t *testing.T, ns *bed.NS, entries int) []*subject {
	pin(t, serverCPU)
	defer pin(t, generatorCPU())
	oracle := &subject{name: rpcbindName, port: rpcbind.Port, local: rpcbind.SocketPath}
	oracle.runs(ns.Start(t, bed.Rpcbind).PID())
	return []*subject{oracle, startGportmap(t, ns), startResponder(t, entries)}
}

func startGportmap(t *testing.T, ns *bed.NS) *subject {
	// Below /run, in memory, as the system's portmappers have it.
	const dir = "/run/gportmap"
	s := &subject{name: gportmapName, port: 1111, local: filepath.Join(dir, "rpcbind.sock")}
	d := ns.StartBare(t, bed.Gportmap, "--port", strconv.Itoa(s.port), "--state-dir", dir)
	s.runs(d.PID())
	s.await(t)
	return s
}

func startResponder(t *testing.T, entries int) *subject {
	s := &subject{name: responderName, port: 1112, local: filepath.Join(t.TempDir(), "responder.sock"), pids: map[string]int{}}
	program := filepath.Join(t.TempDir(), "responder")
	if out, err := exec.Command("gcc", "-O2", "-Wall", "-o", program, "testdata/responder.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for kind, at := range map[string]string{"udp": strconv.Itoa(s.port), "tcp": strconv.Itoa(s.port), "local": s.local} {
		c := exec.Command(program, kind, at, strconv.Itoa(entries))
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		s.pids[kind] = c.Process.Pid
	}
	s.await(t)
	return s
}

// runs says that one process serves all transports.
func (s *subject) runs(pid int) { s.pids = map[string]int{"udp": pid, "tcp": pid, "local": pid} }

// await returns when the local socket takes connections.
func (s *subject) await(t *testing.T) {
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		fd, err := dialStream(&unix.SockaddrUnix{Name: s.local})
		if err == nil {
			unix.Close(fd)
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s doesn't listen on %s: %v", s.name, s.local, err)
		}
	}
}

func (s *subject) tcp() unix.Sockaddr {
	return &unix.SockaddrInet4{Port: s.port, Addr: [4]byte{127, 0, 0, 1}}
}

func (s *subject) unix() unix.Sockaddr { return &unix.SockaddrUnix{Name: s.local} }

// register registers programs from the one numbered from to the one before to.
func (s *subject) register(t *testing.T, from, to int) {
	c, err := rpcbind.DialPortmapper(t.Context(), "unix", s.local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := from; i < to; i++ {
		ok, err := c.Set(t.Context(), registration(i))
		if err != nil || !ok {
			t.Fatalf("%s: SET number %d: %v, %v", s.name, i, ok, err)
		}
	}
}

func registration(i int) rpcbind.RPCB {
	return rpcbind.RPCB{Program: firstProgram + uint32(i), Version: 1, Netid: rpcbind.UDP, Addr: "0.0.0.0.8.1"}
}

// processorTime returns the user and system time of a process, all its threads together, as the kernel's scheduler counts
// it, in nanoseconds (clock_getcpuclockid(3)).
func processorTime(t testing.TB, pid int) time.Duration {
	const cpuClockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &ts); err != nil {
		t.Fatalf("processor time of process %d: %v", pid, err)
	}
	return time.Duration(ts.Nano())
}

// resident returns the resident memory of a process in KiB.
func resident(t testing.TB, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	var kib int
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		t.Fatalf("VmRSS of process %d: %v", pid, err)
	}
	return kib
}
