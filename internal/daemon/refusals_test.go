package daemon

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/internal/warmstart"
)

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		event admin.Event
		want  string
	}{
		{admin.Event{Peer: "udp 10.0.0.9:5", Procedure: "SET", RPCBVersion: 2, Verdict: "too_weak", Program: 100003, Version: 3, Netid: "tcp", Port: 2049},
			`registration refused procedure=SET from="udp 10.0.0.9:5" program=100003 version=3 netid=tcp port=2049 answer=too_weak`},
		{admin.Event{Peer: "uid 7", Procedure: "UNSET", RPCBVersion: 4, Verdict: "no", Program: 1, Version: 2, Address: "\x1b[2J"},
			`registration refused procedure=UNSET from="uid 7" program=1 version=2 netid="" addr="\x1b[2J" answer=no`},
		{admin.Event{Peer: "udp 10.0.0.9:5", Procedure: "DUMP", RPCBVersion: 2, Verdict: "too_weak"}, ""},
		{admin.Event{Peer: "udp 10.0.0.9:5", Verdict: "denied"}, ""},
	} {
		var l lines
		h := logging.New(&l, slog.LevelInfo)
		refusals(slog.New(h))(c.event)
		h.Close()
		if got := strings.Join(l, "\n"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestStateFailureID(t *testing.T) {
	if warmstart.StateFailureID != logging.IDState {
		t.Error("the room of the state has another MESSAGE_ID than the log")
	}
}
