package sys

import (
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Datagram is one UDP datagram, received or to be sent.
type Datagram struct {
	// Payload holds the octets received or to be sent. A received payload lies in its Batch's buffer.
	Payload []byte
	// Remote is the source of a received datagram, the destination of one to be sent. No zone, never IPv4-mapped.
	Remote netip.AddrPort
	// Local is our address: the one a received datagram must be answered from (IP_PKTINFO's ipi_spec_dst, IPV6_PKTINFO's
	// destination), the source of one to be sent. The zero Addr leaves the choice to the kernel; that is what a datagram
	// sent to an IPv6 multicast group has.
	Local netip.Addr
	// Ifindex is the interface of arrival, 0 if the kernel did not tell. In sending it is the scope of a link-local
	// Remote or Local and otherwise unused.
	Ifindex uint32
	// Hops is the time to live or hop limit that a received datagram had left, 0 if the kernel did not tell. Unused in
	// sending.
	Hops uint8
	// Multicast says that the datagram was sent to a broadcast or multicast address. Unused in sending.
	Multicast bool
	// Truncated says that the datagram was longer than the buffer and lost its end. Unused in sending.
	Truncated bool
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr    unix.Msghdr
	octets uint32
}

// messages is an array of message headers with everything that they point to.
type messages struct {
	hdrs    []mmsghdr
	iovs    []unix.Iovec
	names   []unix.RawSockaddrInet6
	control []byte // controlOctets for each message
}

func newMessages(n int) messages {
	m := messages{
		hdrs:    make([]mmsghdr, n),
		iovs:    make([]unix.Iovec, n),
		names:   make([]unix.RawSockaddrInet6, n),
		control: make([]byte, n*controlOctets),
	}
	for i := range m.hdrs {
		h := &m.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		h.Iov = &m.iovs[i]
		h.SetIovlen(1)
		h.Control = &m.control[i*controlOctets]
	}
	return m
}

// controlOf returns the control buffer of message i.
func (m *messages) controlOf(i int) []byte {
	return m.control[i*controlOctets : (i+1)*controlOctets : (i+1)*controlOctets]
}

// A Batch reads and writes datagrams many at a time, by recvmmsg(2) and sendmmsg(2). It belongs to one goroutine, serves
// any number of PacketConns in turn, and allocates nothing after NewBatch unless an error is to be reported.
type Batch struct {
	in        messages
	buffer    []byte
	octets    int
	datagrams []Datagram
	received  int
	recvErrno unix.Errno
	recvFlags uintptr
	recv      func(fd uintptr) // made once: a closure made by each call would be an allocation
	busy      *PacketConn      // brought the last datagram: the next one is waited for in recvmmsg
	yielded   time.Time

	polling    *PacketConn // by await
	timeout    int         // ms
	polled     [2]unix.PollFd
	pollSocket func(fd uintptr)
	pollAlarm  func(fd uintptr)

	out       messages
	origin    []int // index in Write's argument of each message of out
	next, end int   // messages still to be sent
	failed    int   // index in out of the first message that the kernel refused
	sendErrno unix.Errno
	send      func(fd uintptr)
}

// NewBatch makes a batch of n datagrams, with a receive buffer of the given number of octets for each. Both must be
// positive.
func NewBatch(n, octets int) *Batch {
	b := &Batch{
		in:        newMessages(n),
		buffer:    make([]byte, n*octets),
		octets:    octets,
		datagrams: make([]Datagram, n),
		out:       newMessages(n),
		origin:    make([]int, n),
	}
	for i := range b.in.iovs {
		b.in.iovs[i].Base = &b.buffer[i*octets]
		b.in.iovs[i].SetLen(octets)
	}
	b.received = n
	b.renew()
	b.recv, b.send = b.recvmmsg, b.sendmmsg
	b.pollAlarm = b.pollBoth
	b.pollSocket = func(fd uintptr) {
		b.polled[0] = unix.PollFd{Fd: int32(fd)}
		_ = b.polling.alarm.raw.Control(b.pollAlarm) // closed, with the socket: await looks for that next
	}
	return b
}

// Read waits for at least one datagram and returns those that are there, as many as the batch holds. The result and the
// payloads in it are valid until the next Read. The error is os.ErrDeadlineExceeded after the deadline (datagrams that
// wait in the socket stay there) and net.ErrClosed after Close; any other is the socket's own and may be temporary
// (ENOBUFS, ENOMEM). ICMP errors about earlier answers are not errors of Read.
//
// After a datagram the next is waited for in recvmmsg(2), for busyWait; only then in poll(2), with the alarm. Where
// somebody who shares the socket has made it nonblocking, every wait is in poll.
func (b *Batch) Read(c *PacketConn) ([]Datagram, error) {
	b.renew()
	b.received, b.recvErrno = 0, 0
	for b.received == 0 && b.recvErrno == 0 {
		b.recvFlags = unix.MSG_WAITFORONE
		if b.busy != c || c.deadline.Load() != 0 {
			if err := b.await(c); err != nil {
				return nil, err
			}
			b.recvFlags = unix.MSG_DONTWAIT
		}
		b.busy = nil
		if err := c.raw.Control(b.recv); err != nil {
			return nil, c.ended(err)
		}
	}
	if b.recvErrno != 0 {
		return nil, fmt.Errorf("receive on udp %v: recvmmsg: %w", c.local, b.recvErrno)
	}
	b.busy = c
	b.yield()
	for i := range b.received {
		b.datagrams[i] = b.datagram(i)
	}
	return b.datagrams[:b.received], nil
}

// renew makes the headers that the last Read used ready for the next. Those that it didn't use are left alone: a call that
// comes alone should touch no more memory than it needs.
func (b *Batch) renew() {
	for i := range b.received {
		h := &b.in.hdrs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlOctets)
		h.Flags = 0
	}
}

