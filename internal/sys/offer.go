package sys

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MostHandedOver is how many connections a process can hand over to another: they are in one message, which has room for 253
// (SCM_MAX_FD of unix(7)).
const MostHandedOver = 253

// handOverPatience is how long the other side of a handover may take.
const handOverPatience = 2 * time.Second

// A HandOver offers connections to one process. It is for a service that is started by another process than ours, and so has no
// descriptors of us.
type HandOver struct {
	listener *net.UnixListener
	done     chan struct{}
	handed   bool
	err      error
}

// OfferConnections hands the connections over to the first process of one of the users that calls [HandedOver] with the same
// name, one in the abstract namespace. They stay the caller's as well.
func OfferConnections(name string, conns []*Connection, isUser func(uid uint32) bool) (*HandOver, error) {
	if len(conns) > MostHandedOver {
		return nil, fmt.Errorf("hand over connections: %d are more than %d", len(conns), MostHandedOver)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("hand over connections: %w", err)
	}
	o := &HandOver{listener: l, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		for !o.handed {
			c, err := l.AcceptUnix()
			if err != nil {
				return // by Close
			}
			if cred, err := PeerCred(c); err == nil && isUser(cred.UID) {
				o.err = sendConnections(c, conns)
				o.handed = o.err == nil
			}
			c.Close()
		}
	}()
	return o, nil
}

// Close ends the offer. The error says that nobody has the connections.
func (o *HandOver) Close() error {
	o.listener.Close()
	<-o.done
	switch {
	case o.handed:
		return nil
	case o.err != nil:
		return fmt.Errorf("hand over connections: %w", o.err)
	}
	return errors.New("hand over connections: nobody asked for them")
}

func sendConnections(c *net.UnixConn, conns []*Connection) error {
	if err := c.SetDeadline(time.Now().Add(handOverPatience)); err != nil {
		return err
	}
	numbers := make([]int, len(conns))
	for i, conn := range conns {
		numbers[i] = conn.fd
	}
	_, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(numbers...), nil)
	return err
}

// HandedOver returns the connections that root, or another process of our user, offers by that name. It returns none if there
// is no offer.
func HandedOver(name string) ([]*Connection, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: name, Net: "unix"})
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil
	}
	fail := func(err error) ([]*Connection, error) {
		return nil, fmt.Errorf("connections handed over: %w", err)
	}
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	// Everybody may have the name.
	if cred, err := PeerCred(c); err != nil {
		return fail(err)
	} else if cred.UID != 0 && int(cred.UID) != os.Geteuid() {
		return fail(fmt.Errorf("user %d has no right to offer any: %w", cred.UID, unix.EPERM))
	}
	if err := c.SetDeadline(time.Now().Add(handOverPatience)); err != nil {
		return fail(err)
	}
	rights := make([]byte, unix.CmsgSpace(MostHandedOver*4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), rights) // close-on-exec
	if err != nil {
		return fail(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return fail(err)
	}
	var conns []*Connection
	for _, m := range messages {
		numbers, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // another kind of message
		}
		for _, fd := range numbers {
			conns = append(conns, &Connection{fd})
		}
	}
	return conns, nil
}
