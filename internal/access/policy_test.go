package access

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

func caller(t portmap.Transport, remote, local string, loopback bool) portmap.Caller {
	return portmap.Caller{
		Transport: t,
		Remote:    netip.MustParseAddrPort(remote),
		Local:     netip.MustParseAddrPort(local),
		Loopback:  loopback,
	}
}

func localCaller(uid uint32, known bool) portmap.Caller {
	return portmap.Caller{Transport: portmap.Local, UID: uid, HasUID: known}
}

func TestMayRegister(t *testing.T) {
	for _, c := range []struct {
		name     string
		from     portmap.Caller
		secure   bool // verdict without -i
		insecure bool // with -i
	}{
		{"local socket", localCaller(1000, true), true, true},
		{"local socket without credentials", localCaller(0, false), true, true},
		{"127.0.0.1", caller(portmap.UDP, "127.0.0.1:900", "127.0.0.1:111", true), true, true},
		{"::1", caller(portmap.TCP6, "[::1]:900", "[::1]:111", true), true, true},
		{"mapped 127.0.0.1", caller(portmap.TCP6, "[::ffff:127.0.0.1]:900", "127.0.0.1:111", true), true, true},
		{"127.0.0.2", caller(portmap.UDP, "127.0.0.2:900", "127.0.0.1:111", true), false, true},
		{"own address", caller(portmap.UDP, "10.0.0.5:900", "10.0.0.5:111", true), false, true},
		{"neighbour", caller(portmap.TCP, "10.0.0.9:900", "10.0.0.5:111", false), false, true},
		// A neighbour that sends 127.0.0.1 as its source: section 8, row 7.
		{"forged 127.0.0.1", caller(portmap.UDP, "127.0.0.1:900", "10.0.0.5:111", false), false, true},
		{"forged ::1", caller(portmap.UDP6, "[::1]:900", "[2001:db8::5]:111", false), false, true},
		{"no address", portmap.Caller{Transport: portmap.UDP, Loopback: true}, false, true},
	} {
		if got := (&Policy{}).MayRegister(c.from); got != c.secure {
			t.Errorf("%s: MayRegister = %v, want %v", c.name, got, c.secure)
		}
		if got := (&Policy{Insecure: true}).MayRegister(c.from); got != c.insecure {
			t.Errorf("%s: MayRegister with Insecure = %v, want %v", c.name, got, c.insecure)
		}
	}
}

func TestOwner(t *testing.T) {
	kernel := func(uid uint32, err error) func(string, netip.AddrPort, netip.AddrPort) (uint32, error) {
		return func(string, netip.AddrPort, netip.AddrPort) (uint32, error) { return uid, err }
	}
	refused := errors.New("netlink: permission denied")
	low := caller(portmap.UDP, "127.0.0.1:900", "127.0.0.1:111", true)
	high := caller(portmap.TCP6, "[::1]:40000", "[::1]:111", true)
	far := caller(portmap.TCP, "10.0.0.9:900", "10.0.0.5:111", false)
	for _, c := range []struct {
		name string
		ask  func(string, netip.AddrPort, netip.AddrPort) (uint32, error)
		from portmap.Caller
		want string
	}{
		{"local root", nil, localCaller(0, true), "superuser"},
		{"local user", nil, localCaller(1000, true), "1000"},
		{"local user beyond 2^31", nil, localCaller(4294967294, true), "4294967294"},
		{"local without credentials", nil, localCaller(0, false), "unknown"},
		{"root's socket", kernel(0, nil), high, "superuser"},
		{"user's socket on a low port", kernel(1000, nil), low, "1000"},
		{"socket gone, low port", kernel(0, fmt.Errorf("udp: %w", ErrNoSocket)), low, "unknown"},
		{"socket gone, high port", kernel(0, ErrNoSocket), high, "unknown"},
		{"kernel can't say, low port", kernel(0, refused), low, "superuser"},
		{"kernel can't say, port 1023", kernel(0, refused), caller(portmap.UDP, "127.0.0.1:1023", "127.0.0.1:111", true), "superuser"},
		{"kernel can't say, port 1024", kernel(0, refused), caller(portmap.UDP, "127.0.0.1:1024", "127.0.0.1:111", true), "unknown"},
		{"kernel can't say, port 0", kernel(0, refused), caller(portmap.UDP, "127.0.0.1:0", "127.0.0.1:111", true), "unknown"},
		{"kernel can't say, high port", kernel(0, refused), high, "unknown"},
		{"no way to ask, low port", nil, low, "superuser"},
		{"another host's root", kernel(0, nil), far, "unknown"},
	} {
		p := &Policy{SocketOwner: c.ask}
		if got := p.Owner(c.from); got != c.want {
			t.Errorf("%s: Owner = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOwnerAsksForTheCallersEnd(t *testing.T) {
	from := caller(portmap.TCP6, "[::1]:40000", "[::1]:111", true)
	asked := false
	p := &Policy{SocketOwner: func(netid string, remote, local netip.AddrPort) (uint32, error) {
		asked = true
		if netid != "tcp6" || remote != from.Remote || local != from.Local {
			t.Errorf("SocketOwner(%q, %v, %v), want tcp6, %v, %v", netid, remote, local, from.Remote, from.Local)
		}
		return 7, nil
	}}
	if got := p.Owner(from); got != "7" || !asked {
		t.Errorf("Owner = %q, asked %v", got, asked)
	}
}

func TestDegradedOnce(t *testing.T) {
	refused := errors.New("refused")
	var mu sync.Mutex
	var told []error
	p := &Policy{
		SocketOwner: func(string, netip.AddrPort, netip.AddrPort) (uint32, error) { return 0, refused },
		Degraded: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err)
		},
	}
	from := caller(portmap.UDP, "127.0.0.1:900", "127.0.0.1:111", true)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { p.Owner(from) })
	}
	all.Wait()
	if len(told) != 1 || !errors.Is(told[0], refused) {
		t.Errorf("Degraded was told %v, want once %v", told, refused)
	}
}

func TestMayAmplify(t *testing.T) {
	own := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.5") }
	for _, c := range []struct {
		name string
		from portmap.Caller
		want bool
	}{
		{"local socket", localCaller(1000, true), true},
		{"127.0.0.1", caller(portmap.UDP, "127.0.0.1:900", "127.0.0.1:111", true), true},
		{"127.0.0.2", caller(portmap.UDP, "127.0.0.2:900", "127.0.0.1:111", true), true},
		{"::1", caller(portmap.UDP6, "[::1]:900", "[::1]:111", true), true},
		{"own address to itself", caller(portmap.UDP, "10.0.0.6:900", "10.0.0.6:111", true), true},
		{"own address to another own address", caller(portmap.UDP, "10.0.0.5:900", "127.0.0.1:111", true), true},
		{"forged 127.0.0.1", caller(portmap.UDP, "127.0.0.1:900", "10.0.0.5:111", false), true},
		{"forged own address", caller(portmap.UDP, "10.0.0.5:900", "10.0.0.5:111", false), true},
		{"foreign source on loopback", caller(portmap.UDP, "192.0.2.1:900", "127.0.0.1:111", true), false},
		{"neighbour", caller(portmap.UDP, "10.0.0.9:900", "10.0.0.5:111", false), false},
		{"no address", portmap.Caller{Transport: portmap.UDP6, Loopback: true}, false},
	} {
		if got := (&Policy{OwnAddress: own, Insecure: true}).MayAmplify(c.from, portmap.List); got != c.want {
			t.Errorf("%s: MayAmplify = %v, want %v", c.name, got, c.want)
		}
	}
}
