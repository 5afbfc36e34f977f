package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/gportmap/gportmap/internal/config"
	"github.com/gportmap/gportmap/internal/daemon"
)

// configPath is the configuration file of the system's instance, which may be missing.
const configPath = "/etc/gportmap.toml"

// options are what the daemon's flags and the configuration file say.
type options struct {
	daemon.Config
	abort      bool
	debug      bool
	foreground bool
	warmStart  bool // accepted; that is always done
	help       bool
	version    bool

	file string // the configuration file that was read; "" for none
	// fileError is what is wrong with it: a daemon doesn't start then, commands about one go by the flags.
	fileError error
	said      map[string][]string // values by key, from both
}

// parse reads the daemon's arguments by POSIX's rules: flags may be bundled (-wf), a value may follow its flag directly
// (-h127.0.0.1), -- ends the flags. The -h of rpcbind takes an address, so there is no short form of --help. A command that
// takes the daemon's flags adds its own by more. Flags go before the configuration file.
func parse(args []string, more ...func(*pflag.FlagSet)) (options, error) {
	var o options
	var file string
	f := pflag.NewFlagSet("gportmap", pflag.ContinueOnError)
	f.SetInterspersed(false)
	f.Usage = func() {}
	f.BoolVarP(&o.abort, "abort", "a", false, "")
	f.BoolVarP(&o.debug, "debug", "d", false, "")
	f.BoolVarP(&o.foreground, "foreground", "f", false, "")
	f.BoolVarP(&o.version, "version", "v", false, "")
	f.BoolVarP(&o.warmStart, "warm-start", "w", false, "")
	f.BoolVar(&o.Takeover, "takeover", false, "")
	f.BoolVar(&o.help, "help", false, "")
	f.StringVar(&file, "config", "", "")
	var settings []*setting
	for _, k := range keys() {
		s := &setting{key: k}
		settings = append(settings, s)
		if flag := f.VarPF(s, k.name, k.short, ""); k.form == config.Boolean {
			flag.NoOptDefVal = "true"
		}
	}
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
	if f.Changed("config") && file == "" {
		return options{}, errors.New("--config needs a value; see --help")
	}
	o.read(file, settings)
	o.LogCalls = o.LogCalls || o.debug
	o.foreground = o.foreground || o.debug
	o.Reread = func() (daemon.Config, []string, error) {
		again, err := parse(args, more...)
		if err == nil {
			err = again.fileError
		}
		switch {
		case err != nil:
		case again.file == "" && o.file != "":
			// Without it everybody would be let in whom the file kept out.
			err = configError(fmt.Errorf("configuration: %s is gone; put it back, empty if nothing is to be configured", o.file))
		default:
			o.file = again.file
		}
		return again.Config, restartKeys(o.said, again.said), err
	}
	return o, nil
}

// read fills o in with what the file says, and what the flags say over that. The file of the system's instance is not for
// one that has a state directory of its own.
func (o *options) read(file string, settings []*setting) {
	o.said = make(map[string][]string)
	flags := make(map[string]*setting)
	for _, s := range settings {
		if s.values != nil {
			flags[s.name] = s
			o.said[s.name] = s.values
		}
	}
	path := file
	if path == "" && flags["state-dir"] == nil {
		path = configPath
	}
	if path != "" {
		o.fileError = o.readFile(path, file != "", flags)
	}
	for _, s := range flags {
		_ = s.set(o, s.values) // setting.Set has tried it
	}
}

// readFile reads the configuration file. What is wrong with it is told with its line, also of keys that flags replace.
func (o *options) readFile(path string, must bool, flags map[string]*setting) error {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		return nil
	case err != nil:
		return configError(fmt.Errorf("configuration: %w", err))
	}
	o.file = path
	all := append(keys(), fileKeys()...)
	known := make([]config.Key, len(all))
	for i, k := range all {
		known[i] = config.Key{Name: k.name, Form: k.form}
	}
	entries, err := config.Parse(text, known)
	if err != nil {
		return configError(fmt.Errorf("%s: %w", path, err))
	}
	for _, e := range entries {
		k := all[slices.IndexFunc(all, func(k key) bool { return k.name == e.Name })]
		if err := k.set(o, e.Values); err != nil {
			return configError(fmt.Errorf("%s: %w", path, &config.LineError{Line: wrongLine(k, e), Err: fmt.Errorf("%s: %w", e.Name, err)}))
		}
		if flags[e.Name] == nil {
			o.said[e.Name] = e.Values
		}
	}
	return nil
}

// wrongLine returns the line of the first value of a list that is wrong by itself, else that of its key.
func wrongLine(k key, e config.Entry) int {
	for i, line := range e.Lines {
		if k.set(new(options), e.Values[i:i+1]) != nil {
			return line
		}
	}
	return e.Line
}

func configError(err error) error { return daemon.WithExitCode(daemon.ExitConfig, err) }

// restartKeys returns the keys that differ and that only a start applies.
func restartKeys(before, after map[string][]string) (names []string) {
	for _, k := range keys() {
		if !k.live && !slices.Equal(before[k.name], after[k.name]) {
			names = append(names, k.name)
		}
	}
	return names
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
			return nil, fmt.Errorf("%q is not an IP address; give one of this host's, as 192.0.2.1 or 2001:db8::1 (names aren't looked up)", h)
		}
		if a.IsMulticast() {
			return nil, fmt.Errorf("%v: a multicast address can't be served; give one of this host's", a)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

var errPort = errors.New("give a number from 1 to 65535")

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q: %w", s, errPort)
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
		return netip.AddrPort{}, fmt.Errorf("%q: give a port, which is one of 127.0.0.1 then, or an address with a port, as 192.0.2.1:9111 or [::1]:9111", s)
	}
	return at, nil
}
