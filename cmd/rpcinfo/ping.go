package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// pingInterval is the time between two calls unless --interval says something else.
const pingInterval = time.Second

// kept is the number of latencies that percentiles are made of: those of the last calls.
const kept = 100_000

// ping calls the procedure that does nothing again and again, and tells how long each answer took. Without a version it
// calls the highest that the server has.
func (p *prober) ping(ctx context.Context, vers uint32) (answer, error) {
	if len(p.a.opt.args) < 2 {
		low, high, failed := p.versions(ctx)
		if failed != nil {
			return nil, notCalled("rpcinfo", failed.failed)
		}
		if err := p.believe(low, high); err != nil {
			return nil, err
		}
		vers = high
	}
	l := &latencies{a: p.a, program: p.program, version: vers, netid: p.client.netid, address: p.client.uaddr(), where: p.client.where()}
	if !p.a.opt.json {
		if err := p.a.print("Calling " + l.what(p.a.names) + "\n"); err != nil {
			return nil, err
		}
	}
	line := &pingLine{a: *p.a}
	line.a.pinging = true
	var failed *rpcError
	if line.client, failed = line.redial(ctx, p.client); failed != nil {
		return nil, notCreated("rpcinfo", failed)
	}
	defer func() { line.client.close() }()
	l.run(ctx, line)
	if l.printing != nil {
		return nil, l.printing
	}
	if l.received == 0 {
		return l, errFailed
	}
	return l, nil
}

// pingLine is the connection of a ping, which is made again when it breaks.
type pingLine struct {
	a       asker
	mu      sync.Mutex
	client  *client
	broken  *rpcError // why it has to be made again
	dialing bool
}

// redial makes a client of the same address.
func (l *pingLine) redial(ctx context.Context, old *client) (*client, *rpcError) {
	t, _ := l.a.nets.find(old.netid)
	return l.a.dialAt(ctx, t, service{at: old.at, path: old.path})
}

// call calls once.
func (l *pingLine) call(ctx context.Context, prog, vers uint32) (time.Duration, *rpcError) {
	c, failed := l.connected(ctx)
	if failed != nil {
		return 0, failed
	}
	begin := time.Now()
	failed = c.null(ctx, prog, vers)
	took := time.Since(begin)
	if failed == nil || strings.HasPrefix(c.netid, "udp") {
		return took, failed
	}
	if failed.status == cantReceive || failed.status == cantSend || failed.status == cantDecodeResult {
		l.mu.Lock()
		if l.client == c {
			l.broken = failed
		}
		l.mu.Unlock()
	}
	return took, failed
}

// connected returns a connection that works as far as is known. While one call makes a new one, others fail.
func (l *pingLine) connected(ctx context.Context) (*client, *rpcError) {
	l.mu.Lock()
	old, broken := l.client, l.broken
	if broken == nil || l.dialing {
		l.mu.Unlock()
		return old, broken
	}
	l.dialing = true
	l.mu.Unlock()
	c, failed := l.redial(ctx, old)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialing = false
	if l.broken = failed; failed != nil {
		return nil, failed
	}
	old.close()
	l.client = c
	return c, nil
}

// pinged is what became of a call.
type pinged struct {
	sequence int
	took     time.Duration
	failed   *rpcError
}

// latencies are what is known of the calls.
type latencies struct {
	a                     *asker
	program, version      uint32
	netid, address, where string
	sent, received        int
	all                   time.Duration // from the first call to the last answer
	sum, squares          float64       // of seconds
	least, most           time.Duration
	last                  []time.Duration // at most kept of them
	printing              error
}

