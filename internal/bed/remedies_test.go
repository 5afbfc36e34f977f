package bed_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A situation is one in which the doctor, status or a start says what to do.
type situation struct {
	name string
	// prepare makes it; before, a daemon that has ended has left seedRegistrations, unless it is fresh.
	prepare func(t *testing.T, ns *bed.NS)
	fresh   bool
	args    string // of the daemon and of the doctor
	start   bool   // a start fails and is asked as well
	first   string // what the first remedy begins with
	// losing are beginnings of remedies that give up registrations, as their text says; they are never the only ones unless
	// there are no registrations that could be kept.
	losing []string
}

func situations() []situation {
	run := func(line string) func(*testing.T, *bed.NS) {
		return func(t *testing.T, _ *bed.NS) { shell(t, line).want(t, 0) }
	}
	running := func(then func(t *testing.T)) func(*testing.T, *bed.NS) {
		return func(t *testing.T, _ *bed.NS) {
			shell(t, "gportmap").want(t, 0)
			then(t)
		}
	}
	return []situation{
		{name: "rpcbind serves", fresh: true, start: true, first: "kill ", prepare: func(t *testing.T, ns *bed.NS) {
			bed.NeedRpcbind(t)
			rpcbind := ns.StartBare(t, bed.Rpcbind)
			waitUntil(t, "rpcbind answers", rpcbindAnswers)
			_, uid := userOf(t, rpcbind.PID())
			if err := os.Chown("/run/rpcbind", uid, -1); err != nil {
				t.Fatal(err)
			}
			seedRegistrations(t)
		}},
		{name: "another program has the port", start: true, first: "kill ", prepare: func(t *testing.T, _ *bed.NS) { holdPort(t, 1234) }},
		{name: "gportmap was killed", first: "gportmap doctor --fix", prepare: running(func(t *testing.T) {
			crash(t)
		})},
		{name: "the program was replaced", fresh: true, first: "gportmap stop && gportmap", prepare: func(t *testing.T, _ *bed.NS) {
			binary, err := bed.Gportmap.Path()
			if err != nil {
				t.Fatal(err)
			}
			shell(t, "mkdir /run/bin && cp "+binary+" /run/bin/gportmap && /run/bin/gportmap").want(t, 0)
			seedRegistrations(t)
			shell(t, "cp "+binary+" /run/bin/new && mv /run/bin/new /run/bin/gportmap").want(t, 0)
		}},
		{name: "gportmap hangs", first: "gportmap stop && gportmap", prepare: running(func(t *testing.T) {
			if err := syscall.Kill(runningPID(t), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		})},
		{name: "the state directory is a link", start: true, first: "rm /run/rpcbind && cp -a /run/elsewhere /run/rpcbind",
			prepare: run("mv /run/rpcbind /run/elsewhere && ln -s elsewhere /run/rpcbind")},
		{name: "the state directory is a link to nowhere", start: true, first: "rm /run/rpcbind", losing: []string{"rm "},
			prepare: run("rm -r /run/rpcbind && ln -s nowhere /run/rpcbind")},
		{name: "the state directory is a file", start: true, first: "mv ", losing: []string{"mv "},
			prepare: run("rm -r /run/rpcbind && echo x >/run/rpcbind && touch /run/rpcbind.old")},
		{name: "the lock is a directory", start: true, first: "mv ",
			prepare: run("rm -f /run/rpcbind/gportmap.lock && mkdir /run/rpcbind/gportmap.lock")},
		{name: "the pid file is a directory", first: "mv ",
			prepare: run("rm -f /run/gportmap.pid && mkdir /run/gportmap.pid")},
		{name: "the state directory is another user's", start: true, first: "chown -R root /run/rpcbind", losing: []string{"mv "},
			prepare: run("chown -R 1234 /run/rpcbind")},
		{name: "others may write in the state directory", start: true, first: "chmod -R go-w /run/rpcbind",
			prepare: run("chmod -R go+w /run/rpcbind")},
		{name: "the state directory has no parent", start: true, args: "--state-dir '/run/a b/it'\\''s/c'", first: "mkdir -p ", losing: []string{"mkdir "},
			prepare: run("true")},
		{name: "a state file is another user's", first: "chown root ", losing: []string{"rm "},
			prepare: run("chown 1234 /run/rpcbind/rpcbind.xdr")},
		{name: "a state file is damaged", first: "gportmap", prepare: run("echo junk >>/run/rpcbind/rpcbind.xdr")},
		{name: "a state file is a link", first: "rm ", losing: []string{"rm "},
			prepare: run("ln -sf /etc/passwd /run/rpcbind/rpcbind.xdr")},
		{name: "a state file was set aside", first: "rm ", prepare: run("cp /run/rpcbind/rpcbind.xdr /run/rpcbind/rpcbind.xdr.damaged")},
		{name: "the socket's path is a file", start: true, first: "mv /run/rpcbind.sock /run/rpcbind.sock.old",
			prepare: run("echo precious >/run/rpcbind.sock")},
		{name: "the socket's path is a link", start: true, first: "rm /run/rpcbind.sock",
			prepare: run("ln -s /etc/passwd /run/rpcbind.sock")},
		{name: "the socket has no directory", start: true, args: "--socket /run/a/rpcbind.sock", first: "mkdir -p /run/a", prepare: run("true")},
		{name: "the socket's directory is a file", start: true, args: "--socket /run/a/rpcbind.sock", first: "mv /run/a /run/a.old && mkdir /run/a",
			prepare: run("echo precious >/run/a")},
		{name: "the user isn't there", start: true, args: "--user gportmap-bed", first: "useradd ",
			prepare: run("cp -a /etc /run/etc && mount --bind /run/etc /etc")},
	}
}

// TestRemedies carries out each remedy that is printed, word by word. Then port 111 is served, by gportmap, with every
// registration. A remedy is everything behind "remedy: "; between several there is ", or ".
func TestRemedies(t *testing.T) {
	for _, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			for i, n := 0, 1; i < n; i++ {
				n = bed.Collect(t, bed.Options{}, func(t *testing.T, ns *bed.NS) int { return s.remedy(t, ns, i) })
				if bed.Inside() || t.Failed() || t.Skipped() {
					return
				}
			}
		})
	}
}

