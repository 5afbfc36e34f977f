package daemon

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

type lines []string

func (l *lines) WriteLine(_ time.Time, _ slog.Level, text string) error {
	*l = append(*l, text)
	return nil
}

// observed returns the lines that the observer logs of one call.
func observed(from portmap.Caller, call, reply []byte) []string {
	var l lines
	h := logging.New(&l, slog.LevelInfo)
	observer(slog.New(h))(from, call, reply)
	h.Close()
	return l
}

func call(program, vers, proc uint32, args []byte) []byte {
	return oncrpc.AppendCall(nil, oncrpc.Call{XID: 1, Program: program, Version: vers, Procedure: proc, Args: args})
}

func success(results []byte) []byte {
	return append(oncrpc.AppendAccepted(nil, 1, oncrpc.Success), results...)
}

func TestObserver(t *testing.T) {
	udp := portmap.Caller{Transport: portmap.UDP, Remote: netip.MustParseAddrPort("10.0.0.9:1023")}
	user := portmap.Caller{Transport: portmap.Local, UID: 1000, HasUID: true}
	b := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "0"})
	m := rpcbind.AppendMapping(nil, rpcbind.Mapping{Program: 100003, Version: 3, Prot: 6, Port: 2049})
	evil := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 1, Version: 2, Netid: "\x1b[2J", Addr: "a\nb"})
	long := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 1, Version: 2, Netid: "tcp", Addr: strings.Repeat("x", 300)})
	callit := xdr.AppendOpaque(xdr.AppendUint32(xdr.AppendUint32(xdr.AppendUint32(nil, 100004), 2), 1), []byte("arg"))
	for _, c := range []struct {
		name        string
		from        portmap.Caller
		call, reply []byte
		want        string
	}{
		{"v2 GETPORT", udp, call(100000, 2, 3, m), success(xdr.AppendUint32(nil, 2049)),
			`GETPORT from="udp 10.0.0.9:1023" v=2 program=100003 version=3 netid=tcp port=2049 answer="port 2049"`},
		{"v4 SET", user, call(100000, 4, 1, b), success(xdr.AppendBool(nil, true)),
			`SET from="uid 1000" v=4 program=100003 version=3 netid=tcp addr=0.0.0.0.8.1 answer=TRUE`},
		{"v3 UNSET refused", user, call(100000, 3, 2, b), success(xdr.AppendBool(nil, false)),
			`UNSET from="uid 1000" v=3 program=100003 version=3 netid=tcp addr=0.0.0.0.8.1 answer=FALSE`},
		{"denied", udp, call(100000, 4, 1, b), oncrpc.AppendAuthError(nil, 1, oncrpc.AuthTooWeak),
			`SET from="udp 10.0.0.9:1023" v=4 program=100003 version=3 netid=tcp addr=0.0.0.0.8.1 answer=AUTH_TOOWEAK`},
		{"GETADDR", udp, call(100000, 3, 3, b), success(xdr.AppendString(nil, "10.0.0.5.8.1")),
			`GETADDR from="udp 10.0.0.9:1023" v=3 program=100003 version=3 netid=tcp addr=0.0.0.0.8.1 answer=10.0.0.5.8.1`},
		{"GETADDR of nothing", udp, call(100000, 3, 3, b), success(xdr.AppendString(nil, "")),
			`GETADDR from="udp 10.0.0.9:1023" v=3 program=100003 version=3 netid=tcp addr=0.0.0.0.8.1 answer="not registered"`},
		{"DUMP", portmap.Caller{Transport: portmap.Local}, call(100000, 4, 4, nil), success(xdr.AppendBool(nil, false)),
			`DUMP from=local v=4 answer="4 octets"`},
		{"CALLIT in silence", udp, call(100000, 2, 5, callit), nil,
			`CALLIT from="udp 10.0.0.9:1023" v=2 program=100004 version=2 procedure=1 answer=none`},
		{"UADDR2TADDR", udp, call(100000, 4, 7, xdr.AppendString(nil, "1.2.3.4.0.111")), success(make([]byte, 8)),
			`UADDR2TADDR from="udp 10.0.0.9:1023" v=4 addr=1.2.3.4.0.111 answer="8 octets"`},
		{"no such procedure", udp, call(100000, 2, 6, nil), oncrpc.AppendAccepted(nil, 1, oncrpc.ProcUnavail),
			`procedure 6 from="udp 10.0.0.9:1023" v=2 answer=PROC_UNAVAIL`},
		{"no such version", udp, call(100000, 5, 3, nil), oncrpc.AppendProgMismatch(nil, 1, 2, 4),
			`procedure 3 from="udp 10.0.0.9:1023" v=5 answer=PROG_MISMATCH`},
		{"another program", udp, call(100003, 3, 0, nil), oncrpc.AppendAccepted(nil, 1, oncrpc.ProgUnavail),
			`call of another program from="udp 10.0.0.9:1023" program=100003 version=3 answer=PROG_UNAVAIL`},
		{"arguments cut short", udp, call(100000, 4, 3, b[:10]), oncrpc.AppendAccepted(nil, 1, oncrpc.GarbageArgs),
			`GETADDR from="udp 10.0.0.9:1023" v=4 answer=GARBAGE_ARGS`},
		{"not a call", udp, []byte("hello"), nil, `not a call from="udp 10.0.0.9:1023" octets=5`},
		{"unprintable", udp, call(100000, 4, 1, evil), success(xdr.AppendBool(nil, false)),
			`SET from="udp 10.0.0.9:1023" v=4 program=1 version=2 netid="\x1b[2J" addr="a\nb" answer=FALSE`},
		{"long", udp, call(100000, 4, 1, long), success(xdr.AppendBool(nil, false)),
			`SET from="udp 10.0.0.9:1023" v=4 program=1 version=2 netid=tcp addr=` + strings.Repeat("x", 255) + `... answer=FALSE`},
	} {
		if got := observed(c.from, c.call, c.reply); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s:\n%q\nwant\n%q", c.name, got, c.want)
		}
	}
}

