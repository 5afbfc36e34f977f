package oncrpc

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/pktinfo"
)

// maxUDPReply is the size in octets of the largest UDP payload over IPv4.
const maxUDPReply = 65507

// failuresBorne is how often in a row a datagram socket may fail to read.
const failuresBorne = 100

// ServePacket answers the datagrams of conn, as of a UDP socket, until it is closed or the Server is. It returns when
// the calls that it has received are answered: [ErrServerClosed] after Shutdown and Close, else the error of conn, which
// is closed in either case. A datagram that is no call, or longer than [Server.MaxRecord], isn't answered. A reply that is
// longer than 65,507 octets, or that conn refuses to send, becomes SYSTEM_ERR. A local datagram socket is not for
// strangers: replies that one client leaves unread fill its buffer for all.
func (s *Server) ServePacket(conn net.PacketConn) error {
	p := &packets{server: s, conn: conn}
	if udp, ok := conn.(*net.UDPConn); ok && pktinfo.Enable(udp) {
		p.udp, p.port = udp, udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	st, ok := s.begin(p)
	if !ok {
		_ = conn.Close()
		return ErrServerClosed
	}
	p.state = st
	defer s.finish(p)
	defer conn.Close()
	for range orDefault(s.DatagramWorkers, DefaultDatagramWorkers) {
		p.workers.Go(p.work)
	}
	p.workers.Wait()
	if st.ended() {
		return ErrServerClosed
	}
	return p.err
}

// packets is a datagram socket that is served.
type packets struct {
	server  *Server
	state   *state
	conn    net.PacketConn
	udp     *net.UDPConn // the same, if the system tells at which address each datagram arrived; else nil
	port    uint16       // udp's own
	workers sync.WaitGroup
	once    sync.Once
	err     error // why the workers end, if the Server doesn't
}

func (p *packets) stop()        { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) }
func (p *packets) Close() error { return p.conn.Close() }

// work answers one datagram after another.
func (p *packets) work() {
	finished := false
	defer func() {
		if !finished { // a handler ended its goroutine: another one takes its place
			p.workers.Go(p.work)
		}
	}()
	d := &datagram{
		in:      make([]byte, min(orDefault(p.server.MaxRecord, DefaultMaxRecord), maxDatagram)+1),
		request: Request{Local: p.conn.LocalAddr()},
	}
	var pause pause
	failures := 0
	for !p.state.ended() {
		n, err := p.read(d)
		if err == nil {
			pause.reset()
			failures = 0
			if n < len(d.in) && d.request.Remote != nil {
				p.answer(d, d.in[:n])
			}
			continue
		}
		failures++
		if p.state.ended() {
			break
		}
		if errors.Is(err, net.ErrClosed) || failures > failuresBorne {
			p.once.Do(func() { p.err = err })
			_ = p.conn.Close() // for the other workers
			break
		}
		p.server.report(nil, err)
		if !pause.wait(p.state.end) {
			break
		}
	}
	finished = true
}

// datagram is what a worker answers, and its memory for that.
type datagram struct {
	in, out []byte
	request Request

	// If the system tells at which address it arrived:
	control, source []byte         // what it tells, and that the reply is to leave from there
	local           netip.AddrPort // what request.Local says
	from            netip.AddrPort
}

// read reads the next datagram into d.
func (p *packets) read(d *datagram) (n int, err error) {
	if p.udp == nil {
		n, d.request.Remote, err = p.conn.ReadFrom(d.in)
		return n, err
	}
	if d.control == nil {
		d.control = make([]byte, pktinfo.Size)
	}
	n, told, _, from, err := p.udp.ReadMsgUDPAddrPort(d.in, d.control)
	if err != nil {
		return n, err
	}
	arrival := pktinfo.Parse(d.control[:told])
	d.source = arrival.AppendControl(d.source[:0])
	if from != d.from || d.request.Remote == nil {
		d.from, d.request.Remote = from, net.UDPAddrFromAddrPort(from)
	}
	local := netip.AddrPortFrom(arrival.Local, p.port)
	if arrival.Local.IsLinkLocalUnicast() && arrival.Local.Is6() {
		local = netip.AddrPortFrom(arrival.Local.WithZone(from.Addr().Zone()), p.port)
	}
	switch {
	case local == d.local: // as nearly always; like Remote it is never changed, only replaced: a handler may have kept it
	case arrival.Local.IsValid():
		d.local, d.request.Local = local, net.UDPAddrFromAddrPort(local)
	default:
		d.local, d.request.Local = local, p.conn.LocalAddr()
	}
	return n, nil
}

// write sends a reply, by the address that was asked if that is known.
func (p *packets) write(d *datagram, reply []byte) (err error) {
	if p.udp == nil {
		// A local datagram waits until its receiver has room for it, for ever if that doesn't read.
		timeout := orDefault(p.server.WriteTimeout, DefaultWriteTimeout)
		_ = p.conn.SetWriteDeadline(time.Now().Add(timeout))
		_, err = p.conn.WriteTo(reply, d.request.Remote)
		return err
	}
	_, _, err = p.udp.WriteMsgUDPAddrPort(reply, d.source, d.from)
	return err
}

// answer answers a datagram.
func (p *packets) answer(d *datagram, message []byte) {
	if !p.state.run() {
		return
	}
	r := &d.request
	reply, err := p.carryOut(d.out[:0], message, r)
	if err != nil {
		return // what is no call gets no reply
	}
	if len(reply) > maxUDPReply {
		p.server.report(r, errReplyTooLong)
		reply = AppendAccepted(reply[:0], r.XID, SystemErr)
	}
	if err := p.write(d, reply); err != nil && !p.state.ended() {
		p.server.report(r, err)
		if len(reply) > AcceptedHeaderSize && !errors.Is(err, os.ErrDeadlineExceeded) {
			_ = p.write(d, AppendAccepted(reply[:0], r.XID, SystemErr)) // else the client asks again
		}
	}
	d.out = keepBuffer(reply)
}

func (p *packets) carryOut(out, message []byte, r *Request) ([]byte, error) {
	defer func() { <-p.state.running }()
	return p.server.answer(p.state.ctx, out, message, r)
}
