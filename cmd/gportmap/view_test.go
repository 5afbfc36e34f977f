package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gportmap/gportmap/internal/admin"
)

func calls(version, procedure, transport, verdict string, n uint64) admin.CallCount {
	return admin.CallCount{Version: version, Procedure: procedure, Transport: transport, Verdict: verdict, Count: n}
}

// told is what a daemon could tell at one moment, and a second later.
func told() (last, now admin.Status) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	last = admin.Status{
		Version: "v1.2.3", PID: 4568, Started: at.Add(-3*time.Hour - 12*time.Minute), Now: at, MemoryBytes: 6 << 20,
		Registrations: admin.Registered{Alive: 7, Dead: 1, Unknown: 2},
		Connections:   admin.Connections{TCP: 3, Local: 1, Opened: 99},
		State:         admin.State{Writes: 12},
		Calls: []admin.CallCount{
			calls("2", "GETPORT", "udp", "ok", 1000), calls("2", "GETPORT", "udp", "miss", 10), calls("2", "GETPORT", "tcp", "ok", 5),
			calls("4", "SET", "local", "ok", 4), calls("other", "other", "udp", "unavailable", 2),
		},
		Changes: []admin.Event{
			{At: at, Peer: "uid 0", Procedure: "SET", RPCBVersion: 4, Verdict: "ok", Program: 100003, Version: 3, Netid: "tcp", Address: "0.0.0.0.8.1"},
			{At: at.Add(-time.Minute), Peer: "udp 127.0.0.1:700", Procedure: "UNSET", RPCBVersion: 2, Verdict: "ok", Program: 100005, Version: 1, Netid: "udp"},
		},
		Refused: []admin.Event{
			{At: at, Peer: "udp 203.0.113.9:53", Procedure: "DUMP", RPCBVersion: 2, Verdict: "too_weak"},
			{At: at, Peer: "tcp 203.0.113.9:9", Verdict: "denied"},
			{At: at, Peer: "tcp 203.0.113.9:9", Procedure: "SET", RPCBVersion: 2, Verdict: "too_weak", Program: 1, Version: 2, Netid: "tcp", Port: 80},
			{At: at, Peer: "uid 7", Procedure: "SET", RPCBVersion: 3, Verdict: "no", Program: 1, Version: 2, Netid: "\x1b[2J", Address: "\n\u202e"},
		},
		Clients: []admin.Client{
			{Peer: "203.0.113.9", Calls: 3, Refused: 3, Last: at},
			{Peer: "2001:db8::1", Calls: 1000, Last: at.Add(-90 * time.Second)},
		},
	}
	now = last
	now.Now = at.Add(2 * time.Second)
	now.Calls = []admin.CallCount{
		calls("2", "GETPORT", "udp", "ok", 3000), calls("2", "GETPORT", "udp", "miss", 11), calls("2", "GETPORT", "tcp", "ok", 5),
		calls("4", "SET", "local", "ok", 4), calls("other", "other", "udp", "unavailable", 2), calls("4", "GETADDR", "tcp6", "ok", 3),
	}
	return last, now
}

const wholeScreen = `gportmap v1.2.3  pid 4568  up 3h12m  6.0 MiB                                                05:06:09
health: 1 registration whose server is gone
registrations: 7 alive, 1 dead, 2 unknown   connections: 3 TCP, 1 local, 99 ever   writes: 12
   CALLS/S        TOTAL  PROCEDURE       BY TRANSPORT AND VERDICT
    1000.5         3016  GETPORT v2      udp ok 1000.0/s  udp miss 0.5/s
       1.5            3  GETADDR v4      tcp6 ok 1.5/s
       0.0            4  SET v4          local ok 4
       0.0            2  other           udp unavailable 2
LATEST CHANGES
05:06:07 SET v4 100003 3 tcp 0.0.0.0.8.1 by uid 0
05:05:07 UNSET v2 100005 1 udp by udp 127.0.0.1:700
REFUSED
05:06:07 DUMP v2 by udp 203.0.113.9:53: too_weak
05:06:07 call by tcp 203.0.113.9:9: denied
05:06:07 SET v2 1 2 tcp port 80 by tcp 203.0.113.9:9: too_weak
05:06:07 SET v3 1 2 \x1b[2J \n\u202e by uid 7: no
CLIENTS                                         CALLS    REFUSED        AGO
203.0.113.9                                         3          3         2s
2001:db8::1                                      1000          0      1m32s`

