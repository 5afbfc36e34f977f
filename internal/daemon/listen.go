package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

// listen returns the sockets to serve: those that systemd handed over, else those that the configuration names, of which an
// earlier process may have bound some or all. It is all or nothing. The keeper gets the connections that one had.
func listen(c Config, k *keeper) ([]*sys.Socket, error) {
	others := sys.OthersActivation()
	if others != nil {
		c.Log.Warn(others.Error())
	}
	handed, err := sys.Activation()
	if err != nil {
		return nil, byCause(ExitConfig, oneLine(err))
	}
	sockets := handed.Sockets
	if len(sockets) > 0 {
		c.Log.Info("serving the sockets that systemd handed over; --host, --port and --socket don't apply", "sockets", describe(sockets))
		k.leave(handed.Kept)
	} else if sockets, err = bindWith(c, k, handed.Kept); err != nil {
		handed.Close()
		if others != nil { // they are in the way, for who holds them is systemd, or we
			err = WithExitCode(ExitConfig, fmt.Errorf("%w; %w", others, err))
		}
		return nil, err
	}
	k.keepListeners(sockets)
	k.takeBack(handed.Connections, handed.Lost)
	k.adopt(takeOffered(c), c.Limits.ConnectionsEach)
	return sockets, nil
}

// bindWith opens all sockets that the configuration names, or takes them from those that an earlier process had bound. It
// closes the others of these.
func bindWith(c Config, k *keeper, kept []*sys.Socket) ([]*sys.Socket, error) {
	ipv6 := sys.IPv6Available()
	if !ipv6 {
		c.Log.Info("this host has no IPv6: serving IPv4 only")
	}
	addrs, err := addresses(c, ipv6)
	if err != nil {
		return nil, err
	}
	wanted := c.endpoints(addrs)
	k.leave(slices.DeleteFunc(slices.Clone(kept), func(s *sys.Socket) bool {
		return slices.ContainsFunc(wanted, func(e instance.Endpoint) bool { return choose([]*sys.Socket{s}, e) != nil })
	}))
	return bind(c, wanted, kept)
}

// addresses returns what the UDP and TCP sockets are to be bound to: the wildcards, or the hosts given, each of which has
// to be one that can be bound, and the loopback addresses.
func addresses(c Config, ipv6 bool) ([]netip.Addr, error) {
	if len(c.Hosts) == 0 {
		addrs := []netip.Addr{netip.IPv4Unspecified()}
		if ipv6 {
			addrs = append(addrs, netip.IPv6Unspecified())
		}
		return addrs, nil
	}
	var addrs []netip.Addr
	for _, a := range c.Hosts {
		if a = a.Unmap(); slices.Contains(addrs, a) {
			continue
		}
		if err := c.usable(a, ipv6); err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	// A wildcard covers loopback, and bound beside it a second UDP socket would be refused.
	for _, pair := range [][2]netip.Addr{
		{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv4Unspecified()},
		{netip.IPv6Loopback(), netip.IPv6Unspecified()},
	} {
		loopback, wildcard := pair[0], pair[1]
		if slices.Contains(addrs, wildcard) {
			addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is4() == wildcard.Is4() && a != wildcard })
		} else if !slices.Contains(addrs, loopback) && (ipv6 || loopback.Is4()) {
			addrs = append(addrs, loopback)
		}
	}
	return addrs, nil
}

// usable tells what keeps an address from being bound. Only the kernel knows: an address of no interface may be bindable
// (local routes, ip_nonlocal_bind), and one of an interface not yet.
func (c Config) usable(a netip.Addr, ipv6 bool) error {
	if a.Is6() && !ipv6 {
		return WithExitCode(ExitConfig, fmt.Errorf("host %v: this host has no IPv6; remove the address", a))
	}
	probe, err := sys.ListenUDP(netip.AddrPortFrom(a, 0), c.bindOptions()...)
	if err == nil {
		probe.Close()
		return nil
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; it isn't an address of this host, give one that `ip address` shows, or --free-bind if it comes later"
	case a.IsLinkLocalUnicast() && a.Zone() == "":
		hint = fmt.Sprintf("; a link-local address needs its interface, as in %v%%eth0", a)
	}
	return byCause(ExitConfig, fmt.Errorf("host %v: %w%s", a, err, hint))
}

// bind opens all sockets, but those that an earlier process had bound. If one can't be had that is required, those opened are
// closed, and the error tells all that were refused: each may have another reason.
func bind(c Config, wanted []instance.Endpoint, kept []*sys.Socket) ([]*sys.Socket, error) {
	var sockets []*sys.Socket
	var failed []refused
	for _, e := range wanted {
		s := choose(kept, e)
		if s == nil {
			var err error
			if s, err = c.open(e); c.optional(e) && err != nil {
				c.warnUnserved(e, err)
				continue
			} else if err != nil {
				failed = append(failed, refused{e, err})
				continue
			}
		}
		sockets = append(sockets, s)
	}
	if failed == nil {
		return sockets, nil
	}
	closeAll(sockets)
	return nil, refusal(c, failed)
}

func (c Config) open(e instance.Endpoint) (*sys.Socket, error) {
	switch e.Netid {
	case "udp", "udp6":
		return sys.ListenUDP(e.Addr, c.bindOptions()...)
	case "tcp", "tcp6":
		return sys.ListenTCP(e.Addr, c.bindOptions()...)
	}
	return sys.ListenLocal(e.Path)
}

func (c Config) bindOptions() []sys.BindOption {
	if c.FreeBind {
		return []sys.BindOption{sys.FreeBind}
	}
	return nil
}

func closeAll(sockets []*sys.Socket) {
	for _, s := range sockets {
		s.Close()
	}
}

// describe names sockets as in "udp 0.0.0.0:111, local /run/rpcbind.sock".
func describe(sockets []*sys.Socket) string { return strings.Join(names(sockets), ", ") }

func names(sockets []*sys.Socket) []string {
	all := make([]string, len(sockets))
	for i, s := range sockets {
		name := s.Path
		if s.Netid != "local" {
			name = s.Addr.String()
		}
		all[i] = s.Netid + " " + name
	}
	return all
}
