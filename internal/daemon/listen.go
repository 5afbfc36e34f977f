package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
)

// listen returns the sockets to serve: those that systemd handed over, else those that the configuration names. It is
// all or nothing.
func listen(c Config) ([]*sys.Socket, error) {
	sockets, err := sys.Activated()
	if err != nil {
		return nil, byCause(ExitConfig, oneLine(err))
	}
	if len(sockets) > 0 {
		c.Log.Info("serving the sockets that systemd handed over; --host, --port and --socket don't apply", "sockets", describe(sockets))
		return sockets, nil
	}
	ipv6 := sys.IPv6Available()
	if !ipv6 {
		c.Log.Info("this host has no IPv6: serving IPv4 only")
	}
	addrs, err := addresses(c, ipv6)
	if err != nil {
		return nil, err
	}
	return bind(c, addrs)
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
		if err := usable(a, ipv6); err != nil {
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
func usable(a netip.Addr, ipv6 bool) error {
	if a.Is6() && !ipv6 {
		return WithExitCode(ExitConfig, fmt.Errorf("host %v: this host has no IPv6; remove the address", a))
	}
	probe, err := sys.ListenUDP(netip.AddrPortFrom(a, 0))
	if err == nil {
		probe.Close()
		return nil
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; it isn't an address of this host, give one that `ip address` shows"
	case a.IsLinkLocalUnicast() && a.Zone() == "":
		hint = fmt.Sprintf("; a link-local address needs its interface, as in %v%%eth0", a)
	}
	return byCause(ExitConfig, fmt.Errorf("host %v: %w%s", a, err, hint))
}

// bind opens all sockets. If one can't be had, those opened are closed, and the error tells all that were refused: each
// may have another reason.
func bind(c Config, addrs []netip.Addr) ([]*sys.Socket, error) {
	var sockets []*sys.Socket
	var refused []error
	try := func(s *sys.Socket, err error) {
		if err != nil {
			refused = append(refused, err)
			return
		}
		sockets = append(sockets, s)
	}
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a, c.Port)
		try(sys.ListenUDP(ap))
		try(sys.ListenTCP(ap))
	}
	try(sys.ListenLocal(c.Socket))
	try(sys.ListenLocal("@" + c.Socket))
	if refused == nil {
		return sockets, nil
	}
	closeAll(sockets)
	return nil, refusal(c, refused)
}

func closeAll(sockets []*sys.Socket) {
	for _, s := range sockets {
		s.Close()
	}
}

// refusal makes one error of one line, with the exit code of the first.
func refusal(c Config, refused []error) error {
	const local = "listen on local socket"
	texts := make([]string, len(refused))
	var portTaken, socketTaken, denied bool
	for i, err := range refused {
		texts[i] = err.Error()
		isLocal := strings.HasPrefix(texts[i], local)
		inUse := errors.Is(err, syscall.EADDRINUSE)
		portTaken = portTaken || inUse && !isLocal
		socketTaken = socketTaken || inUse && isLocal
		denied = denied || !isLocal && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM))
	}
	text := strings.Join(texts, "; ")
	if portTaken {
		text += fmt.Sprintf(" (by whom: ss -lntup 'sport = :%d')", c.Port)
	}
	if socketTaken {
		text += fmt.Sprintf(" (by whom: ss -lxp 'src = %s or src = @%[1]s')", c.Socket)
	}
	if denied && c.Port < 1024 {
		text += fmt.Sprintf(" (port %d needs root or CAP_NET_BIND_SERVICE; others can run an instance of their own with --port and --state-dir)", c.Port)
	}
	code := ExitSystem
	if strings.HasPrefix(texts[0], local) {
		code = ExitCantCreate
	}
	return byCause(code, &rephrased{text, refused[0]})
}

// oneLine rephrases an error of several lines.
func oneLine(err error) error { return &rephrased{strings.ReplaceAll(err.Error(), "\n", "; "), err} }

// rephrased is an error in other words.
type rephrased struct {
	text string
	err  error
}

func (e *rephrased) Error() string { return e.text }
func (e *rephrased) Unwrap() error { return e.err }

// describe names sockets as in "udp 0.0.0.0:111, local /run/rpcbind.sock".
func describe(sockets []*sys.Socket) string {
	names := make([]string, len(sockets))
	for i, s := range sockets {
		name := s.Path
		if s.Netid != "local" {
			name = s.Addr.String()
		}
		names[i] = s.Netid + " " + name
	}
	return strings.Join(names, ", ")
}