// recvmmsg is the body of Read. It leaves neither datagrams nor an errno if there is nothing to read.
func (b *Batch) recvmmsg(fd uintptr) {
	for tries := 0; ; tries++ {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in.hdrs[0])),
			uintptr(len(b.in.hdrs)), b.recvFlags, 0, 0)
		switch {
		case errno == 0:
			b.received = int(n)
			return
		case errno == unix.EAGAIN:
			return
		case (errno == unix.EINTR || stale(errno)) && tries < maxTries:
			// The kernel clears a pending error when it reports it.
		default:
			b.recvErrno = errno
			return
		}
	}
}

// maxTries bounds the pending errors that one Read steps over, in case an errno that looks like one is there to stay (a
// security module's EACCES).
const maxTries = 64

// stale says whether errno is, on a UDP socket, the news about a datagram sent earlier (an ICMP error, an interface gone)
// and not about the call that returned it.
func stale(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN,
		unix.ENONET, unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EACCES, unix.EOPNOTSUPP:
		return true
	}
	return false
}

// datagram describes the received message i.
func (b *Batch) datagram(i int) Datagram {
	m := &b.in.hdrs[i]
	start, n := i*b.octets, min(int(m.octets), b.octets)
	a := parseArrival(b.in.controlOf(i)[:min(int(m.hdr.Controllen), controlOctets)])
	return Datagram{
		Payload:   b.buffer[start : start+n : start+b.octets],
		Remote:    getAddr(&b.in.names[i]),
		Local:     a.local,
		Ifindex:   a.ifindex,
		Multicast: a.multicast,
		Hops:      a.hops,
		Truncated: m.hdr.Flags&unix.MSG_TRUNC != 0,
	}
}

// Write sends all of out, each datagram from its Local to its Remote. It never waits: a datagram for which the send buffer
// has no room is dropped, as UDP may, because one slow interface must not hold up every other caller. A datagram that
// cannot be sent does not keep back those after it; the error is about the first such one. Write does not keep the
// payloads.
func (b *Batch) Write(c *PacketConn, out []Datagram) error {
	var first error
	for base := 0; base < len(out); {
		used := b.prepare(c, out[base:], base, &first)
		b.next, b.failed, b.sendErrno = 0, -1, 0
		if err := c.raw.Control(b.send); err != nil {
			return c.ended(err)
		}
		if b.failed >= 0 && first == nil {
			d := &out[b.origin[b.failed]]
			first = fmt.Errorf("send %d octets from udp %v (%v) to %v: sendmmsg: %w",
				len(d.Payload), c.local, d.Local, d.Remote, b.sendErrno)
		}
		for i := range b.end {
			b.out.iovs[i].Base = nil
		}
		base += used
	}
	return first
}

// prepare fills message headers from the front of out, which starts at index base of Write's argument, and returns how
// many datagrams it took. One that the socket's family cannot send is left out and reported.
func (b *Batch) prepare(c *PacketConn, out []Datagram, base int, first *error) (used int) {
	b.end = 0
	for used < len(out) && b.end < len(b.out.hdrs) {
		d := &out[used]
		used++
		local := d.Local.Unmap()
		size := putAddr(&b.out.names[b.end], d.Remote, d.Ifindex, c.v6)
		if size == 0 || local.IsValid() && local.Is4() != d.Remote.Addr().Unmap().Is4() {
			if b.end > 0 {
				return used - 1 // those before it first, so that the first error is the first one's
			}
			if *first == nil {
				*first = fmt.Errorf("send %d octets from udp %v (%v) to %v: %w",
					len(d.Payload), c.local, d.Local, d.Remote, unix.EAFNOSUPPORT)
			}
			continue
		}
		h := &b.out.hdrs[b.end].hdr
		h.Namelen = uint32(size)
		h.SetControllen(putSource(b.out.controlOf(b.end), local, d.Ifindex))
		iov := &b.out.iovs[b.end]
		iov.Base = unsafe.SliceData(d.Payload)
		iov.SetLen(len(d.Payload))
		b.origin[b.end] = base + used - 1
		b.end++
	}
	return used
}

// sendmmsg is the body of Write. The kernel stops at the first message it refuses and tells the errno only when that is
// the first of a call: so go on from there, and step over it.
func (b *Batch) sendmmsg(fd uintptr) {
	again := false
	for b.next < b.end {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out.hdrs[b.next])),
			uintptr(b.end-b.next), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == 0:
			b.next += int(n)
			again = false
		case errno == unix.EINTR:
		case stale(errno) && !again:
			// Perhaps an ICMP error about an earlier datagram: this one gets a second try.
			again = true
		default:
			if b.failed < 0 {
				b.failed, b.sendErrno = b.next, errno
			}
			b.next++
			again = false
		}
	}
}

// ended translates the poller's error: a closed file's error is not exported by its package.
func (c *PacketConn) ended(err error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return err
}
