package admin

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/metrics"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func from(addr string) portmap.Caller {
	return portmap.Caller{Transport: portmap.UDP, Remote: netip.MustParseAddrPort(addr)}
}

func callOf(version, procedure uint32, args []byte) oncrpc.Call {
	return oncrpc.Call{XID: 1, Program: rpcbind.Program, Version: version, Procedure: procedure, Args: args}
}

func success(results ...byte) []byte {
	return append(oncrpc.AppendAccepted(nil, 1, oncrpc.Success), results...)
}

func word(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name      string
		procedure uint32
		reply     []byte
		want      metrics.Verdict
	}{
		{"silence", 3, nil, metrics.Silence},
		{"not a reply", 3, []byte{1, 2, 3}, metrics.Silence},
		{"NULL", 0, success(), metrics.OK},
		{"GETPORT hit", 3, success(word(2049)...), metrics.OK},
		{"GETPORT miss", 3, success(word(0)...), metrics.Miss},
		{"GETADDR hit", 3, success(xdr.AppendString(nil, "1.2.3.4.8.1")...), metrics.OK},
		{"GETVERSADDR miss", 9, success(xdr.AppendString(nil, "")...), metrics.Miss},
		{"SET TRUE", 1, success(word(1)...), metrics.OK},
		{"SET FALSE", 1, success(word(0)...), metrics.No},
		{"UNSET FALSE", 2, success(word(0)...), metrics.No},
		{"empty DUMP", 4, success(word(0)...), metrics.OK},
		{"too weak", 4, oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak), metrics.TooWeak},
		{"bad credential", 0, oncrpc.AppendAuthError(nil, 1, oncrpc.AuthBadCred), metrics.Denied},
		{"RPC version", 0, oncrpc.AppendRPCMismatch(nil, 1), metrics.Denied},
		{"program", 0, oncrpc.AppendAccepted(nil, 1, oncrpc.ProgUnavail), metrics.Unavailable},
		{"version", 0, oncrpc.AppendProgMismatch(nil, 1, 2, 4), metrics.Unavailable},
		{"garbage", 3, oncrpc.AppendAccepted(nil, 1, oncrpc.GarbageArgs), metrics.Garbage},
		{"too large", 4, oncrpc.AppendAccepted(nil, 1, oncrpc.SystemErr), metrics.SystemErr},
	} {
		call := oncrpc.Call{Procedure: c.procedure}
		if got := verdict(&call, c.reply); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestEvents(t *testing.T) {
	r := NewRecorder()
	local := portmap.Caller{Transport: portmap.Local, UID: 1000, HasUID: true}
	b := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 300000, Version: 2, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "x"})
	r.Called(local, callOf(4, rpcbind.ProcSet, b), success(word(1)...))
	m := rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 300000, Version: 2, Prot: 17, Port: 700})
	r.Called(from("10.0.0.1:900"), callOf(2, rpcbind.ProcUnset, m), oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak))
	r.Called(from("10.0.0.1:900"), callOf(2, rpcbind.ProcDump, nil), oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak)) // at once
	r.Called(local, callOf(4, rpcbind.ProcGetAddr, b), success(word(0)...))                                              // a miss is no event

	changes, refused := r.Events()
	if len(changes) != 1 || len(refused) != 2 || refused[0].Procedure != "DUMP" {
		t.Fatalf("changes %+v, refused %+v", changes, refused)
	}
	c, f := changes[0], refused[1]
	if c.Peer != "uid 1000" || c.Procedure != "SET" || c.Program != 300000 || c.Version != 2 || c.Netid != "tcp" || c.Address != "0.0.0.0.8.1" {
		t.Errorf("change %+v", c)
	}
	if f.Peer != "udp 10.0.0.1:900" || f.Procedure != "UNSET" || f.Verdict != "too_weak" || f.Netid != "udp" || f.Port != 700 {
		t.Errorf("refused %+v", f)
	}
}

