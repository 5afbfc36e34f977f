package portmapper

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/gportmap/gportmap/internal/pktinfo"
	"github.com/gportmap/gportmap/internal/portmap"
)

// packetFailures is how many errors of reading in a row end a UDP socket.
const packetFailures = 100

// A packetLoop serves a UDP socket.
type packetLoop struct {
	p      *Portmapper
	conn   net.PacketConn
	udp    *net.UDPConn // the same, where it can tell how a datagram arrived; else nil
	local  netip.AddrPort
	closed atomic.Bool
	in     []byte
	oob    []byte
	source []byte // makes a reply leave from the address that was asked
}

func newPacketLoop(p *Portmapper, conn net.PacketConn) *packetLoop {
	l := &packetLoop{p: p, conn: conn, local: plain(conn.LocalAddr()), in: make([]byte, MaxRecord)}
	if udp, ok := conn.(*net.UDPConn); ok && pktinfo.Enable(udp) {
		l.udp, l.oob = udp, make([]byte, pktinfo.Size)
	}
	return l
}

func (l *packetLoop) close() {
	l.closed.Store(true)
	_ = l.conn.Close()
}

func (l *packetLoop) run() error {
	var out []byte
	for failures := 0; ; {
		n, from, arrival, err := l.read()
		switch {
		case err == nil:
		case l.closed.Load():
			return nil
		case errors.Is(err, net.ErrClosed) || failures == packetFailures:
			return fmt.Errorf("portmapper: serve udp %v: %w", l.conn.LocalAddr(), err)
		default:
			failures++ // some systems report here that an earlier reply came back
			continue
		}
		failures = 0
		out = l.p.portmap.AppendReply(out[:0], l.in[:n], l.caller(from, arrival))
		if len(out) > 0 {
			l.write(out, from, arrival)
		}
	}
}

// read returns the next datagram: who sent it, and what is known of how it arrived.
func (l *packetLoop) read() (n int, from netip.AddrPort, arrival pktinfo.Arrival, err error) {
	if l.udp == nil {
		var a net.Addr
		n, a, err = l.conn.ReadFrom(l.in)
		if u, ok := a.(*net.UDPAddr); ok {
			from = u.AddrPort()
		}
		return n, from, pktinfo.Arrival{Local: l.local.Addr()}, err
	}
	n, told, _, from, err := l.udp.ReadMsgUDPAddrPort(l.in, l.oob)
	if err == nil {
		arrival = pktinfo.Parse(l.oob[:told])
	}
	return n, from, arrival, err
}

// caller describes the sender of a datagram.
func (l *packetLoop) caller(from netip.AddrPort, arrival pktinfo.Arrival) portmap.Caller {
	remote := netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	local := arrival.Local.Unmap()
	c := portmap.Caller{
		Transport: portmap.UDP6,
		Remote:    remote,
		Local:     netip.AddrPortFrom(local, l.local.Port()),
		Ifindex:   arrival.Ifindex,
		Loopback:  l.p.onLoopback(arrival.Ifindex, remote.Addr(), local),
		Multicast: arrival.Group,
	}
	if remote.Addr().Is4() {
		c.Transport = portmap.UDP
	}
	return c
}

// write sends a reply, from the address that was asked where that can be chosen. One that can't be sent is lost, as any
// datagram may be.
func (l *packetLoop) write(reply []byte, to netip.AddrPort, arrival pktinfo.Arrival) {
	if l.udp == nil {
		_, _ = l.conn.WriteTo(reply, net.UDPAddrFromAddrPort(to))
		return
	}
	l.source = arrival.AppendControl(l.source[:0])
	_, _, _ = l.udp.WriteMsgUDPAddrPort(reply, l.source, to)
}
