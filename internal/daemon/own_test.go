package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/sys"
)

func ip(netid, addr string) *sys.Socket {
	return &sys.Socket{Netid: netid, Addr: netip.MustParseAddrPort(addr)}
}

func local(path string) *sys.Socket { return &sys.Socket{Netid: "local", Path: path} }

func dual(s *sys.Socket) *sys.Socket {
	s.DualStack = true
	return s
}

func TestOwnEntries(t *testing.T) {
	for _, c := range []struct {
		name    string
		sockets []*sys.Socket
		want    string
	}{
		{"all", []*sys.Socket{
			ip("udp", "0.0.0.0:111"), ip("tcp", "0.0.0.0:111"), ip("udp6", "[::]:111"), ip("tcp6", "[::]:111"),
			local("/run/rpcbind.sock"), local("@/run/rpcbind.sock"),
		}, `4 tcp6 ::.0.111
3 tcp6 ::.0.111
4 udp6 ::.0.111
3 udp6 ::.0.111
4 tcp 0.0.0.0.0.111
3 tcp 0.0.0.0.0.111
2 tcp 0.0.0.0.0.111
4 udp 0.0.0.0.0.111
3 udp 0.0.0.0.0.111
2 udp 0.0.0.0.0.111
4 local /run/rpcbind.sock
3 local /run/rpcbind.sock
`},
		{"abstract before path", []*sys.Socket{local("@/run/rpcbind.sock"), local("/run/rpcbind.sock")},
			"4 local /run/rpcbind.sock\n3 local /run/rpcbind.sock\n"},
		{"abstract alone", []*sys.Socket{local("@/run/rpcbind.sock")},
			"4 local @/run/rpcbind.sock\n3 local @/run/rpcbind.sock\n"},
		{"one host", []*sys.Socket{ip("tcp", "192.0.2.1:1111")},
			"4 tcp 192.0.2.1.4.87\n3 tcp 192.0.2.1.4.87\n2 tcp 192.0.2.1.4.87\n"},
		{"several hosts", []*sys.Socket{ip("tcp", "192.0.2.1:111"), ip("tcp", "127.0.0.1:111"), ip("tcp6", "[2001:db8::1]:111"), ip("tcp6", "[::1]:111")},
			"4 tcp6 ::.0.111\n3 tcp6 ::.0.111\n4 tcp 0.0.0.0.0.111\n3 tcp 0.0.0.0.0.111\n2 tcp 0.0.0.0.0.111\n"},
		{"both families by one socket", []*sys.Socket{dual(ip("udp6", "[::]:111"))},
			"4 udp6 ::.0.111\n3 udp6 ::.0.111\n4 udp 0.0.0.0.0.111\n3 udp 0.0.0.0.0.111\n2 udp 0.0.0.0.0.111\n"},
		{"none", nil, ""},
	} {
		var got strings.Builder
		for _, e := range ownEntries(c.sockets) {
			if e.Program != 100000 || e.Owner != "superuser" {
				t.Errorf("%s: program %d, owner %q", c.name, e.Program, e.Owner)
			}
			fmt.Fprintf(&got, "%d %s %s\n", e.Version, e.Netid, e.Addr)
		}
		if got.String() != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, got.String(), c.want)
		}
		table, err := newTable(c.sockets)
		if err != nil {
			t.Errorf("%s: the table refuses it: %v", c.name, err)
		} else if n := strings.Count(c.want, "\n"); table.Len() != n {
			t.Errorf("%s: %d entries in the table, want %d", c.name, table.Len(), n)
		}
	}
}

func TestNewTableRefusesAnUnprintablePath(t *testing.T) {
	if _, err := newTable([]*sys.Socket{local("/run/\x1b.sock")}); ExitCode(err) != ExitConfig {
		t.Errorf("%v, exit code %d, want %d", err, ExitCode(err), ExitConfig)
	}
}
