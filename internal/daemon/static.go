package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

const (
	// maxStatics is how many static registrations a configuration may have: the table doesn't count them.
	maxStatics = 1000
	// staticOctets is the length of the longest netid and address of one.
	staticOctets = 256
)

// ParseStatic reads a static registration: "PROGRAM VERSION NETID ADDRESS". The address is a port, which is that port of every
// address, an IP address with a port, or a universal address.
func ParseStatic(s string) (b rpcbind.RPCB, err error) {
	words := strings.Fields(s)
	if len(words) != 4 {
		return b, fmt.Errorf("%q: write PROGRAM VERSION NETID ADDRESS, e.g. \"100005 3 tcp 20048\"", s)
	}
	if b.Program, err = access.ParseProgram(words[0]); err != nil {
		return b, fmt.Errorf("%q: %w", s, err)
	}
	version, err := strconv.ParseUint(words[1], 0, 32)
	if err != nil {
		return b, fmt.Errorf("%q: %q is no version; give a number", s, words[1])
	}
	b.Version, b.Netid = uint32(version), rpcbind.Netid(words[2])
	b.Addr, b.Owner = staticAddr(b.Netid, words[3]), rpcbind.OwnerStatic
	switch _, err := registry.Validate(b); {
	case b.Program == rpcbind.Program:
		return b, fmt.Errorf("%q: program %d is the portmapper; it registers itself", s, b.Program)
	case max(len(b.Netid), len(b.Addr)) > staticOctets:
		return b, fmt.Errorf("%q: netid and address may have %d bytes each", s, staticOctets)
	case err != nil:
		return b, fmt.Errorf("%q: %w; an address is a port, 192.0.2.1:20048 or [2001:db8::1]:20048, or a universal address", s, err)
	}
	return b, nil
}

// staticAddr returns the universal address that is meant by a port, or by an IP address with a port; s itself if it is
// neither.
func staticAddr(netid rpcbind.Netid, s string) string {
	transport, known := netid.Transport()
	if !known || !transport.IP() {
		return s
	}
	if at, err := netip.ParseAddrPort(s); err == nil && at.Port() != 0 {
		return rpcbind.UAddr(at)
	}
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return s
	}
	every := netip.IPv4Unspecified()
	if transport.Family == "inet6" {
		every = netip.IPv6Unspecified()
	}
	return rpcbind.UAddr(netip.AddrPortFrom(every, uint16(port)))
}

// CheckStatics returns an error if there are too many static registrations, or two for one program, version and netid.
func CheckStatics(all []rpcbind.RPCB) error {
	if len(all) > maxStatics {
		return fmt.Errorf("%d static registrations; at most %d are possible", len(all), maxStatics)
	}
	for i, b := range all {
		if slices.ContainsFunc(all[:i], func(a rpcbind.RPCB) bool {
			return a.Program == b.Program && a.Version == b.Version && a.Netid.Is(b.Netid)
		}) {
			return fmt.Errorf("program %d version %d has two addresses on %s; leave one", b.Program, b.Version, b.Netid)
		}
	}
	return nil
}

// setStatics makes the configuration's static registrations those of the table, and logs what they replaced.
func (c Config) setStatics(log *slog.Logger, table *registry.Table) error {
	replaced, err := table.SetStatic(c.Static)
	if err != nil {
		return WithExitCode(ExitConfig, fmt.Errorf("static registrations: %w", err))
	}
	for _, e := range replaced {
		log.Warn("a static registration replaces one that a server made", "program", e.Program, "version", e.Version,
			"netid", string(e.Netid), "address", e.Addr, "owner", e.Owner)
	}
	return nil
}

// restorable returns the registrations without those that were static in another daemon: only the configuration makes them.
func restorable(regs []rpcbind.RPCB) []rpcbind.RPCB {
	return slices.DeleteFunc(regs, func(b rpcbind.RPCB) bool { return b.Owner == rpcbind.OwnerStatic })
}
