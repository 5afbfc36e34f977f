package bed_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"golang.org/x/sys/unix"
)

// The hosts of these tests:
//
//	subject veth0 10.9.9.1 ---- 10.9.9.2 veth1 router veth2 192.0.2.1 ---- 192.0.2.9 veth3 far
//	        wan0 198.51.100.1 ------------------------------------------ 198.51.100.9 wan1 far
//
// The router forwards whatever comes, with the sources of either side.
const (
	farIPv4    = "192.0.2.9"
	farPrivate = "10.77.0.9"
	farIPv6    = "fd77::9"
	lanVictim  = "10.9.9.77" // a host of the subject's network
	lanVictim6 = "fd09::77"
)

// inNamespaceOf runs f on a thread in a network namespace that ip netns made.
func inNamespaceOf(t *testing.T, name string, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		file, err := os.Open("/run/netns/" + name)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			done <- err
			return
		}
		defer func() { done <- nil }()
		f()
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter the namespace %s: %v", name, err)
	}
}

// beyondARouter makes the hosts above.
func beyondARouter(t *testing.T) {
	t.Helper()
	inNamespaceOf(t, "peer", func() {
		mac, err := exec.Command("sh", "-c", "ip -br link show dev "+bed.PeerInterface+" | awk '{print $3}'").Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("VICTIM", strings.TrimSpace(string(mac)))
	})
	command(t, "sh", "-ec", `
		ip netns add far
		for ns in peer far; do ip netns exec $ns sysctl -qw net.ipv6.conf.default.accept_dad=0; done # else neighbours are unknown for a second
		ip -n peer link add veth2 type veth peer name veth3 netns far
		ip link add wan0 type veth peer name wan1 netns far
		ip -n far link set lo up
		ip -n peer addr add 192.0.2.1/24 dev veth2; ip -n peer addr add 10.77.0.1/24 dev veth2; ip -n peer addr add fd77::1/64 dev veth2 nodad
		ip -n far addr add 192.0.2.9/24 dev veth3; ip -n far addr add 10.77.0.9/24 dev veth3; ip -n far addr add fd77::9/64 dev veth3 nodad
		ip addr add 198.51.100.1/24 dev wan0; ip -n far addr add 198.51.100.9/24 dev wan1
		ip link set wan0 up; ip -n far link set wan1 up; ip -n peer link set veth2 up; ip -n far link set veth3 up
		ip -n far route add 10.9.9.0/24 via 192.0.2.1; ip -n far -6 route add fd09::/64 via fd77::1
		ip route add 192.0.2.0/24 via 10.9.9.2; ip route add 10.77.0.0/24 via 10.9.9.2; ip -6 route add fd77::/64 via fd09::2
		ip neigh add 10.9.9.77 lladdr $VICTIM dev veth0; ip -6 neigh add fd09::77 lladdr $VICTIM dev veth0
		ip netns exec peer sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		for ns in peer far; do ip netns exec $ns sh -c 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done'; done
		for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done
	`)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// forge builds a UDP datagram to port 111 with headers as they please.
func forge(from, to netip.Addr, hops byte, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 40000)
	udp = binary.BigEndian.AppendUint16(udp, 111)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(append(udp, 0, 0), payload...)
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP, byte(len(udp)>>8), byte(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	if from.Is6() {
		head := []byte{0x60, 0, 0, 0, byte(len(udp) >> 8), byte(len(udp)), unix.IPPROTO_UDP, hops}
		return append(append(append(head, from.AsSlice()...), to.AsSlice()...), udp...)
	}
	total := 20 + len(udp)
	head := []byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0, 0, hops, unix.IPPROTO_UDP, 0, 0}
	head = append(append(head, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, udp...)
}

// sendForged sends datagrams with headers of their own from the host far.
func sendForged(t *testing.T, times int, pause time.Duration, to netip.Addr, datagram []byte) {
	t.Helper()
	inNamespaceOf(t, "far", func() {
		domain, sa := unix.AF_INET, unix.Sockaddr(nil)
		if to.Is6() {
			domain, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
		} else {
			sa = &unix.SockaddrInet4{Addr: to.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for range times {
			if err := unix.Sendto(fd, datagram, 0, sa); err != nil {
				t.Fatal(err)
			}
			time.Sleep(pause)
		}
	})
}

// capture notes how many octets of UDP payload come from port 111 to an address, datagram by datagram, on the link of the
// subject's network, until the returned function is called.
func capture(t *testing.T, to netip.Addr) (stop func() []int) {
	t.Helper()
	fd := -1
	inNamespaceOf(t, "peer", func() {
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0x0300); err != nil { // ETH_P_ALL
			t.Fatal(err)
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	})
	return func() (sizes []int) {
		time.Sleep(150 * time.Millisecond)
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for {
			n, sa, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return sizes
			}
			if ll, ok := sa.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			p := buf[:n]
			head, dst, proto := 20, 16, 9
			if to.Is6() {
				head, dst, proto = 40, 24, 6
			}
			// Of a large reply the first fragment has the UDP header with the length of all.
			if n < head+8 || p[0]>>4 != map[bool]byte{false: 4, true: 6}[to.Is6()] || !bytes.Equal(p[dst:dst+len(to.AsSlice())], to.AsSlice()) {
				continue
			}
			udp := p[head:]
			if p[proto] == 44 && to.Is6() && udp[0] == unix.IPPROTO_UDP { // a fragment
				udp = udp[8:]
			} else if p[proto] != unix.IPPROTO_UDP || !to.Is6() && (binary.BigEndian.Uint16(p[6:])&0x1fff) != 0 {
				continue
			}
			if binary.BigEndian.Uint16(udp) == 111 {
				sizes = append(sizes, int(binary.BigEndian.Uint16(udp[4:]))-8)
			}
		}
	}
}

// listCalls are the calls whose answers are lists.
func listCalls() map[string][]byte {
	return map[string][]byte{
		"v2 DUMP": dump(2), "v3 DUMP": dump(3), "v4 DUMP": dump(4),
		"GETSTAT": message(4, rpcbind.ProcGetStat, nil), "GETADDRLIST": getAddrList(100005, 3),
	}
}

// TestListsOnTheOwnNetwork asks for lists over UDP from the own network and from beyond a router, by honest addresses.
func TestListsOnTheOwnNetwork(t *testing.T) {
	linkLocal := bed.From{Remote: true, Addr: netip.MustParseAddr(bed.PeerLinkLocal).WithZone(bed.PeerInterface),
		To: netip.AddrPortFrom(netip.MustParseAddr(bed.HostLinkLocal).WithZone(bed.PeerInterface), 111)}
	connected := []struct {
		name     string
		tr       bed.Transport
		from     bed.From
		over     bed.Transport // what answers the same over a stream
		overFrom bed.From
	}{
		{"IPv4", bed.UDP, bed.From{Remote: true}, bed.TCP, bed.From{Remote: true}},
		{"IPv6", bed.UDP6, bed.From{Remote: true}, bed.TCP6, bed.From{Remote: true}},
		{"link-local", bed.UDP6, linkLocal, bed.TCP6, linkLocal},
	}
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		serveNFS(t, ns)
		beyondARouter(t)
		for _, c := range connected {
			for name, call := range listCalls() {
				got := must(t, ns, c.tr, c.from, call)
				if name == "GETSTAT" { // it counts itself
					if len(got) < 3*68 {
						t.Errorf("%s %s: %d octets", c.name, name, len(got))
					}
					continue
				}
				if want := must(t, ns, c.over, c.overFrom, call); !bytes.Equal(got, want) {
					t.Errorf("%s %s: %d octets over UDP, %d over TCP", c.name, name, len(got), len(want))
				}
			}
		}
		if subject == bed.Rpcbind {
			return
		}
		for _, from := range []string{farIPv4, farPrivate, farIPv6} {
			to := netip.MustParseAddr(bed.HostIPv4)
			if strings.Contains(from, ":") {
				to = netip.MustParseAddr(bed.HostIPv6)
			}
			for name, call := range listCalls() {
				if got := askFrom(t, "far", from, to, call); len(got) > len(call) || len(got) == 0 {
					t.Errorf("%s from %s: a call of %d octets is answered with %d", name, from, len(call), len(got))
				}
			}
			if got := askFrom(t, "far", from, to, getPort(100005, 3, rpcbind.ProtTCP)); results(got) == nil {
				t.Errorf("a lookup from %s is answered %s", from, describe(got))
			}
		}
	})
}

