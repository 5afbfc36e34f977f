package bed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Transport is how a call reaches the subject.
type Transport string

// The transports that portmappers serve.
const (
	UDP      Transport = "udp"
	TCP      Transport = "tcp"
	UDP6     Transport = "udp6"
	TCP6     Transport = "tcp6"
	Unix     Transport = "unix"     // the stream socket SocketPath
	Abstract Transport = "abstract" // the same name in the abstract namespace; rpcbind 1.2.6 has none
)

// SocketPath is the path of the local socket, and behind a NUL octet the name
// of the abstract one.
const SocketPath = "/run/rpcbind.sock"

// portmapperPort is the port of program 100000 (RFC 1833 section 3).
const portmapperPort = 111

// Datagram tells whether calls travel without record marks.
func (tr Transport) Datagram() bool { return tr == UDP || tr == UDP6 }

// IPv6 tells whether the transport runs over IPv6.
func (tr Transport) IPv6() bool { return tr == UDP6 || tr == TCP6 }

// Local tells whether the transport is a socket of the AF_LOCAL family.
func (tr Transport) Local() bool { return tr == Unix || tr == Abstract }

// From says who calls, from where and, where it is not the obvious address, to
// where. The zero value is root, on this host, from a port that the kernel
// chooses, to 127.0.0.1, ::1 or the local socket.
type From struct {
	// UID is the user (and group) that makes and connects the socket, as
	// SO_PEERCRED and sock_diag show it.
	UID uint32
	// Remote calls from the remote host, to HostIPv4 or HostIPv6.
	Remote bool
	// Addr is the source address; with a zone where it is link-local. Zero:
	// the kernel chooses.
	Addr netip.Addr
	// Port is the source port, 0: the kernel chooses one above 1023. A port
	// below 1024 may be given with any UID.
	Port uint16
	// To is the destination; a zero address or port means the default.
	To netip.AddrPort
	// Path replaces SocketPath.
	Path string
	// Connected connects a UDP socket, as newer client libraries do.
	Connected bool
	// Patient waits longer before it calls nothing silence: for calls that
	// the subject forwards to another program.
	Patient bool
}

var (
	// ErrSilence means that the subject said nothing to the call although it
	// answered a later one.
	ErrSilence = errors.New("no reply")
	// ErrClosed means that the subject closed the connection instead of
	// replying.
	ErrClosed = errors.New("connection closed without a reply")
)

const (
	// quiet is how long a call may be unanswered before the probe that
	// tells silence from slowness is sent.
	quiet = 25 * time.Millisecond
	// grace is how long a datagram may still come after the probe's reply.
	grace = 40 * time.Millisecond
	// patientGrace is the same for From.Patient.
	patientGrace = 150 * time.Millisecond
	// patience bounds every wait for something that must come.
	patience = 15 * time.Second
)

// Conn is one client socket.
type Conn struct {
	fd        int
	transport Transport
	grace     time.Duration
	to        unix.Sockaddr // destination of an unconnected datagram socket, else nil
	partial   []byte        // stream octets received and not yet consumed
}

// Call sends one call message over a new socket and returns the reply message,
// without record marks. The error is ErrSilence or ErrClosed where the subject
// chose to say nothing, and another one where the call could not be made.
func (ns *NS) Call(t *testing.T, tr Transport, from From, call []byte) ([]byte, error) {
	t.Helper()
	c, err := ns.dial(tr, from)
	if err != nil {
		t.Fatalf("bed: %s: %v", tr, err)
	}
	defer c.Close()
	return c.Call(call)
}