// remedy carries out the remedy of that number and returns how many there are.
func (s situation) remedy(t *testing.T, ns *bed.NS, number int) int {
	if !s.fresh {
		shell(t, "gportmap").want(t, 0)
		seedRegistrations(t)
		shell(t, "gportmap stop").want(t, 0)
	}
	s.prepare(t, ns)
	all := s.remedies(t)
	if len(all) == 0 || !strings.HasPrefix(all[0], s.first) {
		t.Fatalf("the remedies are %q, the first should begin with %q", all, s.first)
	}
	if number >= len(all) {
		t.Fatalf("the remedies are %q: fewer than before", all)
	}
	remedy := all[number]
	shell(t, remedy).want(t, 0)
	// What a command ended is gone a moment later.
	started := func() bool {
		return shell(t, "gportmap status "+s.args).code == 0 || shell(t, "gportmap "+s.args).code == 0
	}
	for deadline := time.Now().Add(takeoverPatience); !started(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %q gportmap doesn't start", remedy)
		}
	}
	if _, err := ns.Call(t, bed.UDP, bed.From{}, bed.NullCall(7, rpcbind.Program, 2)); err != nil {
		t.Errorf("after %q port 111: %v", remedy, err)
	}
	if d := s.diagnosis(t); slices.ContainsFunc(d, func(f finding) bool { return f.Severity == "error" }) {
		t.Errorf("after %q the doctor still finds %+v", remedy, d)
	}
	if slices.ContainsFunc(s.losing, func(prefix string) bool { return strings.HasPrefix(remedy, prefix) }) {
		return len(all)
	}
	if socket, ok := strings.CutPrefix(s.args, "--socket "); ok {
		shell(t, "ln -s "+socket+" /run/rpcbind.sock").want(t, 0) // for the list
	}
	seedIntact(t)
	return len(all)
}

type finding struct{ Severity, Text, Remedy string }

func (s situation) diagnosis(t *testing.T) []finding {
	t.Helper()
	var d struct{ Findings []finding }
	if err := json.Unmarshal([]byte(shell(t, "gportmap doctor --json "+s.args).stdout), &d); err != nil {
		t.Fatal(err)
	}
	return d.Findings
}

// remedies returns what the doctor and a start say, each once.
func (s situation) remedies(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(remedy string) {
		for _, r := range strings.Split(remedy, ", or ") {
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	for _, f := range s.diagnosis(t) {
		switch {
		case f.Severity == "note":
		case f.Remedy == "":
			t.Errorf("no remedy for %q", f.Text)
		default:
			add(f.Remedy)
		}
	}
	if s.start {
		failed := shell(t, "gportmap "+s.args).oneLine(t)
		if failed.code == 0 {
			t.Fatal("a start doesn't fail")
		}
		if _, remedy, ok := strings.Cut(strings.TrimSpace(failed.stderr), "remedy: "); ok {
			add(remedy)
		}
	}
	return all
}
