package rpcbind

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

var (
	errNoListener = errors.New("no listener given")
	errPorts      = errors.New("two listeners of one transport have different ports; a portmapper keeps one address for each")
)

// Addresses returns the registrations of version vers of program prog for what it listens on: the netid and universal
// address of each listener, without an owner (RFC 5665 section 5). A listener is a [net.Listener], a [net.PacketConn] or
// a [net.Addr]; TCP, UDP and local stream sockets can be registered.
//
// A socket bound to the IPv6 wildcard address serves IPv4 too, unless it was made with a network as "tcp6": if so it is
// registered for both. Where that can't be told, as from an address alone, it is taken to serve both, as [net.Listen]
// makes such a socket. Several listeners of one transport become one registration: of the wildcard address if their
// addresses differ; their ports must not.
func Addresses(prog, vers uint32, listeners ...any) ([]RPCB, error) {
	if len(listeners) == 0 {
		return nil, &Error{Op: "listen", About: RPCB{Program: prog, Version: vers}, Err: errNoListener}
	}
	var list []RPCB
	for _, l := range listeners {
		found, err := addressesOf(l)
		for _, b := range found {
			if err == nil {
				list, err = addTo(list, b)
			}
		}
		if err != nil {
			return nil, &Error{Op: "listen", About: RPCB{Program: prog, Version: vers}, Err: err}
		}
	}
	for i := range list {
		list[i].Program, list[i].Version = prog, vers
	}
	return list, nil
}

// addTo adds an address to those of other listeners.
func addTo(list []RPCB, b RPCB) ([]RPCB, error) {
	for i := range list {
		if list[i].Netid != b.Netid || list[i].Addr == b.Addr {
			continue
		}
		at, ok := ParseUAddr(list[i].Addr)
		other, ok2 := ParseUAddr(b.Addr)
		if !ok || !ok2 || at.Port() != other.Port() {
			return nil, fmt.Errorf("%s %s and %s: %w", b.Netid, list[i].Addr, b.Addr, errPorts)
		}
		wildcard := netip.IPv4Unspecified()
		if at.Addr().Is6() {
			wildcard = netip.IPv6Unspecified()
		}
		list[i].Addr = UAddr(netip.AddrPortFrom(wildcard, at.Port()))
		return list, nil
	}
	for i := range list {
		if list[i].Netid == b.Netid {
			return list, nil
		}
	}
	return append(list, b), nil
}

// addressesOf returns the netids and addresses of one listener.
func addressesOf(listener any) ([]RPCB, error) {
	var addr net.Addr
	switch l := listener.(type) {
	case nil:
		return nil, errNoListener
	case net.Listener:
		addr = l.Addr()
	case net.PacketConn:
		addr = l.LocalAddr()
	case net.Addr:
		addr = l
	default:
		return nil, fmt.Errorf("a %T is no net.Listener, net.PacketConn or net.Addr", listener)
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		return ipAddresses(TCP, wildcard(a.AddrPort(), a.IP), bothFamilies(listener))
	case *net.UDPAddr:
		return ipAddresses(UDP, wildcard(a.AddrPort(), a.IP), bothFamilies(listener))
	case *net.UnixAddr:
		if a.Net == "unix" && (strings.HasPrefix(a.Name, "/") || strings.HasPrefix(a.Name, "@")) {
			return []RPCB{{Netid: Local, Addr: a.Name}}, nil
		}
	}
	return nil, fmt.Errorf("a socket at %q can't be registered: it has to be TCP, UDP, or a local stream socket with an absolute path or an abstract name",
		fmt.Sprint(addr))
}

// wildcard returns at, with the IPv6 wildcard address for one without an IP: package net takes that for the wildcard.
func wildcard(at netip.AddrPort, ip net.IP) netip.AddrPort {
	if len(ip) == 0 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
	}
	return at
}

func ipAddresses(n Netid, at netip.AddrPort, both bool) ([]RPCB, error) {
	addr := at.Addr().Unmap()
	if !addr.IsValid() || at.Port() == 0 {
		return nil, fmt.Errorf("%s %v: without an address and a port there is nothing to register", n, at)
	}
	if addr.Is4() {
		return []RPCB{{Netid: n, Addr: UAddr(netip.AddrPortFrom(addr, at.Port()))}}, nil
	}
	list := []RPCB{{Netid: n + "6", Addr: UAddr(netip.AddrPortFrom(addr, at.Port()))}}
	if addr.IsUnspecified() && both {
		list = append(list, RPCB{Netid: n, Addr: UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()))})
	}
	return list, nil
}

// bothFamilies tells whether a socket bound to the IPv6 wildcard serves IPv4 too, which is taken for granted where it
// can't be told.
func bothFamilies(listener any) bool {
	s, ok := listener.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	only := false
	if raw.Control(func(fd uintptr) { only = ipv6Only(fd) }) != nil {
		return true
	}
	return !only
}
