package sys

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busyReader starts a Read that waits in recvmmsg, because a datagram came just before, and returns what it will return.
func busyReader(t *testing.T, c *PacketConn) <-chan error {
	t.Helper()
	b := NewBatch(1, 100)
	sendSelf(t, c)
	read(t, b, c)
	if b.busy != c {
		t.Fatal("after a datagram the next isn't waited for in recvmmsg")
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.Read(c)
		done <- err
	}()
	return done
}

func sendSelf(t *testing.T, c *PacketConn) {
	t.Helper()
	if err := NewBatch(1, 100).Write(c, []Datagram{{Payload: []byte("x"), Remote: c.LocalAddr()}}); err != nil {
		t.Fatal(err)
	}
}

// However a Read waits, it ends by a deadline, a new datagram or Close.
func TestReadEndsWhereverItWaits(t *testing.T) {
	for _, wait := range []time.Duration{0, busyWait / 2, 5 * busyWait} { // in recvmmsg, in recvmmsg, in poll
		for _, test := range []struct {
			name string
			end  func(c *PacketConn) error
			want error
		}{
			{"past deadline", func(c *PacketConn) error { return c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
			{"deadline to come", func(c *PacketConn) error { return c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
			{"close", (*PacketConn).Close, net.ErrClosed},
			{"datagram", func(c *PacketConn) error { sendSelf(t, c); return nil }, nil},
		} {
			c := mustUDP(t, "127.0.0.1:0").Packet
			done := busyReader(t, c)
			time.Sleep(wait)
			if err := test.end(c); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, test.want) {
				t.Errorf("%s after %v: %v, want %v", test.name, wait, err, test.want)
			}
		}
	}
}

// A Close is noticed under a deadline that is far away, and so is a nearer deadline.
func TestReadEndsUnderADeadline(t *testing.T) {
	for _, end := range []func(*PacketConn) error{
		(*PacketConn).Close,
		func(c *PacketConn) error { return c.SetReadDeadline(time.Unix(1, 0)) },
	} {
		c := mustUDP(t, "127.0.0.1:0").Packet
		if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := NewBatch(1, 100).Read(c)
			done <- err
		}()
		if err := end(c); err != nil {
			t.Fatal(err)
		}
		if <-done == nil {
			t.Error("Read returned a datagram that nobody sent")
		}
	}
}

// A process that shares the socket, systemd or the portmapper before us, may have made it nonblocking at any time.
func TestReadOfANonblockingSocket(t *testing.T) {
	c := mustUDP(t, "127.0.0.1:0").Packet
	if err := control(c.file, func(fd int) error { return unix.SetNonblock(fd, true) }); err != nil {
		t.Fatal(err)
	}
	done := busyReader(t, c)
	time.Sleep(time.Millisecond)
	sendSelf(t, c)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAlarm(t *testing.T) {
	a, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	for i, rings := range []bool{true, true, false, false, true, false} {
		if err := a.set(rings); err != nil {
			t.Fatal(err)
		}
		err := control(a.file, func(fd int) error {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 0); err != nil || (n == 1) != rings {
				t.Errorf("step %d: poll = %d, %v, and it rings: %v", i, n, err, rings)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.close(), a.set(true)); err == nil {
		t.Error("a closed alarm rings")
	}
}

// Datagrams that come one by one are read without an allocation, in either kind of wait.
func TestReadAllocatesNothing(t *testing.T) {
	c := mustUDP(t, "127.0.0.1:0").Packet
	b, out := NewBatch(4, 100), NewBatch(1, 100)
	self := []Datagram{{Payload: []byte("x"), Remote: c.LocalAddr()}}
	for _, busy := range []*PacketConn{c, nil} {
		got := testing.AllocsPerRun(100, func() {
			b.busy = busy
			if out.Write(c, self) != nil {
				t.Fatal("write")
			}
			if d, err := b.Read(c); err != nil || len(d) != 1 {
				t.Fatal(d, err)
			}
		})
		if got != 0 {
			t.Errorf("%v allocations", got)
		}
	}
}