// askFrom sends a call over UDP from an address of a namespace and returns the answer, nil if there is none.
func askFrom(t *testing.T, namespace, from string, to netip.Addr, call []byte) (reply []byte) {
	t.Helper()
	inNamespaceOf(t, namespace, func() {
		source := netip.MustParseAddr(from)
		domain := unix.AF_INET
		var local, remote unix.Sockaddr = &unix.SockaddrInet4{}, &unix.SockaddrInet4{}
		if source.Is6() {
			domain, local, remote = unix.AF_INET6, &unix.SockaddrInet6{Addr: source.As16()}, &unix.SockaddrInet6{Port: 111, Addr: to.As16()}
		} else {
			local, remote = &unix.SockaddrInet4{Addr: source.As4()}, &unix.SockaddrInet4{Port: 111, Addr: to.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		wait := unix.Timeval{Sec: 2}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, local); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(fd, withXID(call, 1), 0, remote); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		if n, _, err := unix.Recvfrom(fd, buf, 0); err == nil {
			reply = buf[:n]
		}
	})
	return reply
}

// TestListsAndForgedSources sends calls for lists from beyond a router that filters nothing, in the name of hosts of the
// subject's network and of others. On the subject's network no answer is seen that is larger than its call.
func TestListsAndForgedSources(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap)
		serveNFS(t, ns)
		beyondARouter(t)
		host4, host6, wan := netip.MustParseAddr(bed.HostIPv4), netip.MustParseAddr(bed.HostIPv6), netip.MustParseAddr("198.51.100.1")
		for _, c := range []struct {
			name, from string
			to         netip.Addr
			answered   bool // at all, so that this test sees something
		}{
			{"a host of the network", lanVictim, host4, true},
			{"a host of the network, IPv6", lanVictim6, host6, true},
			{"a host of the network, by another interface without a router", lanVictim, wan, true},
			{"the subject", bed.HostIPv4, host4, false},
			{"loopback", "127.0.0.1", host4, false},
			{"link-local", "169.254.1.1", host4, false},
			{"a private address of nobody", "10.200.0.1", host4, false},
			{"link-local of IPv6", "fe80::77", host6, false},
		} {
			for _, hops := range []byte{64, 128, 255} {
				from := netip.MustParseAddr(c.from)
				stop := capture(t, from)
				largest := 0
				for _, call := range listCalls() {
					largest = max(largest, len(call))
					sendForged(t, 1, 0, c.to, forge(from, c.to, hops, withXID(call, 1)))
				}
				sizes := stop()
				for _, n := range sizes {
					if n > largest {
						t.Errorf("%s, hop limit %d: an answer of %d octets to a call of %d at most", c.name, hops, n, largest)
					}
				}
				if c.answered && len(sizes) == 0 {
					t.Errorf("%s, hop limit %d: no answer was seen at all", c.name, hops)
				}
			}
		}
	})
}

