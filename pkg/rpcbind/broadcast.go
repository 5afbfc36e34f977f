package rpcbind

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// A broadcast is sent again after firstRepeat, then after one second more each time, up to longestRepeat, as libtirpc
// does it.
const (
	firstRepeat   = time.Second
	longestRepeat = 8 * time.Second
)

// failedReads is after how many errors in a row a socket is no longer read.
const failedReads = 100

// MaxAnswers is the number of hosts whose answers [Broadcast] yields; a link with more is under attack.
const MaxAnswers = 65536

// Broadcast asks every portmapper on the links of this host to make a call, and yields the answers as they arrive:
//
//	for a, err := range rpcbind.Broadcast(ctx, rpcbind.RemoteCall{Program: 100004, Version: 2}) { … }
//
// The call goes by UDP to the IPv4 broadcast address of every network of every interface that is up and can broadcast,
// as CALLIT of version 3 and of version 2, and to the IPv6 multicast group [MulticastGroup] on every interface that is up
// and can multicast, as CALLIT of version 3 (RFC 1833 sections 2.2.1 and 3.2). It is sent again after 1, 2, 3 and up to
// 8 s: the program asked may be called more than once. Portmappers that don't have the program, or don't make remote
// calls, which is the default of most today, say nothing.
//
// The iteration ends when ctx does, which is no error, and else goes on for ever: give ctx a deadline or break. There is
// one answer for each address; what isn't an answer to the call is passed over. Anybody on the link can answer. An error
// is yielded last, and is an [*Error]: that the call could be sent nowhere, or [ErrTooManyAnswers].
//
// Ranging again asks again.
func Broadcast(ctx context.Context, call RemoteCall) iter.Seq2[Answer, error] {
	return BroadcastConfig{}.Broadcast(ctx, call)
}

// BroadcastConfig says how a broadcast is made. The zero value makes those of [Broadcast].
type BroadcastConfig struct {
	// Network is "udp4" for broadcasts over IPv4 alone, "udp6" for multicasts over IPv6 alone, and "udp" or "" for both.
	Network string
	// Waits are the times after which the call is sent again; with the last one the iteration ends. Without any it is sent
	// again after 1, 2, 3 and up to 8 s, and the iteration goes on.
	Waits []time.Duration
	// Repeated yields every answer, [MaxAnswers] of them: further ones of an address come because it was asked in two
	// versions, by several networks, or again.
	Repeated bool
}

// Broadcast is [Broadcast] made in another way.
func (c BroadcastConfig) Broadcast(ctx context.Context, call RemoteCall) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		targets, err := broadcastTargets()
		if err == nil {
			targets, err = c.ofNetwork(targets)
		}
		if err == nil {
			err = (&broadcast{config: c, targets: targets, repeat: firstRepeat}).run(ctx, call, yield)
		}
		if err != nil {
			yield(Answer{}, &Error{Op: "broadcast", About: call.about(), Network: "udp", Addr: "every link", Err: err})
		}
	}
}

// ofNetwork returns the targets of c's version of IP.
func (c BroadcastConfig) ofNetwork(targets []netip.AddrPort) (list []netip.AddrPort, err error) {
	if c.Network != "" && c.Network != "udp" && c.Network != "udp4" && c.Network != "udp6" {
		return nil, net.UnknownNetworkError(c.Network)
	}
	for _, t := range targets {
		if c.Network == "" || c.Network == "udp" || t.Addr().Is4() == (c.Network == "udp4") {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return nil, errNoTarget
	}
	return list, nil
}

var errNoTarget = errors.New("no interface that is up has an address and can broadcast")

// broadcastTargets returns the addresses to which a broadcast is sent.
func broadcastTargets() ([]netip.AddrPort, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var targets []netip.AddrPort
	group := netip.MustParseAddr(MulticastGroup)
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface has just gone
		}
		ipv6 := false
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			last, v4 := lastAddr(n)
			switch {
			case !v4:
				ipv6 = true
			case i.Flags&net.FlagBroadcast != 0 && last.IsValid():
				targets = append(targets, netip.AddrPortFrom(last, Port))
			}
		}
		if ipv6 && i.Flags&net.FlagMulticast != 0 {
			// By number: package net keeps names for a minute, in which an interface may get another.
			targets = append(targets, netip.AddrPortFrom(group.WithZone(strconv.Itoa(i.Index)), Port))
		}
	}
	if len(targets) == 0 {
		return nil, errNoTarget
	}
	return targets, nil
}

// lastAddr returns the last address of an IPv4 network, to which broadcasts go; the zero value for a network too small to
// have one (RFC 3021). It is false for IPv6.
func lastAddr(n *net.IPNet) (last netip.Addr, v4 bool) {
	ip := n.IP.To4()
	if ip == nil {
		return netip.Addr{}, false
	}
	ones, bits := n.Mask.Size()
	if bits != 32 || ones > 30 {
		return netip.Addr{}, true
	}
	host := ^uint32(0) >> ones
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(ip)|host))), true
}

