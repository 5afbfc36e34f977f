package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Receive buffers. The kernel packs a dump into messages of 8 KiB at most, or 32 KiB where the buffer has the room; only
// an interface with many virtual functions takes more.
const (
	diagOctets  = 8 << 10
	routeOctets = 64 << 10
)

// netlinkTimeout bounds the wait for an answer. The kernel answers within the request's send call; only one that never
// does (a lost answer for want of memory) is waited for.
const netlinkTimeout = 200 * time.Millisecond

// errDumpInterrupted says that what was dumped changed meanwhile, so that the dump may be inconsistent.
var errDumpInterrupted = errors.New("the tables changed during the dump")

// A netlinkConn is a netlink socket for requests, one at a time.
type netlinkConn struct {
	fd  int
	seq uint32
	buf []byte
}

// dialNetlink opens a netlink socket of the given protocol, such as NETLINK_ROUTE, with a receive buffer of so many octets.
func dialNetlink(protocol, octets int) (*netlinkConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &netlinkConn{fd: fd, buf: make([]byte, octets)}
	timeout := unix.NsecToTimeval(int64(netlinkTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		c.close()
		return nil, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	return c, nil
}

func (c *netlinkConn) close() { unix.Close(c.fd) }

// request sends one message and calls each for every answer until the last one: the only one, or with NLM_F_DUMP in flags
// the end of the dump. The data given to each is valid during the call. An errno that the kernel answers is returned as it
// is.
//
//	 0                   16                  31
//	+-----------------------------------------+
//	|  length, octets, with this header       |
//	|  type              |  flags             |
//	|  sequence number                        |
//	|  port id, 0 = the kernel                |
//	+-----------------------------------------+  host byte order
func (c *netlinkConn) request(typ, flags uint16, payload []byte, each func(typ uint16, data []byte)) error {
	c.seq++
	order := binary.NativeEndian
	m := make([]byte, 0, unix.NLMSG_HDRLEN+len(payload))
	m = order.AppendUint32(m, uint32(unix.NLMSG_HDRLEN+len(payload)))
	m = order.AppendUint16(m, typ)
	m = order.AppendUint16(m, flags|unix.NLM_F_REQUEST)
	m = order.AppendUint32(m, c.seq)
	m = order.AppendUint32(m, 0)
	m = append(m, payload...)
	if err := unix.Sendto(c.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	interrupted := false
	for {
		b, err := c.receive()
		if err != nil {
			return err
		}
		last, err := c.answers(b, each, &interrupted)
		switch {
		case err != nil:
			return err
		case last && interrupted:
			return errDumpInterrupted
		case last:
			return nil
		}
	}
}

// receive returns the next packet of the kernel's. Others may write to a netlink socket too.
func (c *netlinkConn) receive() ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, os.NewSyscallError("receive", err)
		case n > len(c.buf):
			return nil, fmt.Errorf("receive: an answer of %d octets, more than %d", n, len(c.buf))
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
			return c.buf[:n], nil
		}
	}
}

// answers walks through the messages of one packet; last says that no more will come.
func (c *netlinkConn) answers(b []byte, each func(uint16, []byte), interrupted *bool) (last bool, err error) {
	order := binary.NativeEndian
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(order.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return true, errors.New("an answer with a wrong length")
		}
		typ, flags, seq := order.Uint16(b[4:]), order.Uint16(b[6:]), order.Uint32(b[8:])
		data := b[unix.NLMSG_HDRLEN:size]
		b = b[min(align4(size), len(b)):]
		if seq != c.seq {
			continue // left over from a request given up
		}
		*interrupted = *interrupted || flags&unix.NLM_F_DUMP_INTR != 0
		switch typ {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			// Both start with an int: minus the errno, or 0 (for NLMSG_DONE also a count).
			if len(data) >= 4 {
				if n := int32(order.Uint32(data)); n < 0 {
					return true, unix.Errno(-n)
				}
			}
			return true, nil
		}
		each(typ, data)
		if flags&unix.NLM_F_MULTI == 0 {
			return true, nil
		}
	}
	return false, nil
}

// attributes calls each for every netlink attribute in b: uint16 length with this header, uint16 type, data, padding to 4.
func attributes(b []byte, each func(typ uint16, data []byte)) {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofNlAttr {
		size := int(order.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return
		}
		each(order.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size])
		b = b[min(align4(size), len(b)):]
	}
}

func align4(n int) int { return (n + 3) &^ 3 }
