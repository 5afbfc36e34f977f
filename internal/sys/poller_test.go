package sys

import (
	"bytes"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newPoller(t *testing.T) *Poller {
	t.Helper()
	p, err := NewPoller(4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func wait(t *testing.T, p *Poller, timeout time.Duration) []Event {
	t.Helper()
	n, _, err := p.Wait(timeout)
	if err != nil {
		t.Fatal(err)
	}
	var all []Event
	for i := range n {
		all = append(all, p.Event(i))
	}
	return all
}

func TestPoller(t *testing.T) {
	p := newPoller(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair[0], pair[1]
	defer unix.Close(ours)
	const token = 5<<32 | 7
	if err := p.Watch(ours, token, true, false); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, p, 0); got != nil {
		t.Errorf("nothing has happened, but %v", got)
	}
	if n, err := new(Gather).SendNow(theirs, [][]byte{[]byte("x")}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for range 2 { // as long as it is there
		if got := wait(t, p, -1); len(got) != 1 || got[0] != (Event{token, true, false}) {
			t.Errorf("one octet: %v", got)
		}
	}
	buf := make([]byte, 10)
	if n, err := ReadNow(ours, buf); n != 1 || err != nil {
		t.Error(n, err)
	}
	if n, err := ReadNow(ours, buf); n != -1 || err != syscall.EAGAIN {
		t.Error(n, err)
	}
	if err := p.Change(ours, token, false, true); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, p, -1); len(got) != 1 || got[0] != (Event{token, false, true}) {
		t.Errorf("room to write: %v", got)
	}
	if err := p.Change(ours, token, false, false); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, p, time.Millisecond); got != nil {
		t.Errorf("watched for nothing, but %v", got)
	}
	unix.Close(theirs)
	if got := wait(t, p, -1); len(got) != 1 || !got[0].Readable || !got[0].Writable {
		t.Errorf("the other end is closed: %v", got)
	}
}

// A Wake before or during a Wait ends it, once.
func TestPollerWake(t *testing.T) {
	p := newPoller(t)
	p.Wake()
	p.Wake()
	if got := wait(t, p, -1); got != nil {
		t.Errorf("woken: %v", got)
	}
	if got := wait(t, p, 0); got != nil {
		t.Errorf("after it: %v", got)
	}
	go func() {
		time.Sleep(5 * time.Millisecond)
		p.Wake()
	}()
	if got := wait(t, p, -1); got != nil {
		t.Errorf("woken while waiting: %v", got)
	}
}

func TestPollerErrors(t *testing.T) {
	p := newPoller(t)
	if err := p.Watch(-1, 0, true, false); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
	unwatched, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unwatched)
	if err := p.Change(unwatched, 0, true, false); !errors.Is(err, unix.ENOENT) {
		t.Errorf("one that isn't watched: %v", err)
	}
}

func TestAcceptTCP(t *testing.T) {
	needIPv6(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := mustTCP(t, address)
		fd, err := Served(s)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if _, _, _, err := AcceptTCP(fd); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("nobody came: %v", err)
		}
		c, err := net.Dial("tcp", s.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		accepted, remote, local, err := AcceptTCP(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(accepted)
		if remote != c.LocalAddr().(*net.TCPAddr).AddrPort() || local != s.Addr {
			t.Errorf("from %v to %v, want %v and %v", remote, local, c.LocalAddr(), s.Addr)
		}
		if v, err := unix.GetsockoptInt(accepted, unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
			t.Errorf("TCP_NODELAY isn't inherited: %d, %v", v, err)
		}
		if v, err := unix.FcntlInt(uintptr(accepted), unix.F_GETFL, 0); v&unix.O_NONBLOCK == 0 || err != nil {
			t.Errorf("flags %#x, %v: want O_NONBLOCK", v, err)
		}
	}
	if _, err := Served(&Socket{Netid: "tcp"}); err == nil {
		t.Error("a socket that isn't open is served")
	}
}

func TestListenerClose(t *testing.T) {
	l := mustTCP(t, "127.0.0.1:0").Listener.(*Listener)
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	time.Sleep(time.Millisecond)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-l.Closed()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v, want net.ErrClosed", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// TestPollerLooks finds what is there and what comes, and gives up in time.
func TestPollerLooks(t *testing.T) {
	p := newPoller(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := p.Watch(pair[0], 5, true, false); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if n, woken, err := p.Look(time.Millisecond); n != 0 || woken || err != nil || time.Since(begin) < time.Millisecond {
		t.Errorf("nothing has happened: %d, %v, %v after %v", n, woken, err, time.Since(begin))
	}
	p.Wake()
	if n, woken, err := p.Look(time.Minute); n != 0 || !woken || err != nil {
		t.Errorf("woken: %d, %v, %v", n, woken, err)
	}
	time.AfterFunc(time.Millisecond, func() { _, _ = unix.Write(pair[1], []byte("x")) })
	if n, woken, err := p.Look(time.Minute); n != 1 || woken || err != nil || p.Event(0) != (Event{5, true, false}) {
		t.Errorf("one octet: %d, %v, %v", n, woken, err)
	}
	p.Wake()
	if n, woken, err := p.Wait(-1); n != 1 || !woken || err != nil {
		t.Errorf("one octet and woken: %d, %v, %v", n, woken, err)
	}
	if n, woken, err := p.Wait(-1); n != 1 || woken || err != nil {
		t.Errorf("a Wake is told twice: %d, %v, %v", n, woken, err)
	}
}

// TestSendNow sends parts until nobody takes more, and then to nobody.
func TestSendNow(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair[0], pair[1]
	defer unix.Close(ours)
	var g Gather
	part := bytes.Repeat([]byte("cd"), 5000)
	sent := 0
	for i := 0; ; i++ {
		if i > 1000 {
			t.Fatal("the socket takes everything")
		}
		n, err := g.SendNow(ours, [][]byte{[]byte("ab"), part})
		if err == unix.EAGAIN {
			break
		}
		if err != nil || n < 1 || n > 2+len(part) {
			t.Fatal(n, err)
		}
		sent += n
	}
	got, buf := 0, make([]byte, 1<<20)
	for got < sent {
		n, err := ReadNow(theirs, buf)
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 && !bytes.HasPrefix(buf, []byte("abcdcd")) {
			t.Errorf("%q", buf[:10])
		}
		got += n
	}
	unix.Close(theirs)
	if _, err := g.SendNow(ours, [][]byte{[]byte("ab")}); err != unix.EPIPE {
		t.Errorf("%v, want EPIPE", err)
	}
}
