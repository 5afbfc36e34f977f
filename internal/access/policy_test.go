package access

import (
	"net/netip"
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
	reserved := func(netip.AddrPort, netip.AddrPort) bool { return true }
	open := func(netip.AddrPort, netip.AddrPort) bool { return false }
	datagram := caller(portmap.UDP, "127.0.0.1:900", "127.0.0.1:111", true)
	stream := caller(portmap.TCP6, "[::1]:900", "[::1]:111", true)
	far := caller(portmap.UDP, "10.0.0.9:900", "10.0.0.5:111", false)
	withUID := func(from portmap.Caller, uid uint32) portmap.Caller {
		from.UID, from.HasUID = uid, true
		return from
	}
	for _, c := range []struct {
		name string
		port func(remote, local netip.AddrPort) bool
		from portmap.Caller
		want string
	}{
		{"local root", nil, localCaller(0, true), "superuser"},
		{"local user", nil, localCaller(1000, true), "1000"},
		{"local user beyond 2^31", nil, localCaller(4294967294, true), "4294967294"},
		{"local without credentials", reserved, localCaller(0, false), "unknown"},
		{"root's connection", nil, withUID(stream, 0), "superuser"},
		{"user's connection", reserved, withUID(stream, 1000), "1000"},
		{"connection whose owner isn't proved", reserved, stream, "unknown"},
		{"datagram from a port of root's", reserved, datagram, "superuser"},
		{"datagram from a port that anybody may have", open, datagram, "unknown"},
		{"datagram where nothing is known", nil, datagram, "unknown"},
		{"another host's root", reserved, far, "unknown"},
	} {
		p := &Policy{RootPort: c.port}
		if got := p.Owner(c.from); got != c.want {
			t.Errorf("%s: Owner = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOwnerAsksForTheCallersEnd(t *testing.T) {
	from := caller(portmap.UDP6, "[::1]:900", "[::1]:111", true)
	p := &Policy{RootPort: func(remote, local netip.AddrPort) bool {
		if remote != from.Remote || local != from.Local {
			t.Errorf("RootPort(%v, %v), want %v, %v", remote, local, from.Remote, from.Local)
		}
		return true
	}}
	if got := p.Owner(from); got != "superuser" {
		t.Errorf("Owner = %q", got)
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