// TestObserverKeepsNothing lets the call's octets change after the observer returned, as the server does.
func TestObserverKeepsNothing(t *testing.T) {
	var l lines
	h := logging.New(&l, slog.LevelInfo)
	m := call(100000, 4, 1, rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 1, Version: 1, Netid: "tcp", Addr: "1.2.3.4.5.6"}))
	reply := success(xdr.AppendBool(nil, true))
	observer(slog.New(h))(portmap.Caller{Transport: portmap.Local}, m, reply)
	clear(m)
	clear(reply)
	h.Close()
	if len(l) != 1 || !strings.Contains(l[0], "addr=1.2.3.4.5.6 answer=TRUE") {
		t.Errorf("%q", l)
	}
}

// FuzzObserver holds the observer to one printable line of bounded length for each call, whatever is in it.
func FuzzObserver(f *testing.F) {
	b := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: 100003, Version: 3, Netid: "tcp", Addr: "0.0.0.0.8.1"})
	for vers := uint32(2); vers <= 4; vers++ {
		for proc := uint32(0); proc <= 12; proc++ {
			f.Add(call(100000, vers, proc, b), success(b))
		}
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, call, reply []byte) {
		got := observed(portmap.Caller{Transport: portmap.UDP6}, call, reply)
		if len(got) != 1 {
			t.Fatalf("%d lines", len(got))
		}
		// Three strings of at most 255 octets, each octet at most \x00, and what is around them.
		if len(got[0]) > 3*4*maxLogged+400 {
			t.Errorf("a line of %d octets", len(got[0]))
		}
		if i := strings.IndexFunc(got[0], func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("unprintable at %d: %q", i, got[0])
		}
	})
}
