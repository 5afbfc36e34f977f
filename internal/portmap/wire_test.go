package portmap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The messages of these tests are made by hand, octet by octet, and not with the packages that the portmapper
// reads them with: what both got wrong alike would not be seen.

const testXID = 0x6a7b8c9d

// words returns 32-bit integers in network byte order.
func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// str returns a string or opaque data with its length before it and its padding behind it.
func str(s string) []byte {
	b := append(words(uint32(len(s))), s...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// callTo returns a call of program 100000 with AUTH_NONE.
func callTo(vers, proc uint32, args ...[]byte) []byte {
	return join(words(testXID, 0, 2, 100000, vers, proc, 0, 0, 0, 0), join(args...))
}

func rpcbOf(prog, vers uint32, netid, addr, owner string) []byte {
	return join(words(prog, vers), str(netid), str(addr), str(owner))
}

// accepted returns an accepted reply: accept_stat and what follows it.
func accepted(stat uint32, results ...[]byte) []byte {
	return join(words(testXID, 1, 0, 0, 0, stat), join(results...))
}

func success(results ...[]byte) []byte { return accepted(0, results...) }

// denied returns a reply that denies the call with an auth_stat.
func denied(stat uint32) []byte { return words(testXID, 1, 1, 1, stat) }

var silence []byte

// Addresses of the host under test, which [testHost] has, and of those that call it.
var (
	hostIPv4  = netip.MustParseAddr("192.0.2.1")
	hostIPv4B = netip.MustParseAddr("198.51.100.1")
	hostIPv6  = netip.MustParseAddr("2001:db8::1")
	hostLink  = netip.MustParseAddr("fe80::1")
	hostLinkB = netip.MustParseAddr("fe80::b")
	peerIPv4  = netip.MustParseAddr("192.0.2.77")
	peerIPv6  = netip.MustParseAddr("2001:db8::77")
	peerLink  = netip.MustParseAddr("fe80::77")
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

// Interfaces of [testHost].
const (
	ifLoopback = 1 + iota
	ifEther
	ifEtherB
	ifTunnel
	ifDown
)

func testHost() *Interfaces {
	prefixes := func(s ...string) (list []netip.Prefix) {
		for _, p := range s {
			list = append(list, netip.MustParsePrefix(p))
		}
		return list
	}
	return NewInterfaces([]Interface{
		{Index: ifLoopback, Up: true, Loopback: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		{Index: ifTunnel, Up: true, PointToPoint: true, Addrs: prefixes("10.8.0.1/32")},
		{Index: ifEther, Up: true, Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")},
		{Index: ifEtherB, Up: true, Addrs: prefixes("198.51.100.1/24", "2001:db8:b::1/64", "fe80::b/64")},
		{Index: ifDown, Addrs: prefixes("203.0.113.1/24", "2001:db8:d::1/64", "fe80::d/64")},
	})
}

// A caller on the host itself, over each transport, and one on the network.
func localCaller(t Transport) Caller {
	c := Caller{Transport: t, Ifindex: ifLoopback, Loopback: true}
	switch {
	case t == Local:
		return Caller{Transport: Local, HasUID: true}
	case t.IPv6():
		c.Remote, c.Local = netip.AddrPortFrom(loopback6, 700), netip.AddrPortFrom(loopback6, 111)
	default:
		c.Remote, c.Local = netip.AddrPortFrom(loopback4, 700), netip.AddrPortFrom(loopback4, 111)
	}
	return c
}

func remoteCaller(t Transport) Caller {
	c := Caller{
		Transport: t, Ifindex: ifEther,
		Remote: netip.AddrPortFrom(peerIPv4, 40000), Local: netip.AddrPortFrom(hostIPv4, 111),
	}
	if t.IPv6() {
		c.Remote, c.Local = netip.AddrPortFrom(peerIPv6, 40000), netip.AddrPortFrom(hostIPv6, 111)
	}
	return c
}

// localPolicy is the daemon's default: processes of this host may register and get large answers.
type localPolicy struct{}

func isLocal(c Caller) bool {
	return c.Transport == Local || c.Loopback && c.Remote.Addr().IsLoopback()
}

func (localPolicy) MayRegister(c Caller) bool { return isLocal(c) }

func (localPolicy) MayAmplify(c Caller, _ Class) bool { return isLocal(c) }

func (localPolicy) MayAnswer(Caller) bool { return true }

func (localPolicy) Permits(Caller, Class, uint32) bool { return true }

func (localPolicy) Grants(string, rpcbind.RPCB) error { return nil }

func (localPolicy) MayForward(prog, proc uint32) bool { return true }

func (localPolicy) Owner(c Caller) string {
	switch {
	case c.HasUID && c.UID != 0:
		return strconv.FormatUint(uint64(c.UID), 10)
	case c.HasUID, isLocal(c) && !(c.Transport.Datagram() && c.Remote.Port() >= 1024):
		return rpcbind.OwnerSuperuser
	}
	return rpcbind.OwnerUnknown
}

// testNow is the time that the portmappers of these tests answer.
const testNow = 0x65432100

// newSubject returns a portmapper on [testHost] with a table of the given registrations, owned by "superuser".
func newSubject(t testing.TB, entries ...rpcbind.RPCB) *Portmapper {
	t.Helper()
	return newSubjectWith(t, Config{}, entries...)
}

func newSubjectWith(t testing.TB, c Config, entries ...rpcbind.RPCB) *Portmapper {
	t.Helper()
	c.Table = registry.New()
	if c.Policy == nil {
		c.Policy = localPolicy{}
	}
	c.Now = func() uint32 { return testNow }
	for _, e := range entries {
		if e.Owner == "" {
			e.Owner = rpcbind.OwnerSuperuser
		}
		if err := c.Table.Set(e); err != nil {
			t.Fatalf("Set(%+v): %v", e, err)
		}
	}
	p := New(c)
	p.SetInterfaces(testHost())
	return p
}

// ask returns the reply to a call, nil for silence.
func ask(p *Portmapper, from Caller, call []byte) []byte {
	return p.AppendReply(nil, call, from)
}

func wantReply(t *testing.T, p *Portmapper, from Caller, call, want []byte) {
	t.Helper()
	if got := ask(p, from, call); !bytes.Equal(got, want) {
		t.Errorf("call over %v from %v\n%s\ngot reply\n%s\nwant\n%s",
			from.Transport.Netid(), from.Remote, hex.Dump(call), hex.Dump(got), hex.Dump(want))
	}
}
