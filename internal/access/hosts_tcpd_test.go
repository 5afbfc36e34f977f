package access

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A maker makes random access lists that need no names.
type maker struct{ *rand.Rand }

func (m maker) one(list ...string) string { return list[m.IntN(len(list))] }

func (m maker) pattern() string {
	return m.one("ALL", "all", "10.0.0.5", "10.0.0.", "10.0.", "10.", "192.0.2.0/255.255.255.0", "10.0.0.0/8",
		"10.0.0.1/8", "10.0.0.4/30", "0.0.0.0/0", "0.0.0.0/0.0.0.0", "10.0.0.5/32", "10.0.0.5/255.255.255.255", "10.0.*", "10.0.0.?", "*", "192.*.5",
		"[2001:db8::1]", "[2001:db8::]/32", "[2001:db8::1]/32", "[::]/0", "[::1]", "[fe80::]/10", "[2001:db8::]/129",
		"192.0.2.0/33", "192.0.2.0/x", "300.0.0.0/8", "10.0.0.0/255.0.255.0", "10.0.0.0/8.", ".0.5", ".", "010.0.0.5", "[::ffff:10.0.0.5]", "[2001:db8::]/x", "10.0.0")
}

func (m maker) list(item func() string) string {
	var b strings.Builder
	for i := range 1 + m.IntN(3) {
		if i > 0 {
			b.WriteString(m.one(" ", ",", ", ", "\t"))
		}
		b.WriteString(item())
	}
	if m.IntN(4) == 0 {
		b.WriteString(m.one(" EXCEPT ", " except ") + item())
		if m.IntN(3) == 0 {
			b.WriteString(" EXCEPT " + item())
		}
	}
	return b.String()
}

func (m maker) daemon() string {
	return m.one("rpcbind", "ALL", "RPCBIND", "sshd", "rpc.mountd", "rpcbind", "rpc*", "?pcbind", "rpcbind@ALL")
}

func (m maker) file() string {
	var b strings.Builder
	lines := m.IntN(5)
	for i := range lines {
		switch m.IntN(12) {
		case 0:
			b.WriteString("# rpcbind: ALL\n")
			continue
		case 1:
			b.WriteString(m.one("\n", "  \t\n", "rpcbind ALL\n", ":\n", "rpcbind:\n", "rpcbind: ALL EXCEPT\n", ": ALL\n"))
			continue
		}
		b.WriteString(m.one("", "", "", " ") + m.list(m.daemon) + m.one(":", " : ", ": ") + m.one("", "", "", "\\\n") + m.list(m.pattern))
		b.WriteString(m.one("", "", "", "", " : allow", ": deny", ": DENY", ": severity mail.info", ": severity x.info", ": linger x", ": twist /bin/false", ": spawn /bin/true : allow", ": severity auth.info : deny", ": deny : severity auth.info",
			": nonsense", ": keepalive", ": linger 5", ": allow yes", ": umask 022: allow"))
		if i < lines-1 || m.IntN(20) > 0 {
			b.WriteString("\n")
		}
	}
	return b.String()
}

// TestHostsAgainstTcpd compares the verdicts on random access lists with those of the tcpd library, told by its own
// program.
func TestHostsAgainstTcpd(t *testing.T) {
	tcpdmatch, err := exec.LookPath("tcpdmatch")
	if err != nil {
		if tcpdmatch = "/usr/sbin/tcpdmatch"; !isFile(tcpdmatch) {
			t.Skip("needs tcpdmatch as the oracle: apt-get install tcpd")
		}
	}
	dir := t.TempDir()
	callers := []string{"10.0.0.5", "10.0.1.4", "192.0.2.5", "127.0.0.1", "2001:db8::1", "2001:db9::1", "fe80::1", "::1"}
	granted, denied := 0, 0
	for seed := range uint64(100) {
		m := maker{rand.New(rand.NewPCG(seed, 1413))}
		allow, deny := m.file(), m.file()
		for name, text := range map[string]string{"hosts.allow": allow, "hosts.deny": deny} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h, err := ReadHostsAccess(os.ReadFile, filepath.Join(dir, "hosts.allow"), filepath.Join(dir, "hosts.deny"), "/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			caller := m.one(callers...)
			cmd := exec.Command(tcpdmatch, "-d", "rpcbind", caller)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			var want bool
			switch {
			case strings.Contains(string(out), "access:   granted"):
				want = true
				granted++
			case strings.Contains(string(out), "access:   denied"), strings.Contains(string(out), "access:   delegated"), strings.Contains(string(out), "error:"):
				denied++
			default:
				t.Fatalf("seed %d: tcpdmatch says %v:\n%s", seed, err, out)
			}
			got, by := h.judge(netip.MustParseAddr(caller), netip.MustParseAddr("10.0.0.1"))
			if got != want {
				t.Errorf("seed %d: %s is permitted %v by %v\nhosts.allow:\n%s\nhosts.deny:\n%s\ntcpdmatch:\n%s", seed, caller, got, by, allow, deny, out)
			}
		}
	}
	if min(granted, denied) < 50 {
		t.Errorf("%d granted, %d denied: too few of one to compare", granted, denied)
	}
	t.Logf("compared with tcpdmatch: %d granted, %d denied", granted, denied)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