// Dial opens a client socket and closes it at the end of the test.
func (ns *NS) Dial(t *testing.T, tr Transport, from From) *Conn {
	t.Helper()
	c, err := ns.dial(tr, from)
	if err != nil {
		t.Fatalf("bed: %s: %v", tr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TryDial is Dial with the error returned, for subjects that may not listen.
func (ns *NS) TryDial(tr Transport, from From) (*Conn, error) { return ns.dial(tr, from) }

// Close closes the socket. Further calls do nothing.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// CloseWrite shuts the sending half of a stream down.
func (c *Conn) CloseWrite() error { return unix.Shutdown(c.fd, unix.SHUT_WR) }

// LocalAddr returns the source address of an IP socket.
func (c *Conn) LocalAddr() (netip.AddrPort, error) {
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return addrPort(sa), nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// SetReceiveBuffer bounds the receive buffer (octets, before the kernel doubles
// it), for clients that do not read.
func (c *Conn) SetReceiveBuffer(octets int) error {
	return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, octets)
}

// Send sends octets as they are: one datagram, or a piece of the stream. The
// error is ErrClosed when the subject closed the connection.
func (c *Conn) Send(octets []byte) error {
	if c.transport.Datagram() {
		err := unix.Sendto(c.fd, octets, 0, c.to)
		if errors.Is(err, unix.ECONNREFUSED) {
			return ErrClosed
		}
		return err
	}
	for len(octets) > 0 {
		n, err := unix.SendmsgN(c.fd, octets, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			octets = octets[n:]
		case errors.Is(err, unix.EAGAIN):
			if err := c.poll(unix.POLLOUT, patience); err != nil {
				return fmt.Errorf("send: the subject does not read: %w", err)
			}
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return ErrClosed
		case errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// Transport returns what the socket runs over.
func (c *Conn) Transport() Transport { return c.transport }

// SendSome sends as much of a stream as the subject and the kernel take until
// half a second passes without progress, and returns how many octets that was.
func (c *Conn) SendSome(octets []byte) int {
	const noProgress = 500 * time.Millisecond
	sent := 0
	for sent < len(octets) {
		n, err := unix.SendmsgN(c.fd, octets[sent:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			sent += n
		case errors.Is(err, unix.EAGAIN):
			if c.poll(unix.POLLOUT, noProgress) != nil {
				return sent
			}
		case errors.Is(err, unix.EINTR):
		default:
			return sent
		}
	}
	return sent
}

// SendCall sends one whole call message: a datagram, or a record of one
// fragment.
func (c *Conn) SendCall(call []byte) error {
	if c.transport.Datagram() {
		return c.Send(call)
	}
	return c.Send(Record(call))
}

// Record returns the message as a record of a single fragment (RFC 5531
// section 11).
func Record(message []byte) []byte { return AppendFragment(nil, message, true) }

// AppendFragment appends one fragment of a record: the record mark, whose first
// bit says whether it is the last, and the octets.
func AppendFragment(dst, octets []byte, last bool) []byte {
	mark := uint32(len(octets))
	if last {
		mark |= lastFragment
	}
	return append(binary.BigEndian.AppendUint32(dst, mark), octets...)
}

const (
	lastFragment = 1 << 31
	markOctets   = 4
)

// poll waits for events; ErrSilence when none comes in time.
func (c *Conn) poll(events int16, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		left := time.Until(deadline)
		if left < 0 {
			left = 0
		}
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
		// Rounded up: a poll of 0 ms would spin through the last one.
		n, err := unix.Poll(fds, int((left+time.Millisecond-1)/time.Millisecond))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n > 0:
			return nil
		case left == 0:
			return ErrSilence
		}
	}
}

// Receive returns the next datagram, or the next record put together from its
// fragments. The error is ErrSilence when none arrives in time and ErrClosed
// when the stream ends first.
func (c *Conn) Receive(timeout time.Duration) ([]byte, error) {
	if c.transport.Datagram() {
		message, _, err := c.ReceiveFrom(timeout)
		return message, err
	}
	deadline := time.Now().Add(timeout)
	for {
		if message, used, ok := splitRecord(c.partial); ok {
			c.partial = c.partial[used:]
			return message, nil
		}
		if err := c.fill(time.Until(deadline)); err != nil {
			return nil, err
		}
	}
}

// ReceiveFrom returns the next datagram and the address it came from.
func (c *Conn) ReceiveFrom(timeout time.Duration) ([]byte, netip.AddrPort, error) {
	if err := c.poll(unix.POLLIN, timeout); err != nil {
		return nil, netip.AddrPort{}, err
	}
	buffer := make([]byte, 65536)
	n, sender, err := unix.Recvfrom(c.fd, buffer, 0)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, netip.AddrPort{}, ErrClosed
	}
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("receive: %w", err)
	}
	return buffer[:n], addrPort(sender), nil
}

// ReceiveFragments returns the lengths of the fragments of the next record, and
// the record.
func (c *Conn) ReceiveFragments(timeout time.Duration) (lengths []int, message []byte, err error) {
	deadline := time.Now().Add(timeout)
	for {
		if message, used, ok := splitRecord(c.partial); ok {
			for rest := c.partial[:used]; len(rest) > 0; {
				n := int(binary.BigEndian.Uint32(rest) &^ lastFragment)
				lengths = append(lengths, n)
				rest = rest[markOctets+n:]
			}
			c.partial = c.partial[used:]
			return lengths, message, nil
		}
		if err := c.fill(time.Until(deadline)); err != nil {
			return nil, nil, err
		}
	}
}

// WaitClosed returns nil when the subject ends the stream within the timeout,
// ErrSilence when it stays open, and an error that says how many octets came
// when something else arrived first.
func (c *Conn) WaitClosed(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		if err := c.fill(time.Until(deadline)); errors.Is(err, ErrClosed) {
			break
		} else if err != nil {
			return err
		}
	}
	if len(c.partial) > 0 {
		return fmt.Errorf("%d octets came before the end of the stream: %x", len(c.partial), c.partial)
	}
	return nil
}

// fill reads more of the stream into partial.
func (c *Conn) fill(timeout time.Duration) error {
	if err := c.poll(unix.POLLIN, timeout); err != nil {
		return err
	}
	buffer := make([]byte, 65536)
	n, err := unix.Read(c.fd, buffer)
	switch {
	case errors.Is(err, unix.ECONNRESET), n == 0 && err == nil:
		return ErrClosed
	case err != nil:
		return fmt.Errorf("receive: %w", err)
	}
	c.partial = append(c.partial, buffer[:n]...)
	return nil
}

// splitRecord returns the first whole record of the stream and how many octets
// it took there.
func splitRecord(stream []byte) (message []byte, used int, ok bool) {
	for used+markOctets <= len(stream) {
		mark := binary.BigEndian.Uint32(stream[used:])
		end := used + markOctets + int(mark&^lastFragment)
		if end > len(stream) {
			break
		}
		message = append(message, stream[used+markOctets:end]...)
		used = end
		if mark&lastFragment != 0 {
			return message, used, true
		}
	}
	return nil, 0, false
}

// Call sends one call message and returns the reply message. Silence is told
// from slowness by a second call, to a program that nobody has (portmappers do
// not count it): when that one is answered and the first is not, the error is
// ErrSilence.
func (c *Conn) Call(call []byte) ([]byte, error) {
	if err := c.SendCall(call); err != nil {
		return nil, err
	}
	probe := probeFor(call)
	wait, probed := quiet, false
	for {
		reply, err := c.Receive(wait)
		switch {
		case errors.Is(err, ErrSilence) && !probed:
			if err := c.SendCall(probe); err != nil {
				return nil, err
			}
			wait, probed = patience, true
		case errors.Is(err, ErrSilence) && wait == patience:
			return nil, fmt.Errorf("neither the call nor the one after it was answered within %v", patience)
		case err != nil:
			return nil, err
		case c.transport.Datagram() && late(reply, call, probe):
		case !probed || !sameXID(reply, probe):
			return reply, nil
		case c.transport.Datagram():
			// Datagrams may overtake each other on several threads.
			wait = c.grace
		default:
			return nil, ErrSilence
		}
	}
}

// probeXID is what the xid of every probe begins with; the rest is its own.
const probeXID = 0x7072 << 16

// probeFor returns a NULL call of a program that is not the portmapper's, whose
// xid differs from that of call, and from those of other probes.
func probeFor(call []byte) []byte {
	xid := probeXID | rand.Uint32N(1<<16)
	if len(call) >= 4 && binary.BigEndian.Uint32(call) == xid {
		xid ^= 1
	}
	const unassigned = 0x3ffffff0
	return NullCall(xid, unassigned, 1)
}

// late tells whether a datagram answers an earlier call from this port, or its
// probe, of a socket that may be closed by now. A call too short for an xid
// has any reply but a probe's.
func late(reply, call, probe []byte) bool {
	if sameXID(reply, call) || sameXID(reply, probe) || len(reply) < 4 {
		return false
	}
	return len(call) >= 4 || binary.BigEndian.Uint32(reply)&0xffff0000 == probeXID
}

func sameXID(a, b []byte) bool {
	return len(a) >= 4 && len(b) >= 4 && string(a[:4]) == string(b[:4])
}

// NullCall returns a call of procedure 0 with AUTH_NONE.
func NullCall(xid, program, version uint32) []byte {
	b := make([]byte, 0, 40)
	for _, word := range []uint32{xid, 0, 2, program, version, 0, 0, 0, 0, 0} {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return b
}

// ping makes a NULL call of version 2.
func ping(tr Transport) error {
	c, err := openSocket(tr, From{})
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Call(NullCall(1, 100000, 2))
	if err != nil {
		return err
	}
	if len(reply) != 24 {
		return fmt.Errorf("a reply of %d octets to NULL: %w", len(reply), io.ErrUnexpectedEOF)
	}
	return nil
}
