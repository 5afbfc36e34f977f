package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/gportmap/gportmap/internal/daemon"
)

// options are what the daemon's flags say.
type options struct {
	daemon.Config
	abort      bool
	debug      bool
	foreground bool
	warmStart  bool // accepted; that is always done
	help       bool
	version    bool
}

// parse reads the daemon's arguments by POSIX's rules: flags may be bundled (-wf), a value may follow its flag directly
// (-h127.0.0.1), -- ends the flags. The -h of rpcbind takes an address, so there is no short form of --help. A command that
// takes the daemon's flags adds its own by more.
func parse(args []string, more ...func(*pflag.FlagSet)) (options, error) {
	var o options
	var hosts []string
	var port, metrics string
	f := pflag.NewFlagSet("gportmap", pflag.ContinueOnError)
	f.SetInterspersed(false)
	f.Usage = func() {}
	f.BoolVarP(&o.abort, "abort", "a", false, "")
	f.BoolVarP(&o.debug, "debug", "d", false, "")
	f.BoolVarP(&o.foreground, "foreground", "f", false, "")
	f.StringArrayVarP(&hosts, "host", "h", nil, "")
	f.BoolVarP(&o.Insecure, "insecure", "i", false, "")
	f.BoolVarP(&o.LogCalls, "log-calls", "l", false, "")
	f.BoolVarP(&o.RemoteCalls, "remote-calls", "r", false, "")
	f.BoolVarP(&o.DropPrivileges, "drop-privileges", "s", false, "")
	f.BoolVarP(&o.version, "version", "v", false, "")
	f.BoolVarP(&o.warmStart, "warm-start", "w", false, "")
	f.StringVar(&port, "port", "", "")
	f.StringVar(&o.Socket, "socket", "", "")
	f.StringVar(&o.StateDir, "state-dir", "", "")
	f.StringVar(&o.AdminGroup, "admin-group", "", "")
	f.StringVar(&metrics, "metrics", "", "")
	f.BoolVar(&o.Takeover, "takeover", false, "")
	f.BoolVar(&o.help, "help", false, "")
	for _, add := range more {
		add(f)
	}
	if err := f.Parse(args); err != nil {
		return options{}, fmt.Errorf("%w; see --help", err)
	}
	if o.help || o.version {
		return o, nil
	}
	if f.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q; see --help", f.Arg(0))
	}
	for _, name := range []string{"port", "socket", "state-dir", "admin-group", "metrics"} {
		if f.Changed(name) && f.Lookup(name).Value.String() == "" {
			return options{}, fmt.Errorf("--%s needs a value; see --help", name)
		}
	}
	var err error
	if o.Hosts, err = parseHosts(hosts); err != nil {
		return options{}, err
	}
	if f.Changed("port") {
		if o.Port, err = parsePort(port); err != nil {
			return options{}, err
		}
	}
	if f.Changed("metrics") {
		if o.Metrics, err = parseMetrics(metrics); err != nil {
			return options{}, err
		}
	}
	o.LogCalls = o.LogCalls || o.debug
	o.foreground = o.foreground || o.debug
	return o, nil
}

// parseHosts reads IP addresses. A * is every address, as in rpcbind. Names aren't looked up: at boot the services that
// know them may be waiting for the portmapper.
func parseHosts(hosts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, h := range hosts {
		if h == "*" {
			addrs = append(addrs, netip.IPv4Unspecified(), netip.IPv6Unspecified())
			continue
		}
		a, err := netip.ParseAddr(h)
		if err != nil {
			return nil, fmt.Errorf("-h %q: not an IP address; give one of this host's, as in -h 192.0.2.1 or -h 2001:db8::1 (names aren't looked up)", h)
		}
		if a.IsMulticast() {
			return nil, fmt.Errorf("-h %v: a multicast address can't be served; give one of this host's", a)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

var errPort = errors.New("give a number from 1 to 65535")

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("--port %q: %w", s, errPort)
	}
	return uint16(port), nil
}

// parseMetrics reads where metrics are served: an address with a port, or a port of the loopback address.
func parseMetrics(s string) (netip.AddrPort, error) {
	if port, err := strconv.ParseUint(s, 10, 16); err == nil && port != 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)), nil
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil || at.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("--metrics %q: give a port, which is one of 127.0.0.1 then, or an address with a port, as 192.0.2.1:9111 or [::1]:9111", s)
	}
	return at, nil
}
