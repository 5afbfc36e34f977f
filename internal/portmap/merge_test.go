package portmap

import (
	"net/netip"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// from returns a caller over a transport that sent its call from remote to local over an interface.
func from(t Transport, remote, local netip.Addr, ifindex uint32) Caller {
	return Caller{
		Transport: t, Remote: netip.AddrPortFrom(remote, 40000), Local: netip.AddrPortFrom(local, 111),
		Ifindex: ifindex, Loopback: ifindex == ifLoopback, Multicast: local.IsMulticast(),
	}
}

// TestMerge holds which address of the host a caller is told: PROTOCOL section 5 and no. 9 of section 8.
func TestMerge(t *testing.T) {
	none := netip.Addr{}
	addr := netip.MustParseAddr
	tests := []struct {
		name       string
		registered string
		from       Caller
		hint       string
		want       string
	}{
		// Registered on all addresses: the hint, if it is ours.
		{"the hint is ours", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "198.51.100.1.0.111", "198.51.100.1.8.1"},
		{"the hint is a loopback address", "0.0.0.0.8.1", from(TCP, peerIPv4, hostIPv4, ifEther), "127.0.0.1.0.111", "127.0.0.1.8.1"},
		{"the hint is ours, up to its zero", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "198.51.100.1.0.111\x00x", "198.51.100.1.8.1"},
		{"the hint's port is ignored", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "198.51.100.1.255.255", "198.51.100.1.8.1"},
		{"the hint is ours, caller on the host", "0.0.0.0.8.1", from(UDP, loopback4, loopback4, ifLoopback), "192.0.2.1.0.111", "192.0.2.1.8.1"},
		{"the hint is ours, IPv6", "::.8.1", from(UDP6, peerIPv6, hostIPv6, ifEther), "2001:db8:b::1.0.111", "2001:db8:b::1.8.1"},
		{"the hint is ours, caller link-local", "::.8.1", from(UDP6, peerLink, hostLink, ifEther), "2001:db8::1.0.111", "2001:db8::1.8.1"},
		// A hint that is a good address but not ours, as behind a translator of addresses.
		{"the hint is foreign", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "203.0.113.9.0.111", "192.0.2.1.8.1"},
		{"the hint is of our network", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "198.51.100.9.0.111", "192.0.2.1.8.1"},
		{"the hint is of an interface that is down", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "203.0.113.1.0.111", "192.0.2.1.8.1"},
		{"the hint is no address", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "0.0.0.0.0.111", "192.0.2.1.8.1"},
		{"the hint is mapped", "::.8.1", from(TCP6, peerIPv6, hostIPv6, ifEther), "::ffff:192.0.2.1.0.111", "2001:db8::1.8.1"},
		{"the hint is link-local, the caller isn't", "::.8.1", from(TCP6, peerIPv6, hostIPv6, ifEther), "fe80::b.0.111", "2001:db8::1.8.1"},
		// A hint that is none: the answer is what was registered.
		{"the hint is junk", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "junk", "0.0.0.0.8.1"},
		{"the hint has no port", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "192.0.2.1", "0.0.0.0.8.1"},
		{"the hint is a path", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "/run/rpcbind.sock", "0.0.0.0.8.1"},
		{"the hint is of the other family", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "2001:db8::1.0.111", "0.0.0.0.8.1"},
		{"the hint is of the other family, IPv6", "::.8.1", from(UDP6, peerIPv6, hostIPv6, ifEther), "192.0.2.1.0.111", "::.8.1"},
		{"the hint has a zone", "::.8.1", from(UDP6, peerLink, hostLink, ifEther), "fe80::1%eth0.0.111", "::.8.1"},
		{"junk as a hint, loopback registered", "127.0.0.1.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "junk", "127.0.0.1.8.1"},
		// Without a hint: the caller's own address if it is one of ours.
		{"a hint that is a zero", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "\x00junk", "192.0.2.1.8.1"},
		{"caller on loopback", "0.0.0.0.8.1", from(UDP, loopback4, loopback4, ifLoopback), "", "127.0.0.1.8.1"},
		{"caller on loopback, IPv6", "::.8.1", from(TCP6, loopback6, loopback6, ifLoopback), "", "::1.8.1"},
		{"caller on loopback, to another loopback address", "0.0.0.0.8.1", from(UDP, loopback4, addr("127.0.0.5"), ifLoopback), "", "127.0.0.1.8.1"},
		{"caller on the host", "0.0.0.0.8.1", from(TCP, hostIPv4B, hostIPv4, ifLoopback), "", "198.51.100.1.8.1"},
		{"caller on loopback, not an interface's address", "0.0.0.0.8.1", from(UDP, addr("127.0.0.9"), addr("127.0.0.5"), ifLoopback), "", "127.0.0.5.8.1"},
		// Then the address that the call was sent to.
		{"caller on the network", "0.0.0.0.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "", "192.0.2.1.8.1"},
		{"caller on one network, to the address of another", "0.0.0.0.8.1", from(TCP, peerIPv4, hostIPv4B, ifEther), "", "198.51.100.1.8.1"},
		{"caller far away", "0.0.0.0.8.1", from(TCP, addr("203.0.113.200"), hostIPv4B, ifEtherB), "", "198.51.100.1.8.1"},
		{"to an address that no interface has", "0.0.0.0.8.1", from(TCP, peerIPv4, addr("203.0.113.77"), ifEther), "", "203.0.113.77.8.1"},
		{"caller far away, IPv6", "::.8.1", from(UDP6, addr("2001:db8:ffff::9"), addr("2001:db8:b::1"), ifEtherB), "", "2001:db8:b::1.8.1"},
		// Link-local callers.
		{"caller link-local", "::.8.1", from(UDP6, peerLink, hostLink, ifEther), "", "fe80::1.8.1"},
		{"caller link-local on the second interface", "::.8.1", from(UDP6, peerLink, hostLinkB, ifEtherB), "", "fe80::b.8.1"},
		{"caller link-local, to a global address", "::.8.1", from(TCP6, peerLink, hostIPv6, ifEtherB), "", "fe80::b.8.1"},
		{"caller link-local, link-local hint", "::.8.1", from(UDP6, peerLink, hostLinkB, ifEtherB), "fe80::1.0.111", "fe80::b.8.1"},
		{"caller link-local, to a second link-local address", "::.8.1", from(UDP6, peerLink, addr("fe80::2"), ifEther), "", "fe80::2.8.1"},
		{"caller link-local, interface without one", "::.8.1", from(TCP6, peerLink, hostIPv6, ifTunnel), "", "2001:db8::1.8.1"},
		{"caller link-local, interface down", "::.8.1", from(TCP6, peerLink, hostIPv6, ifDown), "", "2001:db8::1.8.1"},
		// Multicast: the call has no address of ours.
		{"multicast from a link", "::.8.1", from(UDP6, peerLink, none, ifEtherB), "", "fe80::b.8.1"},
		{"multicast, group as local address", "::.8.1", from(UDP6, peerLink, addr("ff02::202"), ifEther), "", "fe80::1.8.1"},
		{"multicast from our network", "::.8.1", from(UDP6, addr("2001:db8:b::9"), none, ifEther), "", "2001:db8:b::1.8.1"},
		{"multicast from far away", "::.8.1", from(UDP6, addr("2001:db8:ffff::9"), none, ifEtherB), "", "2001:db8:b::1.8.1"},
		{"multicast over an unknown interface", "::.8.1", from(UDP6, addr("2001:db8:ffff::9"), none, 99), "", "2001:db8::1.8.1"},
		{"multicast, the hint is ours", "::.8.1", from(UDP6, peerLink, none, ifEtherB), "2001:db8::1.0.111", "2001:db8::1.8.1"},
		{"multicast, the hint is foreign", "::.8.1", from(UDP6, peerLink, none, ifEtherB), "2001:db8:ffff::1.0.111", "2001:db8:b::1.8.1"},
		{"IPv4 multicast over a tunnel", "0.0.0.0.8.1", from(UDP, addr("10.9.9.9"), addr("224.0.0.1"), ifTunnel), "", "10.8.0.1.8.1"},
		{"IPv4 multicast over an unknown interface", "0.0.0.0.8.1", from(UDP, addr("203.0.113.5"), none, 99), "", "192.0.2.1.8.1"},
		// Registered on one address: it is kept, but loopback for callers elsewhere.
		{"registered on one address", "198.51.100.1.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "", "198.51.100.1.8.1"},
		{"registered on one address, hint", "198.51.100.1.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "192.0.2.1.0.111", "198.51.100.1.8.1"},
		{"registered on one address, caller on loopback", "192.0.2.1.8.1", from(UDP, loopback4, loopback4, ifLoopback), "", "192.0.2.1.8.1"},
		{"registered on an address that isn't ours", "10.1.2.3.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "", "10.1.2.3.8.1"},
		{"registered on a link-local address", "fe80::1.8.1", from(UDP6, peerIPv6, hostIPv6, ifEther), "", "fe80::1.8.1"},
		{"registered on loopback, caller on it", "127.0.0.1.8.1", from(UDP, loopback4, loopback4, ifLoopback), "", "127.0.0.1.8.1"},
		{"registered on loopback, caller on it with a hint", "127.0.0.1.8.1", from(UDP, loopback4, loopback4, ifLoopback), "192.0.2.1.0.111", "127.0.0.1.8.1"},
		{"registered on loopback, caller on the network", "127.0.0.1.8.1", from(UDP, peerIPv4, hostIPv4, ifEther), "", "192.0.2.1.8.1"},
		{"registered on loopback, caller on the host", "127.0.0.1.8.1", from(UDP, hostIPv4, hostIPv4, ifLoopback), "", "192.0.2.1.8.1"},
		{"registered on loopback, caller on the network, IPv6", "::1.8.1", from(UDP6, peerIPv6, hostIPv6, ifEther), "", "2001:db8::1.8.1"},
		// Over a socket of both families.
		{"IPv4 caller of an IPv6 socket", "::.8.1", from(TCP6, peerIPv4, hostIPv4, ifEther), "", "::.8.1"},
		{"IPv4 caller of an IPv6 socket, hint", "::.8.1", from(TCP6, peerIPv4, hostIPv4, ifEther), "2001:db8::1.0.111", "2001:db8::1.8.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: tt.from.Transport.Netid(), Addr: tt.registered})
			args := rpcbOf(300001, 1, "", tt.hint, "")
			want := success(str(tt.want))
			wantReply(t, p, tt.from, callTo(3, 3, args), want)
			wantReply(t, p, tt.from, callTo(4, 3, args), want)
			wantReply(t, p, tt.from, callTo(4, 9, args), want)
		})
	}
}

func TestMergeWithoutInterfaces(t *testing.T) {
	p := newSubject(t,
		rpcbind.RPCB{Program: 300001, Version: 1, Netid: "udp", Addr: "0.0.0.0.8.1"},
		rpcbind.RPCB{Program: 300001, Version: 1, Netid: "udp6", Addr: "::.8.1"})
	p.SetInterfaces(NewInterfaces(nil))
	args := rpcbOf(300001, 1, "", "", "")
	wantReply(t, p, remoteCaller(UDP), callTo(3, 3, args), success(str("192.0.2.1.8.1")))
	wantReply(t, p, localCaller(UDP), callTo(3, 3, args), success(str("127.0.0.1.8.1")))
	// Nothing is known: the registered address is all there is.
	wantReply(t, p, from(UDP6, peerLink, netip.Addr{}, ifEther), callTo(3, 3, args), success(str("::.8.1")))
}

// TestMergeOverTheLocalSocket holds that an address is told as it was registered.
func TestMergeOverTheLocalSocket(t *testing.T) {
	p := newSubject(t, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "LOCAL", Addr: "127.0.0.1.8.1"})
	for _, hint := range []string{"", "192.0.2.1.0.111", "junk", "/run/x"} {
		wantReply(t, p, localCaller(Local), callTo(4, 3, rpcbOf(300001, 1, "tcp", hint, "")), success(str("127.0.0.1.8.1")))
	}
}
