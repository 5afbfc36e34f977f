package bed_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestTwoUsersAndRoot lets users of one host try to remove, replace and squat each other's registrations and root's, over
// every transport and in every version; beside rpcbind, where they succeed over loopback, because whoever calls from a port
// above 1023 is "unknown" there.
func TestTwoUsersAndRoot(t *testing.T) {
	const (
		ofRoot, ofAlice, ofNobody = 0x30160001, 0x30160002, 0x30160003
		alice, bob                = 1001, 1002
	)
	transports := []bed.Transport{bed.Unix, bed.Abstract, bed.UDP, bed.TCP, bed.UDP6, bed.TCP6}
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		d := ns.Start(t, subject)
		stolen := 0
		for _, tr := range transports {
			if subject == bed.Rpcbind && tr == bed.Abstract {
				continue // older ones have no abstract socket
			}
			netid, addr, other := "udp", "0.0.0.0.8.1", "0.0.0.0.8.2"
			for _, vers := range []uint32{2, 3, 4} {
				// Each owner registers by the transport of the attack, as servers of old C libraries do; but over UDP, where nobody
				// can tell who sent a datagram, root from a reserved port and alice over TCP.
				rootFrom, aliceBy := bed.From{}, tr
				if tr.Datagram() {
					rootFrom.Port, aliceBy = 600, bed.TCP
				}
				setBy := func(tr bed.Transport, from bed.From, program uint32, addr string) bool {
					call := setAddr(vers, program, 1, netid, addr)
					if vers == 2 {
						call = setPort(program, 1, rpcbind.ProtUDP, map[string]uint32{"0.0.0.0.8.1": 2049, "0.0.0.0.8.2": 2050}[addr])
					}
					return bytes.Equal(must(t, ns, tr, from, call), boolean(true))
				}
				set := func(from bed.From, program uint32, addr string) bool { return setBy(tr, from, program, addr) }
				unset := func(from bed.From, program uint32) {
					call := unsetAddr(vers, program, 1, "")
					if vers == 2 {
						call = unsetPort(program, 1)
					}
					must(t, ns, tr, from, call)
				}
				there := func(program uint32) bool {
					return bytes.Equal(must(t, ns, bed.UDP, root, getPort(program, 1, rpcbind.ProtUDP)), words(2049))
				}
				set(rootFrom, ofRoot, addr)
				setBy(aliceBy, bed.From{UID: alice}, ofAlice, addr)
				for _, program := range []uint32{ofRoot, ofAlice} {
					if !there(program) {
						t.Fatalf("%s v%d: %#x was not registered by its owner", tr, vers, program)
					}
					unset(bed.From{UID: bob}, program)
					if set(bed.From{UID: bob}, program, other); !there(program) {
						stolen++
						if subject == bed.Gportmap {
							t.Errorf("%s v%d: bob has taken %#x", tr, vers, program)
						}
					}
					must(t, ns, bed.Unix, root, unsetAddr(4, program, 1, ""))
				}
				// What bob has squatted root takes back, as servers do: UNSET, then SET.
				set(bed.From{UID: bob}, ofNobody, other)
				unset(rootFrom, ofNobody)
				if !set(rootFrom, ofNobody, addr) || !there(ofNobody) {
					if subject == bed.Gportmap {
						t.Errorf("%s v%d: root can't take a program back", tr, vers)
					}
				}
				must(t, ns, bed.Unix, root, unsetAddr(4, ofNobody, 1, ""))
			}
		}
		if subject == bed.Rpcbind && stolen == 0 {
			t.Error("rpcbind held what is told of it to be stolen")
		}
		t.Logf("%v: %d registrations were taken from their owners", subject, stolen)
		if subject == bed.Gportmap && (!strings.Contains(d.Log(), "owner=1002") || !strings.Contains(d.Log(), "holder=superuser") ||
			!strings.Contains(d.Log(), "holder=1001")) {
			t.Error("the log doesn't tell both owners")
		}
	})
}

// TestRootOnlyAndStrictSet keeps a user from the programs of root, and from ports of others.
func TestRootOnlyAndStrictSet(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap, "--root-only=100003", "--strict-set")
		listen(t, "0.0.0.0:2049") // root's
		alice := bed.From{UID: 1001}
		for _, c := range []struct {
			what string
			from bed.From
			call []byte
			want bool
		}{
			{"root's NFS", root, setAddr(4, 100003, 3, "udp", "0.0.0.0.8.1"), true},
			{"alice's NFS", alice, setAddr(4, 100003, 4, "udp", "0.0.0.0.8.1"), false},
			{"alice at root's port", alice, setAddr(4, 0x30170001, 1, "udp", "0.0.0.0.8.1"), false},
			{"alice at a port of nobody", alice, setAddr(4, 0x30170001, 1, "udp", "0.0.0.0.8.2"), false},
			{"root at a port of nobody", root, setAddr(4, 0x30170001, 1, "udp", "0.0.0.0.8.2"), false},
			{"alice's local service", alice, setAddr(4, 0x30170002, 1, "local", "/run/x.sock"), true},
		} {
			if got := must(t, ns, bed.Unix, c.from, c.call); !bytes.Equal(got, boolean(c.want)) {
				t.Errorf("%s: %x, want %v", c.what, got, c.want)
			}
		}
		// Alice's own socket, whose port is bound by her.
		c := ns.Dial(t, bed.UDP, bed.From{UID: 1001, Addr: bed.Addr("127.0.0.1"), Port: 4000})
		if err := c.Send(nil); err != nil {
			t.Log(err)
		}
		if got := must(t, ns, bed.Unix, alice, setAddr(4, 0x30170003, 1, "udp", "127.0.0.1.15.160")); !bytes.Equal(got, boolean(true)) {
			t.Errorf("alice at her own port: %x", got)
		}
	})
}
