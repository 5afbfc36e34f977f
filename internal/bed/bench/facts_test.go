package bench_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A fact is a figure that a daemon has by itself, measured of rpcbind and of gportmap in turn.
type fact struct {
	Title  string             `json:"title"`
	Unit   string             `json:"unit"`
	Values map[string]float64 `json:"values"` // by subject
	Limit  float64            `json:"limit,omitempty"`
}

func (f fact) met() bool { return f.Limit == 0 || f.Values[gportmapName] <= f.Limit }

// facts collects them in the order in which they are first told.
type facts struct {
	list []fact
	name string // of the subject
}

func (f *facts) tell(title, unit string, limit, value float64) {
	for i := range f.list {
		if f.list[i].Title == title {
			f.list[i].Values[f.name] = value
			return
		}
	}
	f.list = append(f.list, fact{title, unit, map[string]float64{f.name: value}, limit})
}

// measureFacts starts the daemons one after the other, each as the system's portmapper.
func measureFacts(t *testing.T, ns *bed.NS, p plan) []fact {
	var all facts
	for _, which := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		ns.ForgetRegistrations(t)
		all.name = which.String()
		h := &host{t: t, ns: ns, which: which, plan: p, facts: &all}
		h.start()
		h.memory()
		h.many()
		h.daemon.Stop()
		ns.ForgetRegistrations(t)
	}
	path, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	all.tell("static program file", "MB", 8, float64(info.Size())/1e6)
	return all.list
}

// host is one daemon under measurement.
type host struct {
	*facts
	t      *testing.T
	ns     *bed.NS
	which  bed.Subject
	plan   plan
	daemon *bed.Daemon
}

func (h *host) tcp() unix.Sockaddr {
	return &unix.SockaddrInet4{Port: rpcbind.Port, Addr: [4]byte{127, 0, 0, 1}}
}

// start starts the daemon on the server's processor and returns how long its first answer took.
func (h *host) start() time.Duration {
	pin(h.t, serverCPU)
	begin := time.Now()
	h.daemon = h.ns.StartBare(h.t, h.which)
	pin(h.t, generatorCPU())
	null := exchange{call: newCall(rpcbind.PMAPVers, rpcbind.ProcNull, nil), reply: newReply(nil)}
	for time.Since(begin) < 20*time.Second {
		w, err := newWindow(rpcbind.Port, 1, null)
		if err != nil {
			h.t.Fatal(err)
		}
		var got tally
		if err = w.socket.setTimeout(5 * time.Millisecond); err == nil {
			err = w.send(1, time.Now())
		}
		if err == nil {
			_, err = w.receive(&got, unix.MSG_WAITFORONE)
		}
		w.socket.close()
		if got.answered == 1 {
			return time.Since(begin)
		}
	}
	h.t.Fatalf("%v doesn't answer", h.which)
	return 0
}

// memory measures the start, and the resident memory with few and with many registrations.
func (h *host) memory() {
	var starts []float64
	for range 3 * h.plan.rounds {
		h.daemon.Stop()
		h.ns.ForgetRegistrations(h.t)
		starts = append(starts, micros(h.start())/1000)
	}
	h.tell("start to first answer", "ms", 10, middleOf(starts))
	time.Sleep(h.plan.time)
	h.tell("resident memory, idle", "MiB", 7, float64(resident(h.t, h.daemon.PID()))/1024)
	many := fmt.Sprintf("with %s registrations", grouped(float64(h.plan.many)))
	s := &subject{name: h.which.String(), local: rpcbind.SocketPath}
	s.await(h.t)
	s.register(h.t, 0, h.plan.many)
	h.tell("resident memory "+many, "MiB", 12, float64(resident(h.t, h.daemon.PID()))/1024)
	h.daemon.Stop()
	took := h.start()
	t, err := oneAtATime(rpcbind.Port, getPort(firstProgram+uint32(h.plan.many-1)), h.plan.time/10)
	switch {
	case err == nil && t.answered > 0 && t.wrong == 0:
		h.tell("start to first answer "+many+" to restore", "ms", 20, micros(took)/1000)
	case h.which == bed.Rpcbind: // it may not have been allowed to write them
		s.await(h.t)
		s.register(h.t, 0, h.plan.many)
	default:
		h.t.Errorf("%v: what was registered isn't restored: %d answers, %d wrong, %v", h.which, t.answered, t.wrong, err)
	}
}

