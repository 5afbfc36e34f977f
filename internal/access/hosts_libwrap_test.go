package access

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A wrapper is libwrap itself, in a process whose /etc/hosts is a file of the test, without any other name service.
type wrapper struct {
	allow, deny, hosts string
	to                 io.Writer
	from               *bufio.Reader
}

func startLibwrap(t *testing.T) *wrapper {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives libwrap an /etc/hosts of its own")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "wrap")
	if out, err := exec.Command("gcc", "-o", program, "testdata/wrap.c", "-lwrap").CombinedOutput(); err != nil {
		t.Skipf("needs libwrap as the oracle: apt-get install gcc libwrap0-dev (%v, %s)", err, out)
	}
	w := &wrapper{allow: filepath.Join(dir, "allow"), deny: filepath.Join(dir, "deny"), hosts: filepath.Join(dir, "hosts")}
	switched := filepath.Join(dir, "nsswitch")
	for path, text := range map[string]string{w.allow: "", w.deny: "", w.hosts: "", switched: "hosts: files\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "-m", "sh", "-ec", `mount --bind "$1" /etc/hosts; mount --bind "$2" /etc/nsswitch.conf; exec "$3" "$4" "$5"`,
		"sh", w.hosts, switched, program, w.allow, w.deny)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("libwrap: %v", err)
		}
	})
	w.to, w.from = in, bufio.NewReader(out)
	return w
}

// permits asks libwrap.
func (w *wrapper) permits(t *testing.T, caller string) bool {
	t.Helper()
	fmt.Fprintln(w.to, caller)
	line, err := w.from.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line == "1\n"
}

// write sets the files; nobody may have them open then.
func (w *wrapper) write(t *testing.T, allow, deny, hosts string) {
	t.Helper()
	for path, text := range map[string]string{w.allow: allow, w.deny: deny, w.hosts: hosts} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// judges returns what we make of the same files.
func (w *wrapper) judge(t *testing.T, caller, called string) (bool, *hostsLine) {
	t.Helper()
	h, err := ReadHostsAccess(os.ReadFile, w.allow, w.deny, w.hosts)
	if err != nil {
		t.Fatal(err)
	}
	return h.judge(netip.MustParseAddr(caller), netip.MustParseAddr(called))
}

// A namer makes random access lists that need names, hosts and everything else that a line may have.
type namer struct{ maker }

func (n namer) pattern() string {
	if n.IntN(3) == 0 {
		return n.maker.pattern()
	}
	return n.one("KNOWN", "UNKNOWN", "PARANOID", "LOCAL", "ALL", "unknown", ".example", ".friends.example", ".evil.example", "near", "near.example",
		"far.evil.example", "NEAR.example", "n*", "*.example", "?ear", "near.", "other", "twice", "localhost", "ALL@10.0.0.", "KNOWN@ALL", "UNKNOWN@ALL",
		"joe@ALL", "joe@near", "10.0.0.5", "10.", "[2001:db8::1]", "friend", "a.friends.example", "*", "un*", "paranoid", "/nowhere/at-all")
}

func (n namer) daemon() string {
	return n.one("rpcbind", "ALL", "portmap", "gportmap", "RPCBIND", "sshd", "rpc*", "*map", "rpcbind@ALL", "rpcbind@10.0.0.1", "rpcbind@10.0.0.2", "ALL@10.0.0.1",
		"rpcbind@near", "rpcbind@unknown", "rpcbind@KNOWN", "rpcbind@LOCAL", "portmap@10.0.0.1", "rpcbind@un*")
}

func (n namer) file() string {
	var b strings.Builder
	for range n.IntN(4) {
		b.WriteString(n.list(n.daemon) + n.one(":", " : ") + n.list(n.pattern) +
			n.one("", "", "", " : allow", ": deny", ": severity auth.info : deny", ": nonsense", ": keepalive: allow") + "\n")
	}
	b.WriteString(n.one("", "", "ALL: ALL\n", "rpcbind: ALL\n", "ALL: ALL: deny\n", "rpcbind: ALL: allow\n"))
	return b.String()
}

func (n namer) hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for range n.IntN(6) {
		b.WriteString(n.one("10.0.0.5 near", "10.0.0.5 near.example near", "10.0.0.5 near near.example", "10.0.0.6 a.friends.example friend", "10.0.1.4 far.evil.example",
			"192.0.2.5 other near", "192.0.2.6 twice", "10.0.0.5 twice", "2001:db8::1 six.example", "2001:db8::1 near", "10.0.0.1 near.example", "# 10.0.0.5 x", "junk",
			"10.0.0.6 localhost", "::ffff:10.0.0.5 mapped.example", "010.0.0.6 octal") + "\n")
	}
	return b.String()
}

