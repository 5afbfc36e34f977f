package bed_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestFieldAddresses registers IPv6 addresses that strict parsers refuse and that servers use all the same.
func TestFieldAddresses(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		for i, c := range []struct{ addr, rpcbind, gportmap string }{
			// rpcbind hands out the zone, which means nothing on another host and isn't part of a universal address.
			{"fe80::1%eth0.8.1", "fe80::1%eth0.8.1", "fe80::1.8.1"},
			{"fe80::1%eth0.100.8.1", "fe80::1%eth0.100.8.1", "fe80::1.8.1"},
			{"::%eth0.8.1", "::%eth0.8.1", bed.HostIPv6 + ".8.1"},
			{"::ffff:0.0.0.0.8.1", bed.HostIPv6 + ".8.1", bed.HostIPv6 + ".8.1"},
		} {
			program := 0x30300000 + uint32(i)
			if got := must(t, ns, bed.Unix, root, setAddr(4, program, 1, "tcp6", c.addr)); !bytes.Equal(got, boolean(true)) {
				t.Errorf("SET %s: %x", c.addr, got)
				continue
			}
			want := c.gportmap
			if subject == bed.Rpcbind {
				want = c.rpcbind
			}
			if got := must(t, ns, bed.TCP6, bed.From{Remote: true}, getAddr(4, program, 1, "tcp6", "")); !bytes.Equal(got, str(want)) {
				t.Errorf("SET %s, then GETADDR from another host: %q, want %s", c.addr, got, want)
			}
			if got := must(t, ns, bed.Unix, root, setAddr(4, program, 1, "tcp6", c.addr)); subject == bed.Gportmap && !bytes.Equal(got, boolean(true)) {
				t.Errorf("the same SET %s again: %x", c.addr, got)
			}
		}
	})
}

// TestSetFromLoopbackToOwnAddress registers from 127.0.0.1 and ::1 by an address of another interface of the host. A neighbour
// that forges 127.0.0.1 is refused, over UDP with all who do the same: the kernel doesn't tell them apart.
func TestSetFromLoopbackToOwnAddress(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		for _, device := range []string{"all", bed.HostInterface} {
			sysctl(t, "net.ipv4.conf."+device+".route_localnet", "1")
			sysctl(t, "net.ipv4.conf."+device+".accept_local", "1")
			sysctl(t, "net.ipv4.conf."+device+".rp_filter", "0")
		}
		ns.Remote(t, func() { sysctl(t, "net.ipv4.conf."+bed.PeerInterface+".route_localnet", "1") })
		ns.Start(t, subject)
		for i, c := range []struct {
			tr       bed.Transport
			from, to string
			gportmap bool
		}{
			{bed.TCP, "127.0.0.1", bed.HostIPv4, true},
			{bed.TCP6, "::1", bed.HostIPv6, true},
			{bed.UDP, "127.0.0.1", bed.HostIPv4, false},
			{bed.UDP6, "::1", bed.HostIPv6, false},
		} {
			program := 0x30310000 + uint32(i)
			reply, err := ns.Call(t, c.tr, bed.From{Addr: bed.Addr(c.from), To: netip.AddrPortFrom(bed.Addr(c.to), 0), UID: 54321},
				withXID(setAddr(4, program, 1, "tcp", "0.0.0.0.8.1"), 5))
			taken := bytes.Equal(results(reply), boolean(true))
			if want := subject == bed.Rpcbind || c.gportmap; err != nil || taken != want {
				t.Errorf("SET over %s from %s to %s: %s, %v, want it taken %v", c.tr, c.from, c.to, describe(reply), err, want)
			}
			if owner := ownerOf(t, ns, program, 1); subject == bed.Gportmap && taken && owner != "54321" {
				t.Errorf("SET over %s from %s to %s by uid 54321: owner %q", c.tr, c.from, c.to, owner)
			}
		}
		if subject == bed.Rpcbind {
			return // it believes the source address: see row 7
		}
		// A socket of this host has the forged address, so that one is there for whoever asks for it.
		ns.Hold(t, "udp4", "127.0.0.1:700")
		ns.Hold(t, "tcp4", "127.0.0.1:700")
		const program = 0x30320001
		forger := bed.From{Remote: true, Addr: bed.Addr("127.0.0.1"), Port: 700}
		if err := ns.Dial(t, bed.UDP, forger).SendCall(withXID(setAddr(4, program, 1, "tcp", "0.0.0.0.8.1"), 7)); err != nil {
			t.Fatal(err)
		}
		ns.Remote(t, func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 700, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: rpcbind.Port, Addr: bed.Addr(bed.HostIPv4).As4()}); err != unix.EINPROGRESS {
				t.Fatalf("connect from a forged address: %v", err)
			}
			time.Sleep(500 * time.Millisecond)
			if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.State == 1 {
				t.Errorf("a forged connection is established: %+v, %v", info, err)
			}
		})
		must(t, ns, bed.UDP, bed.From{Remote: true}, message(2, rpcbind.ProcNull, nil)) // the forged call was read before
		if got := must(t, ns, bed.UDP, root, getPort(program, 1, rpcbind.ProtTCP)); !bytes.Equal(got, words(0)) {
			t.Errorf("GETPORT after forged SETs: %x", got)
		}
	})
}
