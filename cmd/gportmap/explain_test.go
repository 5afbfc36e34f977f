package main

import (
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/daemon"
)

// TestExplain asks about calls to an instance that doesn't run; internal/bed compares explanations with real calls.
func TestExplain(t *testing.T) {
	a := instanceFor(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"127.0.0.1 getport 100003 3", 0, "answer:  port 0\n"},
		{"--deny", daemon.ExitUsage, "--deny"},
		{"--exposure local 203.0.113.9 dump/2", exitNo, `rule:    refused: exposure = "local"`},
		{"--exposure=local tcp:203.0.113.9 DUMP", exitNo, "answer:  AUTH_TOOWEAK\n"},
		{"203.0.113.9 getstat", 0, "no datagram to this caller is larger than its call"},
		{"--root-only 100003 local:1000 set 100003 3 tcp 0.0.0.0.8.1", 0, "refused: only root may register this program"},
		{"local:1000 set 100003 3 tcp 0.0.0.0.8.1", 0, `owner "1000"`},
		{"203.0.113.9 callit 100004 2 1", 0, "remote calls are off"},
		{"--json 203.0.113.9 null", 0, `"permitted": true`},
		{"203.0.113.9", daemon.ExitUsage, "usage: explain"},
		{"203.0.113.9 foo", daemon.ExitUsage, "there is no procedure \"foo\""},
		{"203.0.113.9 getport/4", daemon.ExitUsage, "there is no procedure"},
		{"203.0.113.9 dump/5", daemon.ExitUsage, "the versions are 2, 3 and 4"},
		{"example.com dump", daemon.ExitUsage, "give an address"},
		{"local:x dump", daemon.ExitUsage, "write local or local:UID"},
		{"--on nonsense0 203.0.113.9 dump", daemon.ExitUsage, `there is no interface "nonsense0"`},
		{"--to x 203.0.113.9 dump", daemon.ExitUsage, "give an IP address"},
		{"203.0.113.9 getport nfs", daemon.ExitUsage, "no program number"},
		{"--help", 0, "Usage: gportmap explain"},
	} {
		code, stdout, stderr := execute(t, append(append([]string{"explain"}, a.args()...), strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("explain %s: %d, %s%s; want %d, %s", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
}
