package server

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/portmap"
)

// TestRefusedConnectionsAreNamed has a line of log for a caller of each kind: another host has no uid, and nobody is taken for root.
func TestRefusedConnectionsAreNamed(t *testing.T) {
	remote := netip.MustParseAddrPort("192.0.2.1:700")
	for _, c := range []struct {
		from portmap.Caller
		want string
	}{
		{portmap.Caller{Transport: portmap.TCP, Remote: remote}, "from=192.0.2.1:700\n"},
		{portmap.Caller{Transport: portmap.TCP, Remote: remote, UID: 1000, HasUID: true}, "from=192.0.2.1:700 uid=1000\n"},
		{portmap.Caller{Transport: portmap.Local, UID: 1000, HasUID: true}, "from=\"local socket\" uid=1000\n"},
		{portmap.Caller{Transport: portmap.Local}, "from=\"local socket\"\n"},
	} {
		var log bytes.Buffer
		s := &Server{}
		s.config.Log = slog.New(slog.NewTextHandler(&log, nil))
		s.refuse(&c.from)
		if !strings.HasSuffix(log.String(), " "+c.want) {
			t.Errorf("%+v is logged as %q, want %q at its end", c.from, log.String(), c.want)
		}
	}
}
