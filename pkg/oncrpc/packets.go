package oncrpc

import (
	"errors"
	"net"
	"sync"
	"time"
)

// maxUDPReply is the size in octets of the largest UDP payload over IPv4.
const maxUDPReply = 65507

// failuresBorne is how often in a row a datagram socket may fail to read.
const failuresBorne = 100

// ServePacket answers the datagrams of conn, as of a UDP socket, until it is closed or the Server is. It returns when
// the calls that it has received are answered: [ErrServerClosed] after Shutdown and Close, else the error of conn, which
// is closed in either case. A datagram that is no call, or longer than [Server.MaxRecord], isn't answered. A reply that is
// longer than 65,507 octets, or that conn refuses to send, becomes SYSTEM_ERR.
func (s *Server) ServePacket(conn net.PacketConn) error {
	p := &packets{server: s, conn: conn}
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
	in := make([]byte, min(orDefault(p.server.MaxRecord, DefaultMaxRecord), maxDatagram)+1)
	var out []byte
	request := Request{Local: p.conn.LocalAddr()}
	var pause pause
	failures := 0
	for !p.state.ended() {
		n, from, err := p.conn.ReadFrom(in)
		if err == nil {
			pause.reset()
			failures = 0
			if n < len(in) && from != nil {
				request.Remote = from
				out = p.answer(out, in[:n], &request)
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

// answer answers a datagram, in the memory of out, which it returns.
func (p *packets) answer(out, message []byte, r *Request) []byte {
	if !p.state.run() {
		return out
	}
	reply, err := p.carryOut(out[:0], message, r)
	if err != nil {
		return out // what is no call gets no reply
	}
	if len(reply) > maxUDPReply {
		p.server.report(r, errReplyTooLong)
		reply = AppendAccepted(reply[:0], r.XID, SystemErr)
	}
	if _, err := p.conn.WriteTo(reply, r.Remote); err != nil && !p.state.ended() {
		p.server.report(r, err)
		if len(reply) > AcceptedHeaderSize {
			_, _ = p.conn.WriteTo(AppendAccepted(reply[:0], r.XID, SystemErr), r.Remote) // else the client asks again
		}
	}
	return keepBuffer(reply)
}

func (p *packets) carryOut(out, message []byte, r *Request) ([]byte, error) {
	defer func() { <-p.state.running }()
	return p.server.answer(p.state.ctx, out, message, r)
}
