package server

import (
	"net/netip"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// A streamConnection is a TCP connection of a streamLoop. Idle, it is all that is held for a client, under 500 octets.
type streamConnection struct {
	fd     int
	slot   uint32 // in the loop's table
	stream stream

	list         *streamList // nil while it is being served
	before, next *streamConnection
	since        time.Duration // see streamList.add
	active       time.Duration // when octets came last
	begun        time.Duration // when the record that is pending began; 0 if none is
	fed          int           // octets of the last read

	in      *[readSize]byte // holds records that aren't answered yet; nil if there are none
	unsent  *replies        // that the client didn't take yet; nil if there are none
	closing bool            // once they are sent
	linger  bool            // for what it sends no more calls are read
}

// identify learns who is at the other end. That doesn't change while the connection lasts.
func (l *streamLoop) identify(fd int, v6 bool, remote, local netip.AddrPort) portmap.Caller {
	from := portmap.Caller{Transport: portmap.TCP6, Remote: remote, Local: local}
	if remote.Addr().Is4() { // on a dual-stack socket as well
		from.Transport = portmap.TCP
	}
	ifindex, err := sys.ArrivalOf(fd, v6)
	l.server.arrived(&from, ifindex, err)
	return from
}

// readable takes what has come and answers it.
func (l *streamLoop) readable(c *streamConnection) {
	switch {
	case c.unsent != nil || c.in != nil:
		return // nothing is read while the client doesn't take its replies, or has calls to be answered
	case c.linger:
		l.discard(c)
		return
	}
	n, err := sys.ReadNow(c.fd, l.in[:])
	switch {
	case err == syscall.EINTR:
	case err == syscall.EAGAIN && !l.draining:
	case n <= 0: // the client is done, or gone, and its calls are answered; or there is nothing left to drain
		l.close(c)
	default:
		c.active = l.now
		c.fed = n
		c.stream.feed(l.in[:n])
		l.answer(c)
	}
}

// answer answers records that the connection's stream was fed, as many as make one large write. Those that are left are
// answered in the next turn, after everybody else's.
func (l *streamLoop) answer(c *streamConnection) {
	from := &c.stream.from
	from.Self = l.server.probed.has(from.Remote)
	taken, next := c.stream.answer(&l.out)
	if taken > 0 {
		c.begun = 0
	}
	sent := l.send(c)
	l.out.clear()
	if !sent {
		l.close(c)
		return
	}
	if tell := l.server.config.Answered; tell != nil && taken > 0 && !from.Self {
		tell(from, taken, l.server.at(l.now), l.server.clock()-l.now)
	}
	switch next {
	case wantFlush:
		l.detach(c)
	case wantInput:
		l.giveBack(c)
	case wantClose:
		l.giveBack(c)
		c.closing = true
	}
	l.settle(c)
}

// detach lets c keep the buffer that its stream was fed from.
func (l *streamLoop) detach(c *streamConnection) {
	if c.in == nil {
		c.in, l.in = l.in, l.server.inputs.Get().(*[readSize]byte)
	}
}

func (l *streamLoop) giveBack(c *streamConnection) {
	if c.in != nil {
		l.server.inputs.Put(c.in)
		c.in = nil
	}
}

// settle puts c where it belongs after a turn.
func (l *streamLoop) settle(c *streamConnection) {
	switch {
	case c.unsent != nil:
		if c.list != &l.blocked {
			l.blocked.add(c, l.now)
		}
	case c.closing:
		l.startLinger(c)
	case c.in == nil && l.draining && l.handOver(c):
		l.close(c)
	case c.in != nil || l.draining:
		c.leave()
		l.ready = append(l.ready, c)
	case c.stream.pending(c.fed):
		if c.begun == 0 {
			c.begun = l.now
			l.pending.add(c, l.now)
		}
	default:
		c.begun = 0
		c.stream.idle()
		l.idle.add(c, l.now)
	}
	c.fed = 0
}

// send sends the replies of a turn, and keeps for later what the client doesn't take at once. False says that it is gone.
func (l *streamLoop) send(c *streamConnection) bool {
	if l.out.size == 0 {
		return true
	}
	if !l.sendNow(c.fd, &l.out) {
		return false
	}
	if l.out.sent == l.out.size {
		return true
	}
	c.unsent = l.out.rest()
	return l.poller.Change(c.fd, uint64(c.slot), false, true) == nil
}

// sendNow sends as much of r as the client takes. False says that it is gone.
func (l *streamLoop) sendNow(fd int, r *replies) bool {
	l.parts = r.parts(l.parts[:0])
	n, err := l.gather.SendNow(fd, l.parts)
	clear(l.parts)
	switch {
	case err == nil:
		r.sent += n
	case err != syscall.EAGAIN && err != syscall.EINTR:
		return false
	}
	return true
}

// writable goes on where send had to stop.
func (l *streamLoop) writable(c *streamConnection) {
	switch {
	case c.unsent == nil:
		return
	case !l.sendNow(c.fd, c.unsent):
		l.close(c)
		return
	case c.unsent.sent < c.unsent.size:
		return
	}
	c.unsent = nil
	if l.poller.Change(c.fd, uint64(c.slot), true, false) != nil {
		l.close(c)
		return
	}
	c.leave()
	l.settle(c)
}

// startLinger tells the client that nothing more will come, and waits a little for it to have done as well, unless the
// Server itself is about to end.
func (l *streamLoop) startLinger(c *streamConnection) {
	if l.draining || syscall.Shutdown(c.fd, syscall.SHUT_WR) != nil {
		l.close(c)
		return
	}
	c.linger = true
	c.stream.records = oncrpc.RecordReader{}
	l.lingers.add(c, l.now)
}

// discard throws away what a client sends that was told that nothing more will come.
func (l *streamLoop) discard(c *streamConnection) {
	n, err := sys.ReadNow(c.fd, l.in[:])
	if err != syscall.EINTR && err != syscall.EAGAIN && n <= 0 {
		l.close(c)
	}
}