// TestEventOf has arguments as callers may send them.
func TestEventOf(t *testing.T) {
	long := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Netid: rpcbind.Netid(strings.Repeat("n", 9000)), Addr: strings.Repeat("a", 9000)})
	for _, args := range [][]byte{nil, long, long[:2000], {0xff}, word(1 << 31)} {
		for version := range uint32(6) {
			for procedure := range uint32(14) {
				call := oncrpc.Call{Program: 100000, Version: version, Procedure: procedure, Args: args}
				e := event(from("10.0.0.1:1"), &call, metrics.TooWeak)
				if len(e.Netid) > maxText+3 || len(e.Address) > maxText+3 {
					t.Fatalf("version %d, procedure %d: %d and %d octets are kept", version, procedure, len(e.Netid), len(e.Address))
				}
			}
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	r := NewRecorder()
	for i := range 3*kept + 5 {
		m := rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: uint32(i), Prot: 6})
		r.Called(portmap.Caller{Transport: portmap.Local}, callOf(2, rpcbind.ProcSet, m), success(word(1)...))
	}
	changes, _ := r.Events()
	if len(changes) != kept || changes[0].Program != 3*kept+4 || changes[kept-1].Program != 2*kept+5 {
		t.Errorf("%d changes, from %d to %d", len(changes), changes[0].Program, changes[len(changes)-1].Program)
	}
}

func TestClients(t *testing.T) {
	r := NewRecorder()
	at := time.Unix(1000, 0)
	one, local := from("10.0.0.1:900"), portmap.Caller{Transport: portmap.Local, UID: 7, HasUID: true}
	r.Answered(&one, 3, at, time.Microsecond)
	r.Answered(&local, 1, at.Add(time.Second), time.Microsecond)
	one.Remote = netip.MustParseAddrPort("10.0.0.1:901") // another port, the same client
	r.Answered(&one, 2, at.Add(2*time.Second), time.Microsecond)
	r.Called(one, callOf(2, rpcbind.ProcDump, nil), oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak))
	got := fmt.Sprint(r.Clients())
	want := fmt.Sprint([]Client{{"10.0.0.1", 5, 1, at.Add(2 * time.Second)}, {"uid 7", 1, 0, at.Add(time.Second)}})
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestClientsOfAFlood calls from more addresses than are remembered: those of one second don't push out what is there.
func TestClientsOfAFlood(t *testing.T) {
	r := NewRecorder()
	at := time.Unix(1000, 0)
	flood := func(network byte) {
		for i := range 100_000 {
			c := portmap.Caller{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{network, byte(i >> 16), byte(i >> 8), byte(i)}), 1)}
			r.Answered(&c, 1, at, 0)
		}
	}
	count := func(prefix string) (n int) {
		for _, c := range r.Clients() {
			if strings.HasPrefix(c.Peer, prefix) {
				n++
			}
		}
		return n
	}
	flood(10)
	flood(11)
	if count("10.") != clientSlots || count("11.") != 0 {
		t.Errorf("%d and %d clients after a second", count("10."), count("11."))
	}
	at = at.Add(clientStay)
	flood(12)
	if count("12.") != clientSlots {
		t.Errorf("%d clients are remembered of the next second", count("12."))
	}
}

func TestHotCallsAllocateNothing(t *testing.T) {
	r := NewRecorder()
	c := from("10.0.0.1:900")
	call := callOf(2, rpcbind.ProcGetPort, rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 1, Prot: 6}))
	reply := success(word(2049)...)
	at := time.Now()
	r.Answered(&c, 1, at, time.Microsecond)
	if n := testing.AllocsPerRun(100, func() {
		r.Called(c, call, reply)
		r.Answered(&c, 1, at, time.Microsecond)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	r := NewRecorder()
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 500 {
				c := portmap.Caller{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(g), 0, byte(i)}), 1)}
				r.Called(c, callOf(2, rpcbind.ProcSet, nil), oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak))
				r.Answered(&c, 1, time.Unix(int64(i), 0), time.Microsecond)
				if i%100 == 0 {
					r.Clients()
					r.Events()
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkRecorder(b *testing.B) {
	r := NewRecorder()
	c := from("10.0.0.1:900")
	call := callOf(2, rpcbind.ProcGetPort, rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 1, Prot: 6}))
	reply := success(word(2049)...)
	at := time.Now()
	b.Run("Called", func(b *testing.B) {
		for range b.N {
			r.Called(c, call, reply)
		}
	})
	b.Run("Answered", func(b *testing.B) {
		for range b.N {
			r.Answered(&c, 1, at, time.Microsecond)
		}
	})
}