// many measures what the daemon does under many, or bad, clients.
func (h *host) many() {
	e := getPort(firstProgram)
	b, err := burst(rpcbind.Port, 1024, e)
	h.must(err)
	h.tell("lost of 1,024 calls at once", "calls", 0, float64(b.lost))
	h.idleConnections(e)
	h.abusers(e)
	h.madeUp()
	h.random(e)
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%v: %v", h.which, err)
	}
}

// idleConnections holds connections that never call.
func (h *host) idleConnections(e exchange) {
	n := h.plan.connections
	name := grouped(float64(n)) + " idle TCP connections: "
	before, err := oneAtATime(rpcbind.Port, e, h.plan.time)
	h.must(err)
	rss := resident(h.t, h.daemon.PID())
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for range n {
		fd, err := dialStream(h.tcp())
		h.must(err)
		fds = append(fds, fd)
	}
	if _, err := connectPerCall(rpcbind.Port, e, h.plan.time/10); err != nil { // all are accepted before this one is
		h.t.Logf("%v with %d idle connections: %v", h.which, n, err)
	}
	h.tell(name+"memory for each", "octets", 1024, float64(resident(h.t, h.daemon.PID())-rss)*1024/float64(n))
	used := processorTime(h.t, h.daemon.PID())
	time.Sleep(h.plan.time)
	used = processorTime(h.t, h.daemon.PID()) - used
	h.tell(name+"processor while nobody calls", "%", 0, 100*used.Seconds()/h.plan.time.Seconds())
	after, err := oneAtATime(rpcbind.Port, e, h.plan.time)
	h.must(err)
	h.tell(name+"UDP median over that without", "×", 0, after.latency.quantile(.5)/before.latency.quantile(.5))
	fresh, err := connectPerCall(rpcbind.Port, e, h.plan.time)
	if err != nil {
		h.t.Logf("%v with %d idle connections: %v", h.which, n, err)
		return
	}
	h.tell(name+"a new one is answered, p99.9", "ms", 10, fresh.latency.quantile(.999)/1000)
}

// abusers sends half records, endless fragments and calls whose replies nobody reads, and looks how long others wait.
func (h *host) abusers(e exchange) {
	rss := resident(h.t, h.daemon.PID())
	stop := make(chan struct{})
	ended := make(chan struct{})
	kinds := []func(stop <-chan struct{}){
		h.abuser(strings.Repeat(string(record(dump().call)), 200)),
		h.abuser(strings.Repeat("\x00\x00\x00\x01x", 1000)),
		h.abuser(string(record(e.call)[:30])),
	}
	started := 0
	for _, kind := range kinds {
		for range h.plan.abusers {
			started++
			go func() {
				defer func() { ended <- struct{}{} }()
				kind(stop)
			}()
		}
	}
	time.Sleep(20 * time.Millisecond)
	longest := time.Duration(0)
	for begin := time.Now(); time.Since(begin) < 4*h.plan.time; {
		t, err := oneAtATime(rpcbind.Port, e, time.Millisecond)
		h.must(err)
		longest = max(longest, t.latency.worst)
		if t.lost > 0 {
			longest = max(longest, lostAfter)
		}
		s, err := pipelined(h.tcp(), 1, e, time.Millisecond)
		longest = max(longest, s.latency.worst)
		if err != nil {
			longest = max(longest, silentFor)
			break
		}
	}
	grown := float64(resident(h.t, h.daemon.PID())-rss) / 1024 / float64(started)
	close(stop)
	for range started {
		<-ended
	}
	name := fmt.Sprintf("%d clients that don't read, send half records or endless fragments: ", started)
	h.tell(name+"longest silence for others", "ms", 20, micros(longest)/1000)
	h.tell(name+"memory for each", "MiB", 1, grown)
}

