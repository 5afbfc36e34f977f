package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/daemon"
)

// A portmapperAsked is an instance that commands ask.
type portmapperAsked struct {
	*testing.T
	an
}

// gives runs a command and compares its exit code, and looks for text in what it prints.
func (p portmapperAsked) gives(code int, text string, command string, args ...string) string {
	p.Helper()
	got, stdout, stderr := execute(p.T, append([]string{command, "--socket", p.socket()}, args...)...)
	if got != code || !strings.Contains(stdout+stderr, text) {
		p.Errorf("%s %v: exit code %d, %s%s; want %d and %q", command, args, got, stdout, stderr, code, text)
	}
	return stdout
}

// TestStaticRegistrations has registrations in the file, through conflicts, reloads and restarts.
func TestStaticRegistrations(t *testing.T) {
	p := portmapperAsked{t, instanceFor(t)}
	path := configFile(t, "static = [\n  \"100005 3 tcp 192.0.2.9:20048\",\n  \"100024 1 udp 20049\",\n]\n")
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flags := p.args("--config", path)
	r := start(t, flags...)
	p.gives(0, "192.0.2.9.78.80", "getaddr", "100005", "3", "tcp")
	p.gives(0, "static", "list")
	p.gives(0, `"owner": "static"`, "list", "--json")
	// As root, if the test is.
	p.gives(exitNo, "refused", "set", "100005", "3", "tcp", "192.0.2.9.78.80")
	p.gives(exitNo, "refused", "set", "100005", "3", "tcp", "0.0.0.0.8.1")
	r.until(t, "a static registration of the configuration")
	p.gives(exitNo, "", "unset", "100005", "3")
	p.gives(0, "192.0.2.9.78.80", "getaddr", "100005", "3", "tcp")
	p.gives(0, "", "set", "100005", "3", "udp", "0.0.0.0.8.1")
	for flag, want := range map[string]string{"": "static", "--json": `"static": true`} {
		args := append([]string{"status"}, flags...)
		if flag != "" {
			args = append(args, flag)
		}
		if _, stdout, stderr := execute(t, args...); !strings.Contains(stdout, want) || strings.Contains(stdout, "missing in") {
			t.Errorf("status %s: %s%s", flag, stdout, stderr)
		}
	}

	// A wrong entry changes nothing; a right file adds, removes and replaces.
	p.gives(0, "", "set", "100011", "1", "udp", "0.0.0.0.8.3")
	reload := append([]string{"reload"}, flags...)
	configure("static = [\n  \"100011 1 udp 20050\",\n  \"100005 3 tcp\",\n]\n")
	if code, _, stderr := execute(t, reload...); code != daemon.ExitConfig || !strings.Contains(stderr, "line 3: static") {
		t.Errorf("reload of a wrong entry: %d, %s", code, stderr)
	}
	p.gives(0, "192.0.2.9.78.80", "getaddr", "100005", "3", "tcp")
	p.gives(0, ".8.3", "getaddr", "100011", "1", "udp")
	configure("static = [\"100011 1 udp 20050\", \"100024 1 udp 20051\"]\n")
	if code, _, stderr := execute(t, reload...); code != 0 {
		t.Errorf("reload: %d, %s", code, stderr)
	}
	r.until(t, "a static registration replaces one that a server made")
	p.gives(0, ".78.82", "getaddr", "100011", "1", "udp")
	p.gives(0, ".78.83", "getaddr", "100024", "1", "udp")
	p.gives(exitNo, "", "getaddr", "100005", "3", "tcp")
	p.gives(0, "", "set", "100005", "3", "tcp", "0.0.0.0.8.1")

	// No state file has them, after a clean end as after SIGKILL.
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		r.end(t, s)
		for _, name := range []string{"rpcbind.xdr", "portmap.xdr"} {
			b, err := os.ReadFile(filepath.Join(p.dir, name))
			if err != nil || bytes.Contains(b, []byte{0, 1, 0x86, 0xab}) || bytes.Contains(b, []byte{0, 1, 0x86, 0xb8}) || !bytes.Contains(b, []byte{0, 1, 0x86, 0xa5}) {
				t.Errorf("%v: %s: %v, %x", s, name, err, b)
			}
		}
		r = start(t, flags...)
		p.gives(0, ".78.82", "getaddr", "100011", "1", "udp")
	}
	// A start without the entries forgets them.
	r.end(t, syscall.SIGKILL)
	configure("")
	start(t, flags...)
	p.gives(exitNo, "", "getaddr", "100011", "1", "udp")
	p.gives(0, ".8.1", "getaddr", "100005", "3", "tcp")
}

func TestStaticAndPinErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"static = [\n\"100005 3 tcp 1\",\n# a comment\n\"x 3 tcp 1\"]\n", `line 4: static: "x 3 tcp 1": "x" is no program number`},
		{"static = [\"100005 -1 tcp 1\"]\n", `line 1: static: "100005 -1 tcp 1": "-1" is no version`},
		{"static = [\"100005 3 tcp 70000\"]\n", `line 1: static: "100005 3 tcp 70000": address is not a universal address of its netid`},
		{"static = [\"100005 3 tcp [2001:db8::1]:7\"]\n", `line 1: static: "100005 3 tcp [2001:db8::1]:7": address is not`},
		{"static = [\"0 3 tcp 7\"]\n", `line 1: static: "0 3 tcp 7": program 0`},
		{"static = [\"100000 2 tcp 7\"]\n", `line 1: static: "100000 2 tcp 7": program 100000 is the portmapper`},
		{"static = [\n\"7 3 tcp 7\", \"7 3 TCP 8\"]\n", `line 1: static: program 7 version 3 has two addresses on TCP`},
		{"pin = [100005]\n", `line 1: pin: "100005": write PROGRAM:PORT[,PORT]`},
		{"pin = [\n\"100005:20048\",\n\"100005:0\"]\n", `line 3: pin: "100005:0": "0" is no port`},
	} {
		path := configFile(t, c.text)
		code, stdout, stderr := execute(t, "check-config", path)
		if code != daemon.ExitConfig || stdout != "" || !strings.Contains(stderr, path+": "+c.want) {
			t.Errorf("%q: exit code %d, %s%s; want %s", c.text, code, stdout, stderr, c.want)
		}
	}
}

// TestPin registers programs at ports where they may be, and elsewhere.
func TestPin(t *testing.T) {
	p := portmapperAsked{t, instanceFor(t)}
	path := configFile(t, "pin = [\"100005:20048,20049\", \"100021:4045\", \"100005:20050\"]\n")
	r := start(t, p.args("--config", path)...)
	p.gives(0, "", "set", "100005", "3", "tcp", "0.0.0.0.78.80")
	p.gives(0, "", "set", "100005", "3", "udp", "0.0.0.0.78.81")
	p.gives(0, "", "set", "100005", "1", "udp", "0.0.0.0.78.82")
	p.gives(exitNo, "refused", "set", "100005", "2", "tcp6", "::.78.83")
	r.until(t, "may not be registered at that port")
	p.gives(exitNo, "refused", "set", "100021", "4", "udp", "0.0.0.0.78.80")
	p.gives(0, "", "set", "100024", "1", "udp", "0.0.0.0.78.90")
	p.gives(0, "", "set", "100021", "4", "local", "/run/lockd.sock")
	if err := os.WriteFile(path, []byte("pin = [\"100005:20048\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := execute(t, append([]string{"reload"}, p.args("--config", path)...)...); code != 0 {
		t.Errorf("reload: %d, %s", code, stderr)
	}
	p.gives(0, "", "set", "100021", "4", "udp", "0.0.0.0.78.80")
	p.gives(exitNo, "refused", "set", "100005", "2", "udp", "0.0.0.0.78.81")
	p.gives(0, ".78.81", "getaddr", "100005", "3", "udp") // it came before
}