// run calls until it is interrupted, or so often, and waits for the answers that are left. What is on its way when it is
// interrupted isn't waited for, and doesn't count.
func (l *latencies) run(ctx context.Context, line *pingLine) {
	interval := l.a.opt.interval
	if interval == 0 {
		interval = pingInterval
	}
	begun := time.Now()
	results := make(chan pinged)
	send := func() {
		l.sent++
		sequence := l.sent
		go func() {
			took, failed := line.call(ctx, l.program, l.version)
			results <- pinged{sequence, took, failed}
		}()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	send()
	for onTheirWay := 1; onTheirWay > 0 || !l.finished(ctx); {
		select {
		case <-tick.C:
			if !l.finished(ctx) {
				send()
				onTheirWay++
			}
		case r := <-results:
			onTheirWay--
			if r.failed != nil && ctx.Err() != nil {
				l.sent--
				continue
			}
			l.add(r)
		}
	}
	l.all = time.Since(begun)
}

// finished tells whether no more calls are to be made.
func (l *latencies) finished(ctx context.Context) bool {
	return ctx.Err() != nil || l.printing != nil || l.a.opt.count != 0 && l.sent >= l.a.opt.count
}

// add counts an answer and tells of it.
func (l *latencies) add(r pinged) {
	if r.failed == nil {
		if l.received == 0 || r.took < l.least {
			l.least = r.took
		}
		l.most = max(l.most, r.took)
		if len(l.last) < kept {
			l.last = append(l.last, r.took)
		} else {
			l.last[l.received%kept] = r.took
		}
		l.received++
		l.sum += r.took.Seconds()
		l.squares += r.took.Seconds() * r.took.Seconds()
	}
	if err := l.tell(r); err != nil && l.printing == nil {
		l.printing = err
	}
}

func (l *latencies) tell(r pinged) error {
	switch {
	case l.a.opt.json && r.failed == nil:
		return l.a.printJSON(jsonPing{Sequence: r.sequence, Seconds: r.took.Seconds()})
	case l.a.opt.json:
		return l.a.printJSON(jsonPing{Sequence: r.sequence, Error: r.failed.called()})
	case r.failed == nil:
		return l.a.printf("answer from %s: seq=%d time=%s ms\n", printable(l.where), r.sequence, milliseconds(r.took))
	}
	return l.a.printf("no answer from %s: seq=%d %s\n", printable(l.where), r.sequence, printable(r.failed.called()))
}

type jsonPing struct {
	Sequence int     `json:"sequence"`
	Seconds  float64 `json:"seconds,omitempty"`
	Error    string  `json:"error,omitempty"`
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()*1000) }

// loss is the share of calls without an answer, in percent.
func (l *latencies) loss() float64 {
	if l.sent == 0 {
		return 0
	}
	return 100 * float64(l.sent-l.received) / float64(l.sent)
}

func (l *latencies) average() float64 { return l.sum / float64(l.received) }

// deviation is the standard deviation in seconds.
func (l *latencies) deviation() float64 {
	return math.Sqrt(max(0, l.squares/float64(l.received)-l.average()*l.average()))
}

// percentile returns the smallest latency that so many thousandths of the last answers needed at most.
func percentile(sorted []time.Duration, thousandths int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max((len(sorted)*thousandths+999)/1000, 1)-1]
}

// what tells what is called.
func (l *latencies) what(n names) string {
	s := fmt.Sprintf("program %d", l.program)
	if name := n.of(l.program, ""); name != "" {
		s += " (" + name + ")"
	}
	return fmt.Sprintf("%s version %d at %s %s", s, l.version, l.netid, printable(l.where))
}

func (l *latencies) text(n names) string {
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s ---\n", l.what(n))
	fmt.Fprintf(&b, "%d calls, %d answers, %.3g%% loss, time %d ms\n", l.sent, l.received, l.loss(), l.all.Milliseconds())
	if l.received == 0 {
		return b.String()
	}
	slices.Sort(l.last)
	fmt.Fprintf(&b, "min/avg/max/mdev = %s/%.3f/%s/%.3f ms\n", milliseconds(l.least), l.average()*1000, milliseconds(l.most), l.deviation()*1000)
	fmt.Fprintf(&b, "p50/p90/p99/p99.9 = %s/%s/%s/%s ms\n", milliseconds(percentile(l.last, 500)), milliseconds(percentile(l.last, 900)),
		milliseconds(percentile(l.last, 990)), milliseconds(percentile(l.last, 999)))
	return b.String()
}

func (l *latencies) json(n names) any {
	slices.Sort(l.last)
	v := struct {
		Host string `json:"host,omitempty"`
		jsonProgram
		Version uint32             `json:"version"`
		Netid   string             `json:"netid"`
		Address string             `json:"address"`
		Calls   int                `json:"calls"`
		Answers int                `json:"answers"`
		Loss    float64            `json:"loss_percent"`
		Seconds float64            `json:"seconds"`
		Latency map[string]float64 `json:"latency_seconds,omitempty"`
	}{Host: l.a.host, jsonProgram: n.json(l.program), Version: l.version, Netid: l.netid, Address: l.address,
		Calls: l.sent, Answers: l.received, Loss: l.loss(), Seconds: l.all.Seconds()}
	if l.received > 0 {
		v.Latency = map[string]float64{"min": l.least.Seconds(), "max": l.most.Seconds(), "avg": l.average(), "mdev": l.deviation()}
		for name, thousandths := range map[string]int{"p50": 500, "p90": 900, "p99": 990, "p99.9": 999} {
			v.Latency[name] = percentile(l.last, thousandths).Seconds()
		}
	}
	return v
}
