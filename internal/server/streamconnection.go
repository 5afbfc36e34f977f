package server

import (
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// lingerTime is how long a connection that is closed for what it sent may go on sending. Closing a socket with
// unread octets resets it, and a reset can overtake, at the client, replies that it hasn't read yet.
const lingerTime = time.Second

// A streamConnection is a TCP or local connection of a streamLoop. Idle, it is all that is held for a client, under 500
// octets.
type streamConnection struct {
	fd     int
	slot   uint32 // in the loop's table
	stream stream

	list         *streamList // nil while it is being served, or has all the time in the world
	before, next *streamConnection
	since        time.Duration // see streamList.add
	active       time.Duration // when octets came last
	begun        time.Duration // when the record that is pending began; 0 if none is
	fed          int           // octets of the last read

	in      *[readSize]byte // holds records that aren't answered yet; nil if there are none
	unsent  *replies        // that the client didn't take yet; nil if there are none
	keeping *keeping        // what it has to do with the Keeper; nil if nothing
	closing bool            // once they are sent
	linger  bool            // for what it sends no more calls are read
	away    bool            // something is done for it that may take long, see shift
	ignored bool            // and it isn't watched meanwhile

	asked, hasUID bool // whether the kernel was asked who is at the other end of a TCP connection, and told
	uid           uint32
	parked        bool // it waits for a turn among those whose calls may wait

	peer   peer // whom it is counted for
	owes   int  // octets that it was charged, see unread
	kernel int  // of these the kernel holds at most so many
	taken  int  // octets that the client took since it had to wait
}

func (c *streamConnection) local() bool { return c.stream.from.Transport == portmap.Local }

// put puts c into one of the lists for its kind.
func (l *streamLoop) put(c *streamConnection, list int) {
	peers := foreign
	switch {
	case c.local():
		peers = local
	case c.stream.from.Loopback:
		peers = own
	}
	l.lists[peers][list].add(c, l.now)
}

// isIn tells whether c is in one of those lists.
func (l *streamLoop) isIn(c *streamConnection, list int) bool {
	for peers := range l.lists {
		if c.list == &l.lists[peers][list] {
			return true
		}
	}
	return false
}

// remoteCaller learns who is at the other end of a TCP connection. That doesn't change while the connection lasts.
func (l *streamLoop) remoteCaller(fd int, v6 bool, remote, own netip.AddrPort) portmap.Caller {
	from := portmap.Caller{Transport: portmap.TCP6, Remote: remote, Local: own}
	if remote.Addr().Is4() { // on a dual-stack socket as well
		from.Transport = portmap.TCP
	}
	s := l.server
	ifindex, err := sys.ArrivalOf(fd, v6)
	if err == nil && ifindex != 0 {
		from.Ifindex, from.Loopback = ifindex, s.config.Loopback(ifindex)
		if !from.Loopback && remote.Addr().IsLoopback() && s.config.Owner != nil {
			// What this host sends to an address of another of its interfaces comes by loopback, and the kernel names that
			// interface. The other end is a socket of this host only if the kernel shows it, connected to this one.
			_, from.Loopback = s.config.Owner(fd, remote, own)
		}
		return from
	}
	s.config.Log.Debug("the interface of a caller is not known", "err", err)
	// Some kernels and sandboxes can't tell. A datagram would have to count as foreign then, but this caller finished a
	// handshake: it knows the sequence number that we sent to its address, and what is sent to a loopback address goes
	// by the loopback interface alone. To refuse it would keep servers of old C libraries from registering.
	from.Loopback = from.Remote.Addr().IsLoopback() && from.Local.Addr().IsLoopback()
	return from
}

// owned returns from with the uid of c's other end if the kernel tells that. It is asked once: all that a connection brings comes
// from the socket at its other end.
func (c *streamConnection) owned(from *portmap.Caller, owner func(int, netip.AddrPort, netip.AddrPort) (uint32, bool)) *portmap.Caller {
	if c.local() || !from.Loopback || owner == nil {
		return from
	}
	if !c.asked {
		c.asked = true
		c.uid, c.hasUID = owner(c.fd, from.Remote, from.Local)
	}
	known := *from
	known.UID, known.HasUID = c.uid, c.hasUID
	return &known
}

// localCaller is remoteCaller for a local connection.
func (l *streamLoop) localCaller(fd int) portmap.Caller {
	from := portmap.Caller{Transport: portmap.Local, Loopback: true}
	cred, err := sys.PeerCred(sys.ConnectionOf(fd))
	if err != nil {
		l.server.config.Log.Debug("a local caller's uid is not known", "err", err)
		return from
	}
	from.UID, from.HasUID = cred.UID, true
	from.Self = l.server.probed.local.Load() > 0 && int(cred.PID) == os.Getpid()
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
	read := sys.ReadNow
	if c.isKept() {
		read = sys.PeekNow
	}
	if l.tired() && l.isSlow(c) {
		l.park(c)
		return
	}
	n, err := read(c.fd, l.shift.in[:])
	switch {
	case err == syscall.EINTR:
	case err == syscall.EAGAIN && !l.draining:
	case n <= 0: // the client is done, or gone, and its calls are answered; or there is nothing left to drain
		l.close(c)
	case c.isKept():
		c.active = l.now
		l.peeked(c, n)
	default:
		c.active = l.now
		l.feed(c, n)
	}
}

// feed answers the first n octets that were read.
func (l *streamLoop) feed(c *streamConnection, n int) {
	c.fed = n
	c.stream.feed(l.shift.in[:n])
	l.answer(c)
}

// answer answers records that the connection's stream was fed, as many as make one large write. Those that are left are
// answered in the next turn, after everybody else's.
func (l *streamLoop) answer(c *streamConnection) {
	if from := &c.stream.from; !c.local() {
		from.Self = l.server.probed.has(from.Remote)
	}
	s, read := l.shift, l.now
	s.serving, s.calling, c.away = c, true, true
	taken, next := c.stream.answer(s)
	if s.over() {
		l.quit(func() {
			l.busy--
			if next < wantClose && next > wantInput && c.in == nil {
				c.in, s.in = s.in, nil
			}
			l.retire(s, c)
			l.answered(c, s, read, taken, next)
		})
	}
	c.away = false
	l.answered(c, s, read, taken, next)
}

// answered goes on when the replies of a turn are there.
func (l *streamLoop) answered(c *streamConnection, s *shift, read time.Duration, taken int, next verdict) {
	if taken > 0 {
		c.begun = 0
	}
	l.many = l.many || taken >= manyCalls
	sent := l.send(c, &s.out)
	s.out.clear()
	if !sent {
		l.close(c)
		return
	}
	if tell, from := l.server.config.Answered, &c.stream.from; tell != nil && taken > 0 && !from.Self {
		tell(from, taken, l.server.at(read), l.server.clock()-read)
	}
	switch next {
	case wantEarly:
		if c.unsent == nil && c.in == nil && s == l.shift {
			l.answer(c)
			return
		}
		l.detach(c)
	case wantFlush:
		l.detach(c)
	case wantInput:
		l.giveBack(c)
	case wantClose:
		l.giveBack(c)
		c.closing = true
	}
	if k := c.keeping; k != nil {
		k.called = k.called || taken > 0
		l.settleKept(c)
		return
	}
	l.settle(c)
}

// detach lets c keep the buffer that its stream was fed from.
func (l *streamLoop) detach(c *streamConnection) {
	if c.in == nil {
		c.in, l.shift.in = l.shift.in, l.server.inputs.Get().(*[readSize]byte)
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
	fed := c.fed
	c.fed = 0
	l.owe(c)
	switch {
	case c.unsent != nil:
		if !l.isIn(c, blocked) {
			l.put(c, blocked)
		}
	case c.closing:
		l.startLinger(c)
	case c.in != nil && c.stream.slow && !l.draining:
		l.park(c)
	case c.in != nil:
		c.leave()
		l.ready = append(l.ready, c)
	case l.draining && l.handOver(c):
		l.drop(c)
	case l.draining && l.awaitsRest(c):
		c.leave()
	case l.draining:
		c.leave()
		l.ready = append(l.ready, c)
	case c.stream.pending(fed):
		if c.begun == 0 {
			c.begun = l.now
			l.owe(c)
			l.rest(c, pending)
		}
	default:
		c.begun = 0
		c.stream.idle()
		l.rest(c, idle)
	}
}

// rest lets c wait for input. A local connection may do so for ever.
func (l *streamLoop) rest(c *streamConnection, list int) {
	switch k := c.keeping; {
	case !c.local():
		l.put(c, list)
	case k != nil && k.called && !k.kept:
		if !l.isIn(c, young) {
			l.put(c, young)
		}
	default:
		c.leave()
	}
}

// send sends the replies of a turn, and keeps for later what the client doesn't take at once. False says that it is gone.
func (l *streamLoop) send(c *streamConnection, out *replies) bool {
	if out.size == 0 {
		return true
	}
	if !l.sendNow(c.fd, out) {
		return false
	}
	l.handed(c, out.sent)
	if out.sent == out.size {
		return true
	}
	l.hold(c, out.rest())
	return l.poller.Change(c.fd, uint64(c.slot), false, true) == nil
}

// sendNow sends as much of r as the client takes. False says that it is gone.
func (l *streamLoop) sendNow(fd int, r *replies) bool {
	s := l.shift
	s.parts = r.parts(s.parts[:0])
	n, err := s.gather.SendNow(fd, s.parts)
	clear(s.parts)
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
	if c.unsent == nil {
		return
	}
	sent := c.unsent.sent
	if !l.sendNow(c.fd, c.unsent) {
		l.close(c)
		return
	}
	l.handed(c, c.unsent.sent-sent)
	if c.unsent.sent < c.unsent.size {
		l.owe(c)
		return
	}
	l.unhold(c)
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
	l.put(c, lingers)
}

// discard throws away what a client sends that was told that nothing more will come.
func (l *streamLoop) discard(c *streamConnection) {
	n, err := sys.ReadNow(c.fd, l.shift.in[:])
	if err != syscall.EINTR && err != syscall.EAGAIN && n <= 0 {
		l.close(c)
	}
}
