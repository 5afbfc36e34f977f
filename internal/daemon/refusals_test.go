package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/warmstart"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestLogRefused holds what the log tells of a SET or UNSET that the table refused: both owners and the reason.
func TestLogRefused(t *testing.T) {
	from := portmap.Caller{Transport: portmap.TCP, Remote: netip.MustParseAddrPort("127.0.0.1:4000"), Loopback: true}
	wanted := rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.9.9", Owner: "1002"}
	holder := &registry.Entry{RPCB: rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "superuser"}}
	junk := rpcbind.RPCB{Program: 1, Version: 2, Netid: "a\nb", Addr: strings.Repeat("x", 300), Owner: "7"}
	for _, c := range []struct {
		refused portmap.Refused
		want    string
	}{
		{portmap.Refused{From: from, Set: true, Wanted: wanted, Holder: holder, Err: registry.ErrTaken},
			`registration refused procedure=SET from="tcp 127.0.0.1:4000" owner=1002 program=100003 version=3 netid=tcp addr=0.0.0.0.9.9 ` +
				`holder=superuser held=0.0.0.0.8.1 err="registered with another address" answer=no`},
		{portmap.Refused{From: portmap.Caller{Transport: portmap.Local, UID: 1002, HasUID: true}, Holder: holder, Err: registry.ErrNotOwner,
			Wanted: rpcbind.RPCB{Program: 100003, Version: 3, Owner: "1002"}},
			`registration refused procedure=UNSET from="uid 1002" owner=1002 program=100003 version=3 netid="" ` +
				`holder=superuser held=0.0.0.0.8.1 err="registered by another owner" answer=no`},
		{portmap.Refused{From: from, Set: true, Wanted: wanted, Err: registry.ErrFull},
			`registration refused procedure=SET from="tcp 127.0.0.1:4000" owner=1002 program=100003 version=3 netid=tcp addr=0.0.0.0.9.9 ` +
				`err="as many registrations as are allowed" answer=no`},
		{portmap.Refused{From: from, Set: true, Wanted: junk, Err: errors.New("junk")},
			`registration refused procedure=SET from="tcp 127.0.0.1:4000" owner=7 program=1 version=2 netid="a\nb" addr=` +
				strings.Repeat("x", 255) + `... err=junk answer=no`},
	} {
		var l lines
		h := logging.New(&l, slog.LevelInfo)
		newRefusalLog(Config{Log: slog.New(h)}, new(access.Policy)).refused(c.refused)
		h.Close()
		if got := strings.Join(l, "\n"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestOneLineForARefusal asks a portmapper that tells of refusals as the daemon's does, by both ways: each is one line, which
// the journal can find.
func TestOneLineForARefusal(t *testing.T) {
	local := portmap.Caller{Transport: portmap.Local, UID: 1002, HasUID: true}
	far := portmap.Caller{Transport: portmap.TCP, Remote: netip.MustParseAddrPort("10.0.0.9:4000")}
	taken := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 300000, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1"})
	for _, c := range []struct {
		name string
		from portmap.Caller
		call []byte
		want string // in the line
	}{
		{"v4 SET, taken", local, call(rpcbind.Program, 4, 1, taken), "procedure=SET from=\"uid 1002\" owner=1002"},
		{"v3 UNSET, not the owner", local, call(rpcbind.Program, 3, 2, taken), "netid=tcp holder=superuser held=0.0.0.0.8.2"},
		{"v2 UNSET, not the owner", local, call(rpcbind.Program, 2, 2, rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 300000, Version: 1})), "holder=superuser"},
		{"v2 SET, protocol", local, call(rpcbind.Program, 2, 1, rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 300001, Version: 1, Prot: 132, Port: 9})),
			"err=\"protocol 132 is neither tcp (6) nor udp (17)\" answer=no"},
		{"v2 SET, port", local, call(rpcbind.Program, 2, 1, rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 300001, Version: 1, Prot: 6, Port: 70000})),
			"owner=1002 program=300001 version=1 netid=tcp err=\"port 70000 is above 65535\" answer=no"},
		{"v4 SET from afar", far, call(rpcbind.Program, 4, 1, taken), "from=\"tcp 10.0.0.9:4000\" program=300000 version=1 netid=tcp addr=0.0.0.0.8.1 rule=\"only this host registers\" answer=too_weak"},
	} {
		var native fieldLines
		h := logging.New(&native, slog.LevelInfo)
		log := slog.New(h)
		door, err := newDoor(Config{Log: log}, newInterfaces(log, nil), newOwners(log))
		if err != nil {
			t.Fatal(err)
		}
		table := registry.New()
		if err := table.Set(rpcbind.RPCB{Program: 300000, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.2", Owner: rpcbind.OwnerSuperuser}); err != nil {
			t.Fatal(err)
		}
		refusals := newRefusalLog(Config{Log: log}, door.policy)
		p := portmap.New(portmap.Config{Table: table, Policy: door.policy, Refused: refusals.refused, Denied: refusals.denied})
		if reply := p.AppendReply(nil, c.call, c.from); len(reply) == 0 {
			t.Errorf("%s: silence", c.name)
		}
		h.Close()
		if len(native.lines) != 1 || !strings.HasPrefix(native.lines[0], "registration refused procedure=") || !strings.Contains(native.lines[0], c.want) {
			t.Errorf("%s: %q, want %s", c.name, native.lines, c.want)
		}
		if !slices.Contains(native.fields, logging.Field{Name: logging.MessageID, Value: logging.IDRefused}) {
			t.Errorf("%s: no MESSAGE_ID in %v", c.name, native.fields)
		}
	}
}

// fieldLines keeps lines and the fields of the last one, as the journal would.
type fieldLines struct {
	lines
	fields []logging.Field
}

func (l *fieldLines) WriteFields(at time.Time, level slog.Level, text string, fields []logging.Field) error {
	l.fields = fields
	return l.WriteLine(at, level, text)
}

func TestStateFailureID(t *testing.T) {
	if warmstart.StateFailureID != logging.IDState {
		t.Error("the room of the state has another MESSAGE_ID than the log")
	}
}
