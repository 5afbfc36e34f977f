package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// configFile writes a configuration file and returns its path.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gportmap.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileAndFlags(t *testing.T) {
	path := configFile(t, `
port = 1111
host = ["127.0.0.1", "::1"]
remote-calls = true
insecure = true
exposure = "lan"
allow = ["from 192.0.2.0/24"]
root-only = [100003, "0x186a5"]
remote-call-to = []
answer-rate = 0
max-registrations = 99
`)
	o, err := parse([]string{"--config", path, "--port=2222", "--insecure=false", "--allow", "on eth0", "--allow=for list", "-s"})
	if err != nil || o.fileError != nil {
		t.Fatal(err, o.fileError)
	}
	got := fmt.Sprint(o.Port, o.Hosts, o.RemoteCalls, o.Insecure, o.DropPrivileges, o.Rules.Exposure, len(o.Rules.Allow), o.Rules.Allow[0].On,
		o.Rules.RootOnly, o.Rules.RemoteCalls != nil, o.Limits.AnswerRate, o.Limits.Registrations)
	if want := "2222 [127.0.0.1 ::1] true false true lan 2eth0[100003 100005] true -1 99"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// Read again, with a key that takes a restart and one that doesn't.
	if err := os.WriteFile(path, []byte("remote-calls = false\nexposure = \"local\"\nport = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, restart, err := o.Reread()
	if err != nil || fmt.Sprint(restart) != "[host remote-calls]" || c.Rules.Exposure.String() != "local" || c.Port != 2222 {
		t.Errorf("read again: %v, %v, %v", c, restart, err)
	}
	if _, err := parse([]string{"--deny", "from nowhere"}); err == nil || !strings.Contains(err.Error(), "--deny") {
		t.Errorf("a wrong rule in a flag: %v", err)
	}
}

func TestFileErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\nexpsure = \"lan\"\n", `line 2: unknown key "expsure"; did you mean "exposure"?`},
		{"exposure = \"everybody\"\n", `line 1: exposure: "everybody" is none of`},
		{"allow = [\"from 192.0.2.1/24\"]\n", `line 1: allow: rule "from 192.0.2.1/24": network 192.0.2.1/24 has bits beyond its mask; did you mean 192.0.2.0/24?`},
		{"port = 70000\n", `line 1: port: "70000": give a number from 1 to 65535`},
		{"max-string = 3\n", `line 1: max-string: "3": give a number from 64 to 9000`},
		{"root-only = [\"nfs\"]\n", `line 1: root-only: "nfs" is no program number`},
		{"host = [\"nfs.example\"]\n", `line 1: host: "nfs.example" is not an IP address`},
		{"insecure = 1\n", `line 1: insecure needs true or false`},
		{"x", `line 1: `},
	} {
		path := configFile(t, c.text)
		code, stdout, stderr := execute(t, "check-config", path)
		if code != daemon.ExitConfig || stdout != "" || !strings.Contains(stderr, path+": "+c.want) {
			t.Errorf("%q: exit code %d, %s%s; want %s", c.text, code, stdout, stderr, c.want)
		}
	}
	if code, _, stderr := execute(t, "check-config", "/nonexistent"); code != daemon.ExitConfig || !strings.Contains(stderr, "/nonexistent") {
		t.Errorf("a file that isn't there: %d, %s", code, stderr)
	}
	if code, stdout, stderr := execute(t, "check-config", configFile(t, "exposure = \"lan\"\n"), "--port", "7"); code != 0 || !strings.Contains(stdout, ": ok\n") {
		t.Errorf("a good file: %d, %s%s", code, stdout, stderr)
	}
	// A daemon doesn't start with a wrong file, and can be asked for and stopped all the same.
	a := instanceFor(t)
	path := configFile(t, "nonsense = true\n")
	if code, _, stderr := execute(t, a.args("-f", "--config", path)...); code != daemon.ExitConfig || !strings.Contains(stderr, "line 1") {
		t.Errorf("start: %d, %s", code, stderr)
	}
	if code, stdout, stderr := execute(t, append([]string{"stop"}, a.args("--config", path)...)...); code != 0 {
		t.Errorf("stop: %d, %s%s", code, stdout, stderr)
	}
}

// TestReload changes the file of a daemon that runs: what is right counts at once, what isn't changes nothing.
func TestReload(t *testing.T) {
	a := instanceFor(t)
	path := configFile(t, "deny = [\"for list\"]\n")
	r := start(t, a.args("--config", path)...)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	lists := func() error {
		c, err := rpcbind.DialPortmapper(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", a.port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Dump(ctx)
		return err
	}
	reload := func(text, want string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		r.until(t, want)
	}
	if lists() == nil {
		t.Error("the file's rule doesn't count")
	}
	reload("deny = []\nroot-only = [7]\nremote-calls = true\n", "these settings take a restart: remote-calls")
	if err := lists(); err != nil {
		t.Errorf("after a reload that lifts the rule: %v", err)
	}
	reload("deny = [\"for list\"]\nexposure = \"x\"\n", "line 2: exposure: ")
	if err := lists(); err != nil {
		t.Errorf("a file with an error in it changed something: %v", err)
	}
	reload("deny = [\"for list\"]\n", "SIGHUP: reloaded")
	if lists() == nil {
		t.Error("the rule doesn't count after a reload")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.until(t, "the configuration stays as it was")
	if code := r.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestDocumentationNamesEveryKey holds docs/configuration.md to the table.
func TestDocumentationNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range append(keys(), fileKeys()...) {
		if !strings.Contains(string(b), "`"+k.name+"`") {
			t.Errorf("docs/configuration.md doesn't tell of %s", k.name)
		}
	}
	// Its example is a file that is taken.
	_, rest, _ := strings.Cut(string(b), "```toml\n")
	example, _, _ := strings.Cut(rest, "```")
	o, err := parse([]string{"--config", configFile(t, example)})
	if err != nil || o.fileError != nil || len(o.Rules.Deny) == 0 {
		t.Errorf("the example: %v, %v", err, o.fileError)
	}
}

// TestCheckConfigRefusesWhatAStartRefuses names a user, a group and an address that this host doesn't have.
func TestCheckConfigRefusesWhatAStartRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"user = \"nosuchuser\"\n", `look up user "nosuchuser"`},
		{"admin-group = \"nosuchgroup\"\n", `"nosuchgroup"`},
		{"host = [\"192.0.2.77\"]\n", "host 192.0.2.77: "},
	} {
		path := configFile(t, c.text)
		code, stdout, stderr := execute(t, "check-config", path)
		if code != daemon.ExitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit code %d, %s%s; want %s", c.text, code, stdout, stderr, c.want)
		}
	}
	path := configFile(t, "user = \"daemon\"\nadmin-group = \"0\"\nhost = [\"127.0.0.1\"]\n")
	if code, stdout, stderr := execute(t, "check-config", path); code != daemon.ExitOK {
		t.Errorf("what is there: exit code %d, %s%s", code, stdout, stderr)
	}
}
