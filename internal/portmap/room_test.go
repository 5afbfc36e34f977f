package portmap

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// strictPolicy is for callers that may register and whose address may be forged nevertheless, as with -i.
type strictPolicy struct{ localPolicy }

func (strictPolicy) MayRegister(Caller) bool { return true }

func (strictPolicy) MayAmplify(Caller, Class) bool { return false }

// choice makes random calls and tables.
type choice struct{ *rand.Rand }

func pick[T any](c choice, list ...T) T { return list[c.IntN(len(list))] }

func (c choice) prog() uint32 {
	return pick(c, 100000, 100003, 300001, 300001, 300001, 300002, c.Uint32())
}

func (c choice) vers() uint32 { return pick(c, 0, 1, 1, 2, 3, 3, 4, c.Uint32()) }

func (c choice) netid() string {
	return pick(c, "udp", "tcp", "udp6", "tcp6", "local", "UDP6", "rdma", "", strings.Repeat("n", c.IntN(30)))
}

func (c choice) addr() string {
	return pick(c, "", "0.0.0.0.8.1", "::.8.1", "127.0.0.1.255.255", "192.0.2.1.8.1", "fe80::1.0.111", "junk", "/run/x",
		"2001:db8:1111:2222:3333:4444:5555:6666.255.255", "::ffff:255.255.255.255.255.255",
		"0000:0000:0000:0000:0000:fffe:255.255.255.255.255.255", "1111:2222:3333:4444:5555:6666:7777:8888.255.255",
		strings.Repeat("a", c.IntN(60)))
}

func (c choice) opaque() string { return string(make([]byte, c.IntN(100))) }

func (c choice) args() []byte {
	switch c.IntN(6) {
	case 0:
		return nil
	case 1:
		return words(c.prog(), c.vers(), pick(c, uint32(6), 17, 0), pick(c, uint32(0), 2049, 65535))
	case 2:
		return str(c.addr())
	case 3:
		return netbuf(uint32(c.IntN(40)), []byte(c.opaque()))
	case 4:
		return remoteArgs(c.prog(), c.vers(), uint32(c.IntN(9)), c.opaque())
	}
	return rpcbOf(c.prog(), c.vers(), c.netid(), c.addr(), pick(c, "", "owner"))
}

func (c choice) call() []byte {
	prog := uint32(100000)
	if c.IntN(50) == 0 {
		prog = c.prog()
	}
	cred := words(0, 0)
	if c.IntN(5) == 0 {
		cred = join(words(pick(c, uint32(0), 1, 2, 3, 6)), str(pick(c, "", authSys("h", 0, 0), "junk")))
	}
	vers := pick(c, uint32(2), 2, 3, 4, 4, uint32(c.IntN(6)))
	call := join(words(c.Uint32(), 0, pick(c, uint32(2), 2, 2, 2, 2, 2, 2, 3), prog, vers, pick(c, uint32(3), 9, uint32(c.IntN(14)))), cred, words(0, 0), c.args())
	if c.IntN(10) == 0 {
		return call[:c.IntN(len(call)+1)]
	}
	return call
}

func (c choice) caller() Caller {
	transport := pick(c, UDP, UDP6)
	long := netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")
	switch c.IntN(4) {
	case 0:
		return localCaller(transport)
	case 1:
		return from(UDP6, peerLink, netip.Addr{}, ifEther)
	case 2:
		return from(UDP6, peerIPv6, long, ifEther)
	}
	return remoteCaller(transport)
}

