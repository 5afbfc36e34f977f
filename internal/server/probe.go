package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// The call of a probe: NULL of the portmapper's version 2, which the Portmapper answers without counting it.
const (
	probeProgram = 100000
	probeVersion = 2
)

// probePause is how long a probe that wasn't answered waits before it looks again whether its socket is read.
const probePause = 50 * time.Millisecond

// probed are the probes that are under way, by which their calls are known.
type probed struct {
	mu    sync.Mutex
	ends  atomic.Pointer[[]netip.AddrPort] // on UDP and TCP; nil while there are none
	local atomic.Int32                     // how many on local sockets, where the peer is this process
}

// has tells whether a call comes from a probe.
func (p *probed) has(a netip.AddrPort) bool {
	ends := p.ends.Load()
	return ends != nil && slices.Contains(*ends, a)
}

func (p *probed) add(a netip.AddrPort) {
	p.change(func(ends []netip.AddrPort) []netip.AddrPort { return append(ends, a) })
}

func (p *probed) remove(a netip.AddrPort) {
	p.change(func(ends []netip.AddrPort) []netip.AddrPort {
		return slices.DeleteFunc(ends, func(e netip.AddrPort) bool { return e == a })
	})
}

func (p *probed) change(f func([]netip.AddrPort) []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ends []netip.AddrPort
	if now := p.ends.Load(); now != nil {
		ends = slices.Clone(*now) // who reads has the old one
	}
	if ends = f(ends); len(ends) == 0 {
		p.ends.Store(nil)
		return
	}
	p.ends.Store(&ends)
}

// Probe asks itself through every socket that is served, as a client does, and returns nil once each has answered or is
// seen to be read. What a socket can't be asked for reasons of the host (no loopback, a firewall, no descriptors left) says
// nothing about us. The error names the sockets that hold input which nobody took until ctx ended: their loops hang.
func (s *Server) Probe(ctx context.Context) error {
	s.mu.Lock()
	loops := slices.Clone(s.loops)
	s.mu.Unlock()
	failed := make([]error, len(loops))
	var all sync.WaitGroup
	for i, l := range loops {
		all.Go(func() { failed[i] = s.probe(ctx, l) })
	}
	all.Wait()
	return errors.Join(failed...)
}

// probe asks through one socket.
func (s *Server) probe(ctx context.Context, l loop) error {
	socket, beats := l.pulse()
	before, began := beats.Load(), time.Now()
	err := s.ask(ctx, socket)
	if errors.Is(err, os.ErrDeadlineExceeded) && socket.Packet == nil && beats.Load() != before && !s.short.since(began) {
		return fmt.Errorf("%s takes connections and doesn't answer them: %w", nameOf(socket), err)
	}
	for err != nil && beats.Load() == before && socket.InputWaiting() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s holds calls that nobody reads: %w", nameOf(socket), err)
		case <-time.After(probePause):
		}
	}
	return nil
}

// ask makes the call and waits for its reply.
func (s *Server) ask(ctx context.Context, socket *sys.Socket) error {
	network, address := "unix", socket.Path
	if socket.Netid != "local" {
		network, address = strings.TrimSuffix(socket.Netid, "6"), reachable(socket.Addr).String()
	} else {
		s.probed.local.Add(1)
		defer s.probed.local.Add(-1)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(longAgo()) })()
	if a, ok := conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }); ok {
		end := netip.AddrPortFrom(a.AddrPort().Addr().Unmap().WithZone(""), a.AddrPort().Port())
		s.probed.add(end)
		defer s.probed.remove(end)
	}
	xid := rand.Uint32()
	call := oncrpc.Call{XID: xid, Program: probeProgram, Version: probeVersion}
	if socket.Packet != nil {
		return askDatagram(conn, xid, oncrpc.AppendCall(nil, call))
	}
	return askRecord(conn, xid, oncrpc.AppendCall(oncrpc.BeginRecord(nil), call))
}

// reachable is an address to call a socket at that is bound to a.
func reachable(a netip.AddrPort) netip.AddrPort {
	switch {
	case !a.Addr().IsUnspecified():
		return a
	case a.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
}

func askDatagram(conn net.Conn, xid uint32, call []byte) error {
	if _, err := conn.Write(call); err != nil {
		return err
	}
	var reply [64]byte
	for {
		n, err := conn.Read(reply[:])
		if err != nil {
			return err
		}
		if n >= 4 && binary.BigEndian.Uint32(reply[:]) == xid {
			return nil
		}
	}
}

func askRecord(conn net.Conn, xid uint32, call []byte) error {
	oncrpc.EndRecord(call, 0)
	if _, err := conn.Write(call); err != nil {
		return err
	}
	var reply [oncrpc.RecordMarkSize + 4]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint32(reply[oncrpc.RecordMarkSize:]); got != xid {
		return fmt.Errorf("a reply to call %#x, not to %#x", got, xid)
	}
	return nil
}

// nameOf names a socket as in "udp 0.0.0.0:111".
func nameOf(s *sys.Socket) string {
	if s.Path != "" {
		return s.Netid + " " + s.Path
	}
	return fmt.Sprintf("%s %v", s.Netid, s.Addr)
}