// abuser returns what sends something again and again, on new connections where it has to, and reads nothing.
func (h *host) abuser(what string) func(stop <-chan struct{}) {
	return func(stop <-chan struct{}) {
		for {
			fd, err := dialStream(h.tcp())
			for err == nil {
				select {
				case <-stop:
					unix.Close(fd)
					return
				default:
				}
				_, err = unix.SendmsgN(fd, []byte(what), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
				if err == unix.EAGAIN {
					err = nil
				}
				time.Sleep(2 * time.Millisecond)
			}
			unix.Close(fd)
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// madeUp asks for programs that nobody registered, each for the first time.
func (h *host) madeUp() {
	n := h.plan.madeUp
	if h.which == bed.Rpcbind {
		n /= 20 // it would take minutes
	}
	e := exchange{call: getPort(0).call, reply: newReply([]byte{0, 0, 0, 0})}
	before, err := oneAtATime(rpcbind.Port, getPort(firstProgram), h.plan.time)
	h.must(err)
	rss := 0
	w, err := newWindow(rpcbind.Port, 64, e)
	h.must(err)
	defer w.socket.close()
	h.must(w.socket.setTimeout(lostAfter))
	var t tally
	const program = firstProgram + 10_000_000
	for asked := 0; asked < n; {
		if rss == 0 && asked > n/4 { // what it needs for so many calls it has by now
			rss = resident(h.t, h.daemon.PID())
		}
		k := 64 - w.inFlight
		for i := range k {
			putWord(w.socket.calls[i][callHeader:], uint32(program+asked+i))
		}
		h.must(w.send(k, time.Now()))
		asked += k
		if got, err := w.receive(&t, unix.MSG_WAITFORONE); err != nil || got == 0 {
			h.must(err)
			w.giveUp(&t)
		}
	}
	h.must(collect([]*window{w}, &t))
	after, err := oneAtATime(rpcbind.Port, getPort(firstProgram), h.plan.time)
	h.must(err)
	name := fmt.Sprintf("%s made-up programs (rpcbind: %s): ", grouped(float64(h.plan.madeUp)), grouped(float64(h.plan.madeUp/20)))
	h.tell(name+"UDP median over that before", "×", 0, after.latency.quantile(.5)/before.latency.quantile(.5))
	h.tell(name+"memory grown after the first quarter", "MiB", 1, float64(resident(h.t, h.daemon.PID())-rss)/1024)
}

// random sends datagrams of random octets, among them calls with random ends.
func (h *host) random(e exchange) {
	w, err := newWindow(rpcbind.Port, 32, e)
	h.must(err)
	defer w.socket.close()
	rss := 0
	r := rand.New(rand.NewPCG(1, 2))
	for begin := time.Now(); time.Since(begin) < h.plan.soak; {
		for i, b := range w.socket.calls {
			from := []int{0, 4, 24, callHeader}[r.IntN(4)]
			copy(b, e.call)
			for j := from; j < len(b); j++ {
				b[j] = byte(r.Uint32())
			}
			w.socket.outIovs[i].SetLen(1 + r.IntN(len(b)))
		}
		h.must(w.socket.sendCalls(len(w.socket.calls)))
		if _, err := w.socket.receive(unix.MSG_DONTWAIT); err != nil && err != io.EOF {
			h.must(err)
		}
		if rss == 0 && time.Since(begin) > h.plan.soak/4 { // what it needs for that it has by now
			rss = resident(h.t, h.daemon.PID())
		}
	}
	h.tell(fmt.Sprintf("%v of random datagrams: memory grown after the first quarter", h.plan.soak), "MiB", 1, float64(resident(h.t, h.daemon.PID())-rss)/1024)
	for until := time.Now().Add(20 * time.Second); ; {
		t, err := oneAtATime(rpcbind.Port, e, h.plan.time)
		if h.must(err); t.answered > 0 {
			return
		}
		if time.Now().After(until) {
			h.t.Fatalf("%v doesn't answer after random datagrams", h.which)
		}
	}
}