// TestNoReplyIsLargerThanItsCall makes random calls on random tables, over UDP, for callers whose address may be
// forged: PROTOCOL section 8 no. 11.
func TestNoReplyIsLargerThanItsCall(t *testing.T) {
	largest := make(map[[2]uint32]int) // version and procedure: octets that a reply was larger than its call
	forwarded := 0
	for seed := range uint64(20) {
		c := choice{rand.New(rand.NewPCG(seed, 5665))}
		relay := new(fakeRelay)
		p := newSubjectWith(t, Config{Policy: strictPolicy{}, Relay: relay}, registered...)
		for range c.IntN(200) { // a table of its own, for what the calls below look up
			b := rpcbOf(c.prog(), c.vers(), c.netid(), c.addr(), "")
			ask(p, localCaller(Local), callTo(4, rpcbind.ProcSet, b))
		}
		for range 5000 {
			call, from := c.call(), c.caller()
			reply := ask(p, from, call)
			vers, proc := uint32(0), uint32(0)
			if parsed, err := oncrpc.ParseCall(call); err == nil {
				vers, proc = parsed.Version, parsed.Procedure
			}
			more := 0
			if vers != 2 && (proc == rpcbind.ProcGetAddr || proc == rpcbind.ProcGetVersAddr) {
				more = 16
			}
			if len(reply) > len(call)+more {
				t.Fatalf("seed %d: call of %d octets %x, reply of %d octets %x", seed, len(call), call, len(reply), reply)
			}
			largest[[2]uint32{vers, proc}] = max(largest[[2]uint32{vers, proc}], len(reply)-len(call))
		}
		for _, c := range relay.calls {
			for n := range 100 {
				reply := p.AppendRemoteReply(nil, &c, join(words(1, 1, 0, 0, 0, 0), make([]byte, n)))
				if len(reply) > c.Size {
					t.Fatalf("seed %d: remote reply of %d octets to a call of %d", seed, len(reply), c.Size)
				}
			}
		}
		forwarded += len(relay.calls)
	}
	if forwarded == 0 {
		t.Error("nothing was forwarded")
	}
	// The exception has to be met, or this test asks too little.
	for _, lookup := range [][2]uint32{{3, rpcbind.ProcGetAddr}, {4, rpcbind.ProcGetVersAddr}} {
		if largest[lookup] <= 0 {
			t.Errorf("no reply to version %d procedure %d was larger than its call", lookup[0], lookup[1])
		}
	}
}

// TestLookupsAreNeverRefused holds the exception: the smallest question gets the longest address.
func TestLookupsAreNeverRefused(t *testing.T) {
	long := netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")
	const uaddr = "2001:db8:1111:2222:3333:4444:5555:6666.255.255"
	for _, registered := range []string{"::.255.255", uaddr} {
		p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "udp6", Addr: registered})
		args := rpcbOf(300001, 1, "", "", "")
		for _, call := range [][]byte{callTo(3, 3, args), callTo(4, 3, args), callTo(4, 9, args)} {
			wantReply(t, p, from(UDP6, peerIPv6, long, ifEther), call, success(str(uaddr)))
			if more := len(ask(p, from(UDP6, peerIPv6, long, ifEther), call)) - len(call); more > 16 {
				t.Errorf("the reply is %d octets larger than the call", more)
			}
		}
	}
}

// TestLookupAllowance holds how much more, and for which procedures alone.
func TestLookupAllowance(t *testing.T) {
	p := newSubject(t)
	for _, tt := range []struct{ vers, proc, want uint32 }{
		{2, 3, 60}, {3, 3, 76}, {4, 3, 76}, {4, 9, 76}, {4, 4, 60}, {4, 10, 60}, {4, 11, 60}, {4, 12, 60},
	} {
		r := request{from: remoteCaller(UDP6), size: 60}
		r.Version, r.Procedure = tt.vers, tt.proc
		if got := p.room(&r); got != int(tt.want) {
			t.Errorf("version %d procedure %d: room for %d octets after a call of 60, want %d", tt.vers, tt.proc, got, tt.want)
		}
	}
}

// TestPaddedCallGetsMore holds that who sends as much as it gets is served: nothing is amplified.
func TestPaddedCallGetsMore(t *testing.T) {
	p := newSubject(t, registered...)
	list := ask(p, localCaller(UDP), callTo(4, 4))
	call := callTo(4, 4)
	padding := make([]byte, len(list)-len(call))
	wantReply(t, p, remoteCaller(UDP), callTo(4, 4, padding), list)
	wantReply(t, p, remoteCaller(UDP), callTo(4, 4, padding[1:]), denied(5))
}