// TestListsAndAForgerWhoCountsRouters sends calls that arrive with a hop limit as from the network itself, because the
// forger knows that there is one router. A router that lets no source of the network in from outside stops them; without
// one, no more than listRate large answers a second reach the victim.
func TestListsAndAForgerWhoCountsRouters(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap)
		serveNFS(t, ns)
		beyondARouter(t)
		host, victim := netip.MustParseAddr(bed.HostIPv4), netip.MustParseAddr(lanVictim)
		datagram := forge(victim, host, 65, withXID(dump(2), 1))
		large := func(sizes []int) (n int) {
			for _, s := range sizes {
				if s > len(dump(2)) {
					n++
				}
			}
			return n
		}
		stop := capture(t, victim)
		const sent = 20_000
		began := time.Now()
		sendForged(t, sent, 0, host, datagram)
		most := int(1000 * (time.Since(began).Seconds() + 1.5))
		sizes := stop()
		t.Logf("%d forged calls in %v: %d answers, %d of them large", sent, time.Since(began), len(sizes), large(sizes))
		if got := large(sizes); got > most || got == 0 {
			t.Errorf("%d large answers, want 1 to %d", got, most)
		}
		command(t, "ip", "netns", "exec", "peer", "sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$f; done")
		stop = capture(t, victim)
		sendForged(t, 100, 0, host, datagram)
		if sizes := stop(); len(sizes) != 0 {
			t.Errorf("%d answers behind a router with a filter for sources", len(sizes))
		}
	})
}