func TestView(t *testing.T) {
	last, now := told()
	got := strings.Join(view{last: last, now: now, width: 100}.lines(), "\n")
	if got != wholeScreen {
		t.Errorf("the view is\n%s\nwant\n%s", got, wholeScreen)
	}
}

const smallScreen = `gportmap v1.2.3  pid 4568  u 05:06:09
health: 1 registration whose server i
registrations: 7 alive, 1 dead, 2 unk
q ends, space pauses
   CALLS/S        TOTAL  PROCEDURE
    1000.5         3016  GETPORT v2
       1.5            3  GETADDR v4
LATEST CHANGES
05:06:07 SET v4 100003 3 tcp 0.0.0.0.
05:05:07 UNSET v2 100005 1 udp by udp
REFUSED
05:06:07 DUMP v2 by udp 203.0.113.9:5
05:06:07 call by tcp 203.0.113.9:9: d
CLIENTS
203.0.113.9`

// TestViewOfAnyScreen: whatever its size, nothing is wider or higher, and no octet drives a terminal.
func TestViewOfAnyScreen(t *testing.T) {
	last, now := told()
	if got := strings.Join(view{last: last, now: now, width: 37, height: 15, keys: true}.lines(), "\n"); got != smallScreen {
		t.Errorf("37×15:\n%s\nwant\n%s", got, smallScreen)
	}
	for width := 1; width < 130; width += 7 {
		for height := 1; height < 40; height++ {
			lines := view{last: last, now: now, width: width, height: height, keys: true}.lines()
			if len(lines) > height {
				t.Errorf("%d×%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > width || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' }) {
					t.Errorf("%d×%d: %q", width, height, l)
				}
			}
		}
	}
	coloured := view{last: last, now: now, width: 50, height: 20, colour: true}.lines()
	if !strings.HasPrefix(coloured[0], "\x1b[1m") || !strings.HasPrefix(coloured[1], "\x1b[33mhealth: 1") || !strings.HasSuffix(coloured[1], "\x1b[0m") {
		t.Errorf("%q", coloured[:2])
	}
}

func TestViewOfNothing(t *testing.T) {
	for height := range 10 {
		if lines := (view{width: 10, height: height, keys: true}).lines(); len(lines) == 0 {
			t.Errorf("height %d: nothing", height)
		}
	}
}

func TestHealth(t *testing.T) {
	_, s := told()
	s.Registrations.Dead = 0
	if got := health(s); got != "well, 9 registrations, up 3h12m" {
		t.Error(got)
	}
	s.State.Error, s.RateLimited, s.Registrations.Dead = "no space", 5, 2
	if got := health(s); got != "registrations are not on disk and would be lost in a crash: no space; 2 registrations whose server is gone; "+
		"5 datagrams over the limit of a network were not answered so far" {
		t.Error(got)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 1500 * time.Millisecond: "1s", 61 * time.Second: "1m1s", time.Hour: "1h0m", 49 * time.Hour: "2d1h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	now := time.Unix(1e9, 0)
	since := now.Add(-61 * time.Second)
	ganesha := &admin.Process{PID: 77, Command: "ganesha.nfsd", Unit: "nfs-ganesha.service"}
	got := table([]admin.Registration{
		{Program: 100000, Version: 4, Netid: "tcp", Port: 111, Own: true},
		{Program: 100003, Version: 3, Netid: "tcp", Port: 2049, Owner: "superuser", Since: since, State: admin.Alive, Server: ganesha},
		{Program: 100003, Version: 4, Netid: "tcp", Port: 2049, Owner: "superuser", Since: since, State: admin.Alive, Server: ganesha},
		{Program: 100021, Version: 4, Netid: "udp", Port: 999, Owner: "0", State: admin.Alive, Server: &admin.Process{Command: "kernel"}},
		{Program: 1, Version: 1, Netid: "x\ty", Owner: "a\nb", Since: now, State: admin.Unknown},
	}, now)
	want := "\n" + `program  service   vers  netid  port  owner      server           unit                 age       state
100003   nfs       3,4   tcp    2049  superuser  ganesha.nfsd/77  nfs-ganesha.service  1m1s      alive
100021   nlockmgr  4     udp    999   0          kernel           -                    restored  alive
1        -         1     x\ty   -     a\nb       -                -                    0s        unknown
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := table([]admin.Registration{{Own: true}}, now); got != "" {
		t.Errorf("of none: %q", got)
	}
}