// a broadcast is one call to many.
type broadcast struct {
	config  BroadcastConfig
	targets []netip.AddrPort
	repeat  time.Duration // before it is sent for the second time
	limit   int           // answers; 0 stands for MaxAnswers

	xid     uint32 // of version 3; that of version 2 is the next one
	call3   []byte
	call2   []byte
	v4, v6  *net.UDPConn
	answers chan Answer
	done    chan struct{} // closed when nobody takes answers any more
	waiting sync.WaitGroup
}

// run sends the call and yields the answers. It returns why it ended before ctx did and was not told to.
func (b *broadcast) run(ctx context.Context, call RemoteCall, yield func(Answer, error) bool) error {
	if ctx.Err() != nil {
		return nil
	}
	args := AppendRemoteCall(nil, call)
	b.xid = rand.Uint32()
	b.call3 = oncrpc.AppendCall(nil, oncrpc.Call{XID: b.xid, Program: Program, Version: RPCBVers3, Procedure: ProcCallIt, Args: args})
	b.call2 = oncrpc.AppendCall(nil, oncrpc.Call{XID: b.xid + 1, Program: Program, Version: PMAPVers, Procedure: ProcCallIt, Args: args})
	b.answers = make(chan Answer)
	b.done = make(chan struct{})
	defer b.close()
	if err := b.send(); err != nil {
		return err
	}
	b.receive(b.v4)
	b.receive(b.v6)
	limit := b.limit
	if limit == 0 {
		limit = MaxAnswers
	}
	seen := make(map[netip.Addr]bool)
	answers, sent := 0, 1
	wait, _ := b.wait(sent)
	again := time.NewTimer(wait)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			sent++
			wait, ok := b.wait(sent)
			if !ok {
				return nil
			}
			_ = b.send() // it has been sent: the network may be back the next time
			again.Reset(wait)
		case a := <-b.answers:
			switch {
			case seen[a.From.Addr()]:
				continue
			case answers == limit:
				return ErrTooManyAnswers
			}
			answers++
			seen[a.From.Addr()] = !b.config.Repeated
			if !yield(a, nil) {
				return nil
			}
		}
	}
}

// wait returns how long to wait after the call was sent for the nth time, and false if it isn't to be.
func (b *broadcast) wait(n int) (time.Duration, bool) {
	switch waits := b.config.Waits; {
	case len(waits) == 0:
		return min(b.repeat+time.Duration(n-1)*time.Second, longestRepeat), true
	case n > len(waits):
		return 0, false
	default:
		return waits[n-1], true
	}
}

// close ends the goroutines and waits for them.
func (b *broadcast) close() {
	close(b.done)
	for _, c := range []*net.UDPConn{b.v4, b.v6} {
		if c != nil {
			_ = c.Close()
		}
	}
	b.waiting.Wait()
}

// send sends the call to every target. It fails if there is none that it could be sent to.
func (b *broadcast) send() error {
	sent := false
	var first error
	try := func(target netip.AddrPort, call []byte) {
		conn, err := b.conn(target.Addr().Is4())
		if err == nil {
			_, err = conn.WriteToUDPAddrPort(call, target)
		}
		switch {
		case err == nil:
			sent = true
		case first == nil:
			first = fmt.Errorf("send to %v: %w", target, shorten(err))
		}
	}
	for _, t := range b.targets {
		try(t, b.call3)
		if t.Addr().Is4() {
			try(t, b.call2) // version 2 answers ports of IPv4
		}
	}
	if sent {
		return nil
	}
	return first
}

// conn returns the socket for one version of IP. Package net lets every UDP socket broadcast.
func (b *broadcast) conn(v4 bool) (_ *net.UDPConn, err error) {
	slot, network := &b.v6, "udp6"
	if v4 {
		slot, network = &b.v4, "udp4"
	}
	if *slot == nil {
		*slot, err = net.ListenUDP(network, nil)
	}
	return *slot, err
}

// receive passes on the answers that arrive on a socket, until that is closed.
func (b *broadcast) receive(conn *net.UDPConn) {
	if conn == nil {
		return
	}
	b.waiting.Go(func() {
		buf := make([]byte, maxDatagram)
		for failed := 0; failed < failedReads; {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				failed++ // some systems report here that something that was sent came back
				continue
			}
			failed = 0
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			a, ok := b.parse(buf[:n], from)
			if !ok {
				continue
			}
			select {
			case b.answers <- a:
			case <-b.done:
				return
			}
		}
	})
}

// parse reads a reply: false if it isn't an answer to the call.
func (b *broadcast) parse(message []byte, from netip.AddrPort) (Answer, bool) {
	r, err := oncrpc.ParseReply(message)
	if err != nil || r.Err() != nil {
		return Answer{}, false
	}
	vers := uint32(RPCBVers3)
	switch r.XID {
	case b.xid:
	case b.xid + 1:
		vers = PMAPVers
	default:
		return Answer{}, false
	}
	d := xdr.NewDecoder(r.Results)
	a, err := readAnswer(&d, vers, from)
	if err != nil {
		return Answer{}, false
	}
	a.Results = append([]byte(nil), a.Results...)
	return a, true
}
