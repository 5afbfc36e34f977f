package access

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
)

// disk is files for tests: their texts by path.
type disk map[string]string

func (d disk) read(path string) ([]byte, error) {
	text, ok := d[path]
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case text == "unreadable":
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return []byte(text), nil
}

func hostsOf(t *testing.T, d disk) *HostsAccess {
	t.Helper()
	h, err := ReadHostsAccess(d.read, "allow", "deny", "hosts")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHostsVerdicts(t *testing.T) {
	for _, c := range []struct {
		allow, deny string
		caller      string
		want        bool
	}{
		{"", "", "192.0.2.1", true},
		{"rpcbind: 192.0.2.", "ALL: ALL", "192.0.2.1", true},
		{"rpcbind: 192.0.2.", "ALL: ALL", "192.0.3.1", false},
		{"rpcbind, portmap: 192.0.2.0/24", "ALL: ALL", "192.0.2.1", true},
		// By other names lines close and don't open.
		{"portmap: 192.0.2.0/24", "ALL: ALL", "192.0.2.1", false},
		{"gportmap: [2001:db8::]/32", "ALL: ALL", "2001:db8::7", false},
		{"gportmap: 192.0.2.: deny", "", "192.0.2.1", false},
		{"", "portmap: 192.0.2.: allow\nALL: ALL", "192.0.2.1", false},
		{"sshd: ALL", "ALL: ALL", "192.0.2.1", false},
		{"", "portmap: ALL", "192.0.2.1", false},
		{"", "ALL: ALL EXCEPT LOCAL", "192.0.2.1", false},
		// An exception of one name closes what rpcbind has closed, and opens nothing.
		{"ALL EXCEPT rpcbind: ALL", "ALL: ALL", "192.0.2.1", false},
		{"ALL EXCEPT gportmap: ALL", "ALL: ALL", "192.0.2.1", false},
		{"", "ALL EXCEPT portmap: ALL", "192.0.2.1", false},
		{"", "ALL EXCEPT rpcbind: ALL", "192.0.2.1", true},
		// The address that is called, 10.0.0.1, of which rpcbind tells the library nothing.
		{"rpcbind@10.0.0.1: ALL", "ALL: ALL", "192.0.2.1", false},
		{"rpcbind@ALL: ALL", "ALL: ALL", "192.0.2.1", true},
		{"", "rpcbind@10.0.0.1: ALL", "192.0.2.1", false},
		{"", "rpcbind@10.0.0.2: ALL", "192.0.2.1", true},
		{"", "ALL EXCEPT rpcbind@10.0.0.1: ALL", "192.0.2.1", false},
		{"rpcbind@10.0.0.2: ALL", "ALL: ALL", "192.0.2.1", false},
		{"", "rpcbind@10.0.0.1 EXCEPT rpcbind@10.0.0.1: ALL", "192.0.2.1", true},
		// Whether an address has a name /etc/hosts alone tells.
		{"rpcbind: KNOWN", "ALL: ALL", "192.0.2.1", false},
		{"rpcbind: KNOWN", "ALL: ALL", "192.0.2.5", true},
		{"", "ALL: KNOWN", "192.0.2.1", false},
		{"", "ALL: UNKNOWN", "192.0.2.1", false},
		{"", "ALL: PARANOID", "192.0.2.1", false},
		{"", "ALL: UNKNOWN, PARANOID", "192.0.2.5", true},
		{"rpcbind: UNKNOWN", "ALL: ALL", "192.0.2.1", false},
		// A verdict in the other file's place.
		{"", "rpcbind: .friends.example : allow\nALL: ALL", "192.0.2.1", false},
		{"rpcbind: .evil.example : deny\nrpcbind: ALL", "", "192.0.2.1", false},
		{"rpcbind: .evil.example : deny\nrpcbind: ALL", "", "192.0.2.5", true},
		{"rpcbind: ALL EXCEPT .evil.example : deny\nrpcbind: ALL", "", "192.0.2.1", false},
		{"", "ALL: UNKNOWN@ALL", "192.0.2.1", false},
		{"", "ALL: KNOWN@ALL", "192.0.2.1", true},
		// /etc/hosts knows 192.0.2.5 as near, and by the alias near.example, which the library doesn't look at.
		{"rpcbind: near", "ALL: ALL", "192.0.2.5", true},
		{"rpcbind: near.example", "ALL: ALL", "192.0.2.5", false},
		{"rpcbind: near.example", "ALL: ALL", "192.0.2.6", false},
		{"rpcbind: .example", "ALL: ALL", "192.0.2.5", false},
		{"", "ALL: near.example", "192.0.2.5", false},
		{"", "ALL: near.example", "192.0.2.6", true},
		{"rpcbind: fa*", "ALL: ALL", "192.0.2.7", true},
		{"", "ALL: fa*", "192.0.2.8", false},
		{"", "ALL: 10.*", "192.0.2.8", true},
		{"rpcbind: n*r", "ALL: ALL", "192.0.2.5", true},
		{"rpcbind: LOCAL", "ALL: ALL", "192.0.2.5", true},
		{"", "ALL: NEAR", "192.0.2.5", false},
		{"", "ALL: near", "192.0.2.6", true},
		{"", "ALL: .elsewhere", "192.0.2.5", true},
		// What it doesn't know opens nothing and closes.
		{"rpcbind: .elsewhere", "ALL: ALL", "192.0.2.6", false},
		{"", "ALL: .elsewhere", "192.0.2.6", false},
		{"", "ALL: far.elsewhere", "192.0.2.6", false},
		{"rpcbind: ALL EXCEPT .elsewhere", "ALL: ALL", "192.0.2.6", false},
		{"rpcbind: ALL EXCEPT .elsewhere", "ALL: ALL", "192.0.2.5", true},
		{"", "ALL: ALL EXCEPT .elsewhere", "192.0.2.6", false},
		{"", "ALL: @group", "192.0.2.6", false},
		{"rpcbind: @group", "ALL: ALL", "192.0.2.6", false},
		{"", "ALL: joe@192.0.2.", "192.0.2.6", false},
		// Files of patterns.
		{"rpcbind: /list", "ALL: ALL", "198.51.100.7", true},
		{"rpcbind: /list", "ALL: ALL", "198.51.101.7", false},
		{"", "ALL: /none", "198.51.100.7", true},
		{"", "ALL: /locked", "198.51.100.7", false},
		// Commands decide nothing.
		{"rpcbind: ALL: aclexec /bin/true", "", "192.0.2.1", false},
		{"rpcbind: ALL: twist /bin/true", "", "192.0.2.1", false},
		{"", "rpcbind: ALL: spawn /bin/true: allow", "192.0.2.1", true},
	} {
		end := func(s string) string { return strings.TrimPrefix(s+"\n", "\n") }
		h := hostsOf(t, disk{"allow": end(c.allow), "deny": end(c.deny), "hosts": "127.0.0.1 localhost\n192.0.2.5 near near.example # x\njunk\n192.0.2.7 far.example\n",
			"/list": "198.51.100.\n2001:db8::", "/locked": "unreadable"})
		got, by := h.judge(netip.MustParseAddr(c.caller), netip.MustParseAddr("10.0.0.1"))
		if got != c.want {
			t.Errorf("allow %q, deny %q: %s is permitted %v, by %v", c.allow, c.deny, c.caller, got, by)
		}
	}
}

func TestHostsWarnings(t *testing.T) {
	for _, c := range []struct{ deny, want string }{
		{"ALL: .example\n", ".example needs a name service"},
		{"ALL: ALL: spawn /bin/true\n", "option spawn isn't honoured"},
		{"ALL: ALL: twist /bin/true\n", "would run a command"},
		{"ALL: ALL: nonsense\n", "none of the tcpd library's"},
		{"ALL: @group\n", "netgroup @group"},
		{"ALL: joe@10.\n", "user on the caller's host"},
		{"ALL: 0.0.0.0/0\n", "bad mask"},
		{"ALL: 10.0.0.1/8\n", "bits beyond its mask"},
		{"ALL: PARANOID\n", "PARANOID needs a name service"},
		{"portmap: 10.: allow\n", "the line opens nothing"},
		{"ALL: ALL", "missing newline"},
		{"ALL ALL\n", "missing \":\""},
		{"# " + strings.Repeat("x", 3000) + "\n", "too long"},
		{"ALL: 10.0.0.1.2\n", "isn't an address"},
		{"\n# comment\n\nsshd: .example: spawn x\nALL: 10.\n", ""},
	} {
		h := hostsOf(t, disk{"deny": c.deny})
		got := strings.Join(h.Warnings(), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%.40q: warnings %q, want %q", c.deny, got, c.want)
		}
		if got != "" && !strings.HasPrefix(got, "deny:1: ") {
			t.Errorf("%.40q: the warning %q doesn't say where", c.deny, got)
		}
	}
}

func TestHostsFiles(t *testing.T) {
	h := hostsOf(t, disk{})
	if !h.Empty() || fmt.Sprint(h.Files()) != "[allow deny]" {
		t.Errorf("without files: empty %v, files %v", h.Empty(), h.Files())
	}
	h = hostsOf(t, disk{"deny": "ALL: /list, name\n"})
	if h.Empty() || fmt.Sprint(h.Files()) != "[allow deny /list hosts]" {
		t.Errorf("empty %v, files %v", h.Empty(), h.Files())
	}
	if _, err := ReadHostsAccess(disk{"deny": "unreadable"}.read, "allow", "deny", "hosts"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that can't be read: %v", err)
	}
}

// TestHostsLineNumbers holds that continued lines count, and what explain shows.
func TestHostsLineNumbers(t *testing.T) {
	h := hostsOf(t, disk{"deny": "# a\\\nb\n\nALL: \\\n 10.\nrpcbind: 192.0.2.1\n"})
	for addr, want := range map[string]string{"10.1.2.3": "deny:4: ALL:  10.", "192.0.2.1": "deny:6: rpcbind: 192.0.2.1"} {
		if _, by := h.judge(netip.MustParseAddr(addr), netip.Addr{}); by == nil || by.String() != want {
			t.Errorf("%s: by %v, want %s", addr, by, want)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add("rpcbind: ALL EXCEPT 10. : allow\n", "ALL@[::1] EXCEPT x: /list\n")
	f.Add("@", ":@:\\\n@@ EXCEPT EXCEPT: [")
	f.Fuzz(func(t *testing.T, allow, deny string) {
		h, err := ReadHostsAccess(disk{"allow": allow, "deny": deny, "/list": "10. /list @ [", "hosts": "::1 x"}.read, "allow", "deny", "hosts")
		if err != nil {
			return
		}
		for _, a := range []string{"10.0.0.1", "::1", "2001:db8::1"} {
			h.judge(netip.MustParseAddr(a), netip.MustParseAddr("10.0.0.1"))
		}
	})
}

func TestMatchWild(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"*", "abc", true}, {"a*c", "abbc", true}, {"a*c", "abb", false}, {"?", "a", true}, {"?", "", false},
		{"**a", "bba", true}, {"", "", true}, {"", "a", false}, {"a", "a", true}, {"10.*.5", "10.0.0.5", true},
		{strings.Repeat("*a", 30), strings.Repeat("a", 29), false},
	} {
		if got := matchWild([]byte(c.pattern), []byte(c.text)); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.text, got)
		}
	}
}
