package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// latency is a number of milliseconds.
var latency = regexp.MustCompile(`\d+\.\d{3}\b`)

// masked replaces times and ports, which differ from run to run.
func masked(s string, port uint16) string {
	s = latency.ReplaceAllString(s, "T")
	s = regexp.MustCompile(`time \d+ ms`).ReplaceAllString(s, "time T ms")
	return strings.ReplaceAll(s, fmt.Sprintf("127.0.0.1:%d", port), "SERVER")
}

func TestPing(t *testing.T) {
	w := testWorld(t)
	at, _ := rpcbind.ParseUAddr(program(t, &w, 2, 3))
	for _, netid := range []string{"udp", "tcp"} {
		got := runIn(t, w, "--ping --count 3 --interval 10ms -T "+netid+" 127.0.0.1 nfs")
		want := `Calling program 100003 (nfs) version 3 at ` + netid + ` SERVER
answer from SERVER: seq=1 time=T ms
answer from SERVER: seq=2 time=T ms
answer from SERVER: seq=3 time=T ms
--- program 100003 (nfs) version 3 at ` + netid + ` SERVER ---
3 calls, 3 answers, 0% loss, time T ms
min/avg/max/mdev = T/T/T/T ms
p50/p90/p99/p99.9 = T/T/T/T ms
`
		if text := masked(got.stdout, at.Port()); text != want || got.code != 0 || got.stderr != "" {
			t.Errorf("%s: exit %d\n%s%s", netid, got.code, text, got.stderr)
		}
	}
}

// A server that answers every other call, over UDP: the lost ones aren't sent again, and are counted.
func TestPingLoss(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var calls atomic.Int32
	go func() {
		buf := make([]byte, 1000)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			call, err := oncrpc.ParseCall(buf[:n])
			if err == nil && calls.Add(1)%2 == 0 {
				_, _ = conn.WriteTo(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), from)
			}
		}
	}()
	w := testWorld(t)
	at := netip.MustParseAddrPort(conn.LocalAddr().String())
	got := runIn(t, w, "--ping --count 4 --interval 10ms --timeout 300ms -a "+rpcbind.UAddr(at)+" -T udp 5 1")
	if n := strings.Count(got.stdout, "RPC: Timed out\n"); n != 2 || got.code != 0 || calls.Load() != 4 {
		t.Errorf("exit %d, %d calls:\n%s%s", got.code, calls.Load(), got.stdout, got.stderr)
	}
	if !strings.Contains(got.stdout, "4 calls, 2 answers, 50% loss") {
		t.Errorf("%s", got.stdout)
	}
}

// A connection that breaks is made again.
func TestPingReconnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var s oncrpc.Server
	defer s.Close()
	if err := s.Register(5, 1, nil); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if i < 2 { // the connection that rpcinfo looks with, and the first one that it pings by
				_ = conn.Close()
				continue
			}
			go func() { _ = s.ServeConn(conn) }()
		}
	}()
	uaddr := rpcbind.UAddr(l.Addr().(*net.TCPAddr).AddrPort())
	got := runIn(t, testWorld(t), "--ping --count 20 --interval 20ms --timeout 5 -a "+uaddr+" -T tcp 5 1")
	if !strings.Contains(got.stdout, "no answer from") || !strings.Contains(got.stdout, "seq=20 time=") || got.code != 0 {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}

func TestPingInJSON(t *testing.T) {
	w := testWorld(t)
	program(t, &w, 3)
	got := decoded(t, w, "--json --ping --count 2 --interval 10ms -u 127.0.0.1 nfs", 0)
	if len(got) != 3 || got[0]["sequence"] != 1.0 || got[2]["answers"] != 2.0 || got[2]["latency_seconds"].(map[string]any)["p99"] == nil {
		t.Errorf("%v", got)
	}
	got = decoded(t, w, "--json --ping --count 1 -u 127.0.0.1 nfs 9", 1)
	if len(got) != 2 || got[0]["error"] == nil || got[1]["loss_percent"] != 100.0 || got[1]["latency_seconds"] != nil {
		t.Errorf("%v", got)
	}
}

// An interruption ends it with what is known by then.
func TestPingInterrupted(t *testing.T) {
	w := testWorld(t)
	program(t, &w, 3)
	var out interrupting
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	out.interrupt = interrupt
	w.stdout, w.stderr = &out, &out
	if code := run(ctx, strings.Fields("rpcinfo --ping --interval 10ms -t 127.0.0.1 nfs 3"), w); code != 0 || !strings.Contains(out.String(), " 0% loss") {
		t.Errorf("exit %d\n%s", code, out.String())
	}
}

// interrupting collects what is printed, and interrupts when the first answer is.
type interrupting struct {
	strings.Builder
	interrupt func()
}

func (i *interrupting) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "seq=1 ") {
		i.interrupt()
	}
	return i.Builder.Write(p)
}

func TestPercentiles(t *testing.T) {
	var sorted []time.Duration
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for thousandths, want := range map[int]time.Duration{0: 1, 1: 1, 500: 500, 900: 900, 990: 990, 999: 999, 1000: 1000} {
		if got := percentile(sorted, thousandths); got != want {
			t.Errorf("%d thousandths: %d, want %d", thousandths, got, want)
		}
	}
	if percentile(nil, 500) != 0 || percentile(sorted[:1], 999) != 1 {
		t.Error("of none or one")
	}
}

// However long it runs, memory stays bounded.
func TestLatenciesAreBounded(t *testing.T) {
	l := &latencies{a: &asker{opt: &options{}, out: io.Discard}}
	for i := range kept + 5 {
		l.add(pinged{sequence: i, took: time.Duration(i)})
	}
	if len(l.last) != kept || l.received != kept+5 || l.least != 0 || l.most != time.Duration(kept+4) {
		t.Errorf("%d kept of %d", len(l.last), l.received)
	}
}
