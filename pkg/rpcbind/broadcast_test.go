package rpcbind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// responder answers each datagram with what handle returns, from a socket at the address.
func responder(t testing.TB, address string, handle func(oncrpc.Call) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			call, err := oncrpc.ParseCall(buf[:n])
			if err != nil {
				t.Errorf("% x: %v", buf[:n], err)
				continue
			}
			for _, reply := range handle(call) {
				conn.WriteTo(reply, from)
			}
		}
	}()
	return addrPort(conn.LocalAddr())
}

// answerOf is how a portmapper answers to CALLIT.
func answerOf(call oncrpc.Call, uaddr string, port uint32, results string) []byte {
	b := oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success)
	if call.Version == PMAPVers {
		b = xdr.AppendUint32(b, port)
	} else {
		b = xdr.AppendString(b, uaddr)
	}
	return xdr.AppendString(b, results)
}

func limitedTo(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// collect runs a broadcast until there are n answers, or its end.
func collect(t testing.TB, b *broadcast, n int) (map[netip.Addr]Answer, error) {
	t.Helper()
	got := make(map[netip.Addr]Answer)
	err := b.run(limitedTo(t, 20*time.Second), RemoteCall{Program: 100004, Version: 2, Args: []byte("argument")}, func(a Answer, err error) bool {
		if _, twice := got[a.From.Addr()]; twice || err != nil {
			t.Errorf("%+v, %v: an address twice, or an error", a, err)
		}
		got[a.From.Addr()] = a
		return len(got) < n
	})
	return got, err
}

func TestBroadcast(t *testing.T) {
	var targets []netip.AddrPort
	for _, host := range []string{"127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"} {
		targets = append(targets, responder(t, host, func(call oncrpc.Call) [][]byte {
			d := xdr.NewDecoder(call.Args)
			c := ReadRemoteCall(&d, 100)
			if call.Program != Program || call.Procedure != ProcCallIt || c.Program != 100004 || c.Version != 2 || string(c.Args) != "argument" {
				t.Errorf("asked %+v for %+v", call, c)
			}
			if host == "127.0.0.2:0" && call.Version != PMAPVers {
				return [][]byte{oncrpc.AppendProgMismatch(nil, call.XID, 2, 2)}
			}
			answer := answerOf(call, "10.0.0.5.8.1", 2049, "yes")
			return [][]byte{answer, answer}
		}))
	}
	got, err := collect(t, &broadcast{targets: targets, repeat: firstRepeat}, 3)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d answers, %v; want 3", len(got), err)
	}
	for _, target := range targets {
		a := got[target.Addr()]
		if a.From != target || string(a.Results) != "yes\x00"[:3] {
			t.Errorf("%+v from %v", a, target)
		}
		if at, ok := ParseUAddr(a.Addr); !ok || at.Port() != 2049 {
			t.Errorf("service at %q", a.Addr)
		}
	}
	if a := got[netip.MustParseAddr("127.0.0.2")]; a.Addr != "127.0.0.2.8.1" {
		t.Errorf("version 2: service at %q, want it at the host that answered", a.Addr)
	}
}

// What isn't an answer to the call is passed over; the call is sent again.
func TestBroadcastPassesOver(t *testing.T) {
	asked := 0
	target := responder(t, "127.0.0.1:0", func(call oncrpc.Call) [][]byte {
		asked++
		good := answerOf(call, "127.0.0.1.8.1", 2049, "yes")
		if asked < 3 { // versions 3 and 2, for the first time
			other := call
			other.XID += 2
			port := oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success)
			return [][]byte{
				answerOf(other, "127.0.0.1.8.1", 2049, "no"),
				oncrpc.AppendAccepted(nil, call.XID, oncrpc.SystemErr),
				oncrpc.AppendAuthError(nil, call.XID, oncrpc.AuthTooWeak),
				oncrpc.AppendCall(nil, call),
				append(port, 0, 1, 0, 0, 0, 0, 0, 0)[:len(port)+8*int(call.Version%2)], // a port of 65536; cut off
				append(port, 0xff, 0xff, 0xff, 0xff),
				good[:len(good)-4], {}, {1},
			}
		}
		return [][]byte{good}
	})
	got, err := collect(t, &broadcast{targets: []netip.AddrPort{target}, repeat: time.Millisecond}, 1)
	if a := got[target.Addr()]; err != nil || string(a.Results) != "yes" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestBroadcastEnds(t *testing.T) {
	target := responder(t, "127.0.0.1:0", func(call oncrpc.Call) [][]byte { return nil })
	never := func(a Answer, err error) bool {
		t.Errorf("%+v, %v", a, err)
		return true
	}
	b := broadcast{targets: []netip.AddrPort{target}, repeat: time.Millisecond}
	if err := b.run(limitedTo(t, 20*time.Millisecond), RemoteCall{}, never); err != nil {
		t.Errorf("at the context's end: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for a, err := range Broadcast(over, RemoteCall{Program: 1}) {
		t.Errorf("context over: %+v, %v", a, err)
	}
	nowhere := broadcast{targets: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, repeat: time.Second}
	if err := nowhere.run(t.Context(), RemoteCall{}, never); err == nil {
		t.Error("to nowhere: no error")
	}
	too := broadcast{targets: []netip.AddrPort{target}, repeat: time.Second}
	if err := too.run(t.Context(), RemoteCall{Args: make([]byte, 70000)}, never); err == nil {
		t.Error("more than a datagram: no error")
	}
}

// A host that answers from ever new addresses ends the broadcast, and doesn't fill the memory.
func TestBroadcastTooManyAnswers(t *testing.T) {
	var targets []netip.AddrPort
	for _, host := range []string{"127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"} {
		targets = append(targets, responder(t, host, func(call oncrpc.Call) [][]byte {
			return [][]byte{answerOf(call, "127.0.0.1.8.1", 2049, "yes")}
		}))
	}
	got, err := collect(t, &broadcast{targets: targets, repeat: firstRepeat, limit: 2}, 9)
	if len(got) != 2 || !errors.Is(err, ErrTooManyAnswers) {
		t.Errorf("%d answers, %v; want 2 and %v", len(got), err, ErrTooManyAnswers)
	}
}

// Nothing is left running when the consumer breaks off, even if answers go on coming.
func TestBroadcastLeavesNothing(t *testing.T) {
	for range 20 {
		target := responder(t, "127.0.0.1:0", func(call oncrpc.Call) [][]byte {
			answer := answerOf(call, "127.0.0.1.8.1", 2049, "yes")
			return [][]byte{answer, answer, answer, answer}
		})
		if _, err := collect(t, &broadcast{targets: []netip.AddrPort{target}, repeat: time.Millisecond}, 1); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1<<20)
	// A goroutine that is done may have yet to return.
	for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "(*broadcast).receive") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still running:\n%s", stacks)
		}
	}
}

