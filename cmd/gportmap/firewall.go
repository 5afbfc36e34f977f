package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// firewallFlags are the command firewall's own.
type firewallFlags struct {
	format   string
	table    string
	zone     string
	watch    bool
	interval time.Duration
}

// A port is one that a firewall is to let in.
type port struct {
	proto  string // tcp or udp
	six    bool   // IPv6
	number uint16
}

// An open port, with the names or numbers of the programs behind it.
type opened struct {
	port
	programs []string
}

// firewall prints what opens a firewall for the ports registered now, and with --watch what follows each change. It asks
// the portmapper that the target names.
func firewall(ctx context.Context, to target, _ []string, stdout io.Writer) error {
	write, err := firewallFormat(to.firewall)
	if err != nil {
		return err
	}
	if !to.firewall.watch {
		now, err := openPorts(ctx, to)
		if err != nil {
			return err
		}
		_, err = io.WriteString(stdout, write(nil, now))
		return err
	}
	if to.firewall.interval < 100*time.Millisecond {
		return daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("firewall: --interval %v: give at least 100ms", to.firewall.interval))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return followPorts(ctx, to, write, stdout)
}

// followPorts prints changes until ctx ends. A portmapper that gives no answer after the first is being restarted, perhaps:
// what is open stays open.
func followPorts(ctx context.Context, to target, write func(before, now []opened) string, stdout io.Writer) error {
	var last []opened
	tick := time.NewTicker(to.firewall.interval)
	defer tick.Stop()
	for first := true; ; first = false {
		now, err := openPorts(ctx, to)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err == nil && (first || !slices.EqualFunc(last, now, func(a, b opened) bool { return a.port == b.port })):
			if _, err := io.WriteString(stdout, write(last, now)); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// openPorts asks for the ports of everything that is registered at an address that others can reach, in order.
func openPorts(ctx context.Context, to target) ([]opened, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c, err := to.dial(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	if err != nil {
		return nil, asked(err)
	}
	return portsOf(all), nil
}

func portsOf(all []rpcbind.RPCB) []opened {
	var ports []opened
	for _, b := range all {
		transport, known := b.Netid.Transport()
		at, ok := rpcbind.ParseUAddr(b.Addr)
		if !known || !transport.IP() || !ok || at.Port() == 0 || at.Addr().IsLoopback() {
			continue
		}
		p := port{transport.Proto, transport.Family == "inet6", at.Port()}
		i := slices.IndexFunc(ports, func(o opened) bool { return o.port == p })
		if i < 0 {
			i = len(ports)
			ports = append(ports, opened{port: p})
		}
		name := service(b.Program)
		if name == "-" {
			name = fmt.Sprint(b.Program)
		}
		if !slices.Contains(ports[i].programs, name) {
			ports[i].programs = append(ports[i].programs, name)
		}
	}
	slices.SortFunc(ports, func(a, b opened) int {
		return cmp.Or(cmp.Compare(a.proto, b.proto), boolCompare(a.six, b.six), cmp.Compare(a.number, b.number))
	})
	return ports
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// firewallFormat returns the function that writes what leads from the ports that were open before to those of now.
func firewallFormat(f firewallFlags) (func(before, now []opened) string, error) {
	switch f.format {
	case "nft":
		if fields := strings.Fields(f.table); len(fields) != 2 || !slices.Contains([]string{"inet", "ip", "ip6"}, fields[0]) || !plainWord(fields[1]) {
			return nil, daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf(`firewall: --table %q: give a family and a name, as in "inet filter"`, f.table))
		}
		return func(_, now []opened) string { return nftRules(strings.Join(strings.Fields(f.table), " "), now) }, nil
	case "firewalld":
		if f.zone != "" && !plainWord(f.zone) {
			return nil, daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("firewall: --zone %q: give the name of a zone", f.zone))
		}
		return func(before, now []opened) string { return portCommands(before, now, firewalldCommand(f.zone)) }, nil
	case "ufw":
		return func(before, now []opened) string { return portCommands(before, now, ufwCommand) }, nil
	}
	return nil, daemon.WithExitCode(daemon.ExitUsage, fmt.Errorf("firewall: --format %q: give nft, firewalld or ufw", f.format))
}

// plainWord tells whether a word means nothing to a shell or to nft.
func plainWord(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == "" && s[0] != '-'
}

// nftRules make a chain "gportmap" in a table anew, to which a chain of the table jumps. Each line is a command of its own,
// so that nft -i follows, and together they are one transaction for nft -f.
func nftRules(table string, now []opened) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	comment(&b, now)
	line("add table %s", table)
	line("add chain %s gportmap", table)
	line("flush chain %s gportmap", table)
	for _, proto := range []string{"tcp", "udp"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			var numbers []string
			for _, o := range now {
				if o.proto == proto && o.six == (family == "ipv6") {
					numbers = append(numbers, fmt.Sprint(o.number))
				}
			}
			if numbers == nil || strings.HasPrefix(table, "ip ") && family == "ipv6" || strings.HasPrefix(table, "ip6 ") && family == "ipv4" {
				continue
			}
			line("add rule %s gportmap meta nfproto %s %s dport { %s } accept", table, family, proto, strings.Join(numbers, ", "))
		}
	}
	return b.String()
}

func comment(b *strings.Builder, now []opened) {
	for _, o := range now {
		family := "IPv4"
		if o.six {
			family = "IPv6"
		}
		fmt.Fprintf(b, "# %s %d over %s: %s\n", o.proto, o.number, family, strings.Join(o.programs, ", "))
	}
}

// portCommands opens what came and closes what went. Firewalld and ufw open a port for both families at once.
func portCommands(before, now []opened, command func(p port, open bool) string) string {
	var b strings.Builder
	if before == nil {
		comment(&b, now)
	}
	was, is := bothFamilies(before), bothFamilies(now)
	for _, p := range is {
		if !slices.Contains(was, p) {
			b.WriteString(command(p, true) + "\n")
		}
	}
	for _, p := range was {
		if !slices.Contains(is, p) {
			b.WriteString(command(p, false) + "\n")
		}
	}
	return b.String()
}

func bothFamilies(all []opened) []port {
	var ports []port
	for _, o := range all {
		if p := (port{proto: o.proto, number: o.number}); !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return ports
}

func firewalldCommand(zone string) func(port, bool) string {
	if zone != "" {
		zone = "--zone=" + zone + " "
	}
	return func(p port, open bool) string {
		what := "remove"
		if open {
			what = "add"
		}
		return fmt.Sprintf("firewall-cmd %s--%s-port=%d/%s", zone, what, p.number, p.proto)
	}
}

func ufwCommand(p port, open bool) string {
	what := "ufw delete"
	if open {
		what = "ufw"
	}
	return fmt.Sprintf("%s allow proto %s to any port %d", what, p.proto, p.number)
}
