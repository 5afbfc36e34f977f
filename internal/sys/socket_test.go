package sys

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	needIPv6(t)
	tests := []struct {
		listen func(netip.AddrPort, ...BindOption) (*Socket, error)
		addr   string
		netid  string
	}{
		{ListenUDP, "127.0.0.1:0", "udp"},
		{ListenUDP, "0.0.0.0:0", "udp"},
		{ListenUDP, "[::ffff:127.0.0.1]:0", "udp"},
		{ListenUDP, "[::1]:0", "udp6"},
		{ListenUDP, "[::]:0", "udp6"},
		{ListenTCP, "127.0.0.1:0", "tcp"},
		{ListenTCP, "0.0.0.0:0", "tcp"},
		{ListenTCP, "[::1]:0", "tcp6"},
		{ListenTCP, "[::]:0", "tcp6"},
	}
	for _, test := range tests {
		t.Run(test.netid+" "+test.addr, func(t *testing.T) {
			a := netip.MustParseAddrPort(test.addr)
			s, err := test.listen(a)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Netid != test.netid || s.Addr.Addr() != a.Addr().Unmap() || s.Addr.Port() == 0 || s.DualStack || s.Activated {
				t.Errorf("%+v", s)
			}
			// The exact address is taken now, with and without the other family's help.
			if again, err := test.listen(s.Addr); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("second socket: %+v, %v, want EADDRINUSE", again, err)
			} else if !strings.Contains(err.Error(), s.Addr.String()) {
				t.Errorf("second socket: %v, want the address in it", err)
			}
			if s.Addr.Addr() == netip.IPv6Unspecified() {
				// IPv6-only: IPv4 has the port for itself.
				other, err := test.listen(netip.AddrPortFrom(netip.IPv4Unspecified(), s.Addr.Port()))
				if err != nil {
					t.Errorf("IPv4 beside [::]: %v", err)
				} else {
					other.Close()
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			again, err := test.listen(s.Addr)
			if err != nil {
				t.Fatalf("after Close: %v", err)
			}
			again.Close()
		})
	}
}

func TestListenErrors(t *testing.T) {
	for _, listen := range []func(netip.AddrPort, ...BindOption) (*Socket, error){ListenUDP, ListenTCP} {
		for _, a := range []netip.AddrPort{
			{},
			netip.MustParseAddrPort("192.0.2.99:0"),
			netip.MustParseAddrPort("[fe80::1%no-such-if]:0"),
		} {
			s, err := listen(a)
			if err == nil {
				s.Close()
				t.Errorf("%v: no error", a)
			} else if !strings.Contains(err.Error(), a.String()) {
				t.Errorf("%v: %v, want the address in it", a, err)
			}
		}
	}
}

// A connection in TIME_WAIT on our port does not keep the next daemon from it.
func TestListenTCPAfterTimeWait(t *testing.T) {
	s := mustTCP(t, "127.0.0.1:0")
	c, err := net.Dial("tcp", s.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := s.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a.Close() // our end first: TIME_WAIT is ours
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection did not end")
	}
	c.Close()
	s.Close()
	again, err := ListenTCP(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestListenTCPOptions(t *testing.T) {
	s := mustTCP(t, "127.0.0.1:0")
	c, err := net.Dial("tcp", s.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := s.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	err = control(a.(*net.TCPConn), func(fd int) error {
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || v == 0 {
			return fmt.Errorf("SO_KEEPALIVE = %d, %v, want it on", v, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestIPv6Available(t *testing.T) {
	if !netns(t) {
		return
	}
	if !IPv6Available() {
		t.Skip("this kernel has no IPv6")
	}
	ip(t, "link set lo down")
	if IPv6Available() {
		t.Error("IPv6Available with loopback down")
	}
}

// TestIPv6IsNotDeniedByErrors: that no descriptor is left says nothing about IPv6.
func TestIPv6IsNotDeniedByErrors(t *testing.T) {
	if !IPv6Available() {
		t.Skip("this host has no IPv6")
	}
	if !child(t, syscall.SysProcAttr{}) {
		return
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	available := IPv6Available()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !available {
		t.Error("EMFILE counts as no IPv6")
	}
}

func TestZoneIndex(t *testing.T) {
	for _, test := range []struct {
		zone string
		want uint32
	}{{"", 0}, {"lo", 1}, {"7", 7}} {
		if got, err := zoneIndex(test.zone); err != nil || got != test.want {
			t.Errorf("zoneIndex(%q) = %d, %v, want %d", test.zone, got, err, test.want)
		}
	}
}
