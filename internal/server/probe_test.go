package server

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// selfless answers every call and counts those that the server says it made itself.
type selfless struct{ own, others atomic.Int32 }

func (p *selfless) AppendReply(dst, call []byte, from portmap.Caller) []byte {
	if from.Self {
		p.own.Add(1)
	} else {
		p.others.Add(1)
	}
	c, err := oncrpc.ParseCall(call)
	if err != nil {
		return dst
	}
	return oncrpc.AppendAccepted(dst, c.XID, oncrpc.Success)
}

func (p *selfless) AppendReplyAround(dst, call []byte, from portmap.Caller) ([]byte, int, [][]byte) {
	return p.AppendReply(dst, call, from), 0, nil
}

func (p *selfless) MayWait([]byte) bool { return false }

func (p *selfless) AppendRemoteReply(dst []byte, _ *portmap.RemoteCall, _ []byte) []byte { return dst }

func probeSockets(t *testing.T) []*sys.Socket {
	return []*sys.Socket{
		listenUDP(t, addrPort("127.0.0.1:0")), listenUDP(t, addrPort("0.0.0.0:0")), listenTCP(t), listenLocal(t),
	}
}

// TestProbe asks each socket once, and nobody else's call is taken for one of these.
func TestProbe(t *testing.T) {
	var p selfless
	sockets := probeSockets(t)
	s := start(t, Config{Portmapper: &p}, sockets...)
	ctx, cancel := context.WithTimeout(t.Context(), aWhile)
	defer cancel()
	for round := int32(1); round <= 3; round++ {
		if err := s.Probe(ctx); err != nil {
			t.Fatal(err)
		}
		if own := p.own.Load(); own != round*int32(len(sockets)) {
			t.Errorf("after %d rounds: %d calls of its own, want %d", round, own, round*int32(len(sockets)))
		}
	}
	for _, socket := range sockets {
		if err := s.ask(ctx, socket); err != nil { // the same call
			t.Error(err)
		}
		c := dial(t, socket)
		call := oncrpc.AppendCall(nil, oncrpc.Call{XID: 7, Program: probeProgram, Version: probeVersion})
		if socket.Packet == nil {
			call = record(string(call))
		}
		c.send(call)
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Error(err)
		}
	}
	if others := p.others.Load(); others != int32(len(sockets)) {
		t.Errorf("%d calls of others, want %d", others, len(sockets))
	}
	if s.probed.ends.Load() != nil || s.probed.local.Load() != 0 {
		t.Error("something is left of the probes")
	}
}

// TestProbeFindsALoopThatHangs holds up the only goroutine that reads a UDP socket, in the portmapper.
func TestProbeFindsALoopThatHangs(t *testing.T) {
	held, let := make(chan struct{}), make(chan struct{})
	hangs := portmapperFunc(func(dst, call []byte, from portmap.Caller) []byte {
		if string(call) == "hang" {
			close(held)
			<-let
		}
		return append(dst, call[:4]...)
	})
	udp, tcp := listenUDP(t, addrPort("127.0.0.1:0")), listenTCP(t)
	s := start(t, Config{Portmapper: hangs}, udp, tcp)
	defer close(let)
	dial(t, udp).send([]byte("hang"))
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 10*probePause)
	defer cancel()
	err := s.Probe(ctx)
	if err == nil || !strings.Contains(err.Error(), nameOf(udp)) || strings.Contains(err.Error(), nameOf(tcp)) {
		t.Errorf("%v; want %s alone", err, nameOf(udp))
	}
}

// TestProbeFindsConnectionsThatHang has every connection held up, while the listener is well.
func TestProbeFindsConnectionsThatHang(t *testing.T) {
	let := make(chan struct{})
	hangs := portmapperFunc(func(dst, _ []byte, _ portmap.Caller) []byte {
		<-let
		return dst
	})
	local := listenLocal(t)
	s := start(t, Config{Portmapper: hangs}, local)
	defer close(let)
	ctx, cancel := context.WithTimeout(t.Context(), 10*probePause)
	defer cancel()
	if err := s.Probe(ctx); err == nil || !strings.Contains(err.Error(), nameOf(local)) {
		t.Errorf("%v; want %s", err, nameOf(local))
	}
}

// TestProbeThatCannotBeMade is of no account: a socket that isn't reached, and one that stays silent but is read, as behind
// a firewall or under a flood.
func TestProbeThatCannotBeMade(t *testing.T) {
	silent := portmapperFunc(func(dst, _ []byte, _ portmap.Caller) []byte { return dst })
	udp := listenUDP(t, addrPort("127.0.0.1:0"))
	unreachable := listenLocal(t)
	s := start(t, Config{Portmapper: silent}, udp, unreachable)
	unreachable.Path += ".gone"
	defer func() { unreachable.Path = strings.TrimSuffix(unreachable.Path, ".gone") }()
	ctx, cancel := context.WithTimeout(t.Context(), 4*probePause)
	defer cancel()
	if err := s.Probe(ctx); err != nil {
		t.Error(err)
	}
}

func TestReachable(t *testing.T) {
	for bound, want := range map[string]string{
		"0.0.0.0:111": "127.0.0.1:111", "[::]:111": "[::1]:111", "192.0.2.1:7": "192.0.2.1:7", "[fe80::1]:7": "[fe80::1]:7",
	} {
		if got := reachable(netip.MustParseAddrPort(bound)); got.String() != want {
			t.Errorf("%s: %v, want %s", bound, got, want)
		}
	}
}

// TestInputWaiting is about the sockets themselves.
func TestInputWaiting(t *testing.T) {
	for _, socket := range probeSockets(t) {
		if socket.InputWaiting() {
			t.Errorf("%s: input, before there is any", nameOf(socket))
		}
		c := dial(t, socket)
		if socket.Packet != nil {
			c.send([]byte("x"))
		}
		for end := time.Now().Add(aWhile); !socket.InputWaiting(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: no input", nameOf(socket))
			}
		}
	}
	if (&sys.Socket{}).InputWaiting() || (&sys.Socket{Listener: struct{ net.Listener }{}}).InputWaiting() {
		t.Error("input of what can't be asked")
	}
}