// TestHostsNeverOpenWhatLibwrapCloses compares with libwrap on random files and callers: who is refused there is refused here,
// whatever names there are. What can't be told without a name service may be refused here alone; that this isn't all there
// is the count of those that are permitted shows.
func TestHostsNeverOpenWhatLibwrapCloses(t *testing.T) {
	w := startLibwrap(t)
	callers := []string{"10.0.0.5", "10.0.0.6", "10.0.1.4", "192.0.2.5", "192.0.2.6", "127.0.0.1", "2001:db8::1", "fe80::1", "::1", "198.51.100.7"}
	both, closed, stricter := 0, 0, 0
	for seed := range uint64(1500) {
		n := namer{maker{rand.New(rand.NewPCG(seed, 7))}}
		allow, deny, hosts := n.file(), n.file(), n.hosts()
		w.write(t, allow, deny, hosts)
		for range 3 {
			caller := n.one(callers...)
			theirs := w.permits(t, caller)
			ours, by := w.judge(t, caller, n.one("10.0.0.1", "10.0.0.2", "2001:db8::2"))
			switch {
			case ours && !theirs:
				t.Errorf("seed %d: %s is permitted by %v, libwrap refuses it\nhosts.allow:\n%s\nhosts.deny:\n%s\nhosts:\n%s", seed, caller, by, allow, deny, hosts)
			case ours:
				both++
			case theirs:
				stricter++
			default:
				closed++
			}
		}
		if t.Failed() && seed > 200 {
			t.FailNow()
		}
	}
	t.Logf("permitted by both %d, refused by both %d, refused here alone %d", both, closed, stricter)
	if both < 300 || closed < 300 || stricter > both {
		t.Error("too few of one kind: this compares nothing")
	}
}

// TestHostsOfTheFieldAgainstLibwrap has files in which a verdict stands in the other file's place, and names of daemons that
// rpcbind doesn't go by.
func TestHostsOfTheFieldAgainstLibwrap(t *testing.T) {
	w := startLibwrap(t)
	for _, c := range []struct{ allow, deny string }{
		{"", "rpcbind: .friends.example : allow\nALL: ALL\n"},
		{"rpcbind: .evil.example : deny\nrpcbind: ALL\n", ""},
		{"rpcbind: KNOWN\n", "ALL: ALL\n"},
		{"", "rpcbind: UNKNOWN\n"},
		{"portmap: 10.0.0.0/255.0.0.0\n", "ALL: ALL\n"},
		{"gportmap: 10.\n", "ALL: ALL\n"},
		{"rpcbind@10.0.0.1: 10.\n", "ALL: ALL\n"},
		{"", "ALL EXCEPT rpcbind@10.0.0.1: ALL\n"},
	} {
		w.write(t, c.allow, c.deny, "127.0.0.1 localhost\n")
		if w.permits(t, "10.0.0.5") && !strings.Contains(c.allow, "evil") {
			t.Errorf("allow %q, deny %q: libwrap permits", c.allow, c.deny)
		}
		if ours, by := w.judge(t, "10.0.0.5", "10.0.0.1"); ours {
			t.Errorf("allow %q, deny %q: permitted by %v", c.allow, c.deny, by)
		}
	}
}