func TestLastAddr(t *testing.T) {
	for in, want := range map[string]string{
		"10.9.9.1/24": "10.9.9.255", "10.9.9.1/30": "10.9.9.3", "172.16.3.4/12": "172.31.255.255",
		"10.9.9.1/31": "invalid IP", "10.9.9.1/32": "invalid IP", "fd09::1/64": "",
	} {
		ip, n, err := net.ParseCIDR(in)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		last, v4 := lastAddr(n)
		if v4 != (want != "") || v4 && last.String() != want {
			t.Errorf("%s: %v, %v; want %q", in, last, v4, want)
		}
	}
}

// Whatever arrives, reading it doesn't panic, and what is taken for an answer is no longer than what arrived.
func FuzzBroadcastAnswer(f *testing.F) {
	call := oncrpc.Call{XID: 7, Version: RPCBVers3}
	f.Add(answerOf(call, "127.0.0.1.8.1", 0, "yes"))
	call.XID, call.Version = 8, PMAPVers
	f.Add(answerOf(call, "", 2049, "yes"))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := broadcast{xid: 7}
		a, ok := b.parse(in, netip.MustParseAddrPort("10.0.0.5:111"))
		if ok && len(a.Results)+len(a.Addr) > len(in)+MaxUAddrSize {
			t.Errorf("%d octets: %+v", len(in), a)
		}
	})
}

// A broadcast with an end of its own, in which every answer counts.
func TestBroadcastConfig(t *testing.T) {
	target := responder(t, "127.0.0.1:0", func(call oncrpc.Call) [][]byte {
		return [][]byte{answerOf(call, "127.0.0.1.8.1", 2049, "yes")}
	})
	config := BroadcastConfig{Waits: []time.Duration{300 * time.Millisecond, 300 * time.Millisecond}, Repeated: true}
	b := &broadcast{config: config, targets: []netip.AddrPort{target}, repeat: time.Hour}
	answers := 0
	err := b.run(t.Context(), RemoteCall{Program: 100004}, func(a Answer, err error) bool {
		if a.From != target || err != nil {
			t.Errorf("%+v, %v", a, err)
		}
		answers++
		return true
	})
	if err != nil || answers != 4 {
		t.Errorf("%d answers, %v; want 4, in two versions twice", answers, err)
	}
	b = &broadcast{config: config, targets: []netip.AddrPort{target}, limit: 3}
	if err := b.run(t.Context(), RemoteCall{}, func(Answer, error) bool { return true }); !errors.Is(err, ErrTooManyAnswers) {
		t.Errorf("four answers where three are allowed: %v", err)
	}
}

func TestBroadcastNetworks(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.255:111"), netip.MustParseAddrPort("[ff02::202%1]:111")
	for network, want := range map[string]int{"": 2, "udp": 2, "udp4": 1, "udp6": 1} {
		list, err := BroadcastConfig{Network: network}.ofNetwork([]netip.AddrPort{v4, v6})
		if err != nil || len(list) != want || want == 1 && list[0].Addr().Is4() != (network == "udp4") {
			t.Errorf("%q: %v, %v", network, list, err)
		}
	}
	if _, err := (BroadcastConfig{Network: "udp6"}).ofNetwork([]netip.AddrPort{v4}); err == nil {
		t.Error("a host without IPv6 multicasts")
	}
	for _, err := range (BroadcastConfig{Network: "tcp"}).Broadcast(t.Context(), RemoteCall{}) {
		var unknown net.UnknownNetworkError
		if !errors.As(err, &unknown) {
			t.Errorf("over TCP: %v", err)
		}
	}
}