// TestListsFollowTheAddresses takes the subject's address away and gives it another one while it serves.
func TestListsFollowTheAddresses(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ns.Start(t, bed.Gportmap)
		serveNFS(t, ns)
		command(t, "sh", "-ec", `ip netns exec peer ip addr add 172.16.5.2/24 dev veth1
			ip addr add 10.9.9.1/32 dev veth0; ip route add 172.16.5.0/24 dev veth0`)
		whole := func(from, to string) bool {
			reply := askFrom(t, "peer", from, netip.MustParseAddr(to), dump(4))
			if len(reply) == 0 {
				t.Fatalf("DUMP from %s gets no answer", from)
			}
			return len(reply) > len(dump(4))
		}
		if !whole(bed.PeerIPv4, bed.HostIPv4) || whole("172.16.5.2", bed.HostIPv4) {
			t.Fatal("before: 10.9.9.2 has to get the list, 172.16.5.2 not")
		}
		command(t, "sh", "-ec", "ip addr add 172.16.5.1/24 dev veth0; ip route add 10.9.9.2/32 dev veth0; ip addr del 10.9.9.1/24 dev veth0")
		if !eventually(func() bool { return whole("172.16.5.2", "172.16.5.1") && !whole(bed.PeerIPv4, bed.HostIPv4) }) {
			t.Error("after: 172.16.5.2 has to get the list, 10.9.9.2 not")
		}
	})
}

// TestUDPLists goes through the values of the setting, by flag and by the file, and reloads it.
func TestUDPLists(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ownEtc(t)
		d := ns.Start(t, bed.Gportmap)
		serveNFS(t, ns)
		beyondARouter(t)
		for _, c := range []struct {
			file      string
			near, far bool
		}{
			{"", true, false}, {"local", false, false}, {"all", true, true}, {"connected", true, false},
		} {
			if c.file != "" {
				seen := strings.Count(d.Log(), "SIGHUP")
				if err := os.WriteFile("/etc/gportmap.toml", []byte("udp-lists = \""+c.file+"\"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := d.Signal(unix.SIGHUP); err != nil {
					t.Fatal(err)
				}
				if !eventually(func() bool { return strings.Count(d.Log(), "SIGHUP") > seen }) {
					t.Fatal("nothing was reloaded")
				}
			}
			host := netip.MustParseAddr(bed.HostIPv4)
			near := results(askFrom(t, "peer", bed.PeerIPv4, host, dump(4))) != nil
			far := results(askFrom(t, "far", farIPv4, host, dump(4))) != nil
			if near != c.near || far != c.far {
				t.Errorf("udp-lists %q: a neighbour gets the list %v, others %v; want %v, %v", c.file, near, far, c.near, c.far)
			}
		}
	})
}
