package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// nfsServer is what a portmapper of an NFS server lists, and what no firewall is opened for.
func nfsServer() []rpcbind.RPCB {
	b := func(program uint32, netid rpcbind.Netid, addr string) rpcbind.RPCB {
		return rpcbind.RPCB{Program: program, Version: 3, Netid: netid, Addr: addr}
	}
	return []rpcbind.RPCB{
		b(100000, "udp", "0.0.0.0.0.111"), b(100000, "tcp6", "::.0.111"), b(100000, "local", "/run/rpcbind.sock"),
		b(100003, "tcp", "0.0.0.0.8.1"), b(100227, "TCP", "0.0.0.0.8.1"), b(100005, "udp6", "::.78.80"), b(300000, "tcp", "192.0.2.1.4.1"),
		b(100021, "tcp", "127.0.0.1.9.9"), b(100021, "tcp6", "::1.9.9"), b(100021, "sctp", "0.0.0.0.9.9"), b(1, "tcp", "nothing"), b(1, "tcp", "0.0.0.0.0.0"),
	}
}

const nftOutput = `# tcp 1025 over IPv4: 300000
# tcp 2049 over IPv4: nfs, nfs_acl
# tcp 111 over IPv6: portmapper
# udp 111 over IPv4: portmapper
# udp 20048 over IPv6: mountd
add table inet filter
add chain inet filter gportmap
flush chain inet filter gportmap
add rule inet filter gportmap meta nfproto ipv4 tcp dport { 1025, 2049 } accept
add rule inet filter gportmap meta nfproto ipv6 tcp dport { 111 } accept
add rule inet filter gportmap meta nfproto ipv4 udp dport { 111 } accept
add rule inet filter gportmap meta nfproto ipv6 udp dport { 20048 } accept
`

func TestFirewallFormats(t *testing.T) {
	now := portsOf(nfsServer())
	later := slices.DeleteFunc(slices.Clone(now), func(o opened) bool { return o.number == 2049 })
	for _, c := range []struct {
		flags       firewallFlags
		first, then string // then leads from now to later
	}{
		{firewallFlags{format: "nft", table: "inet filter"}, nftOutput, "dport { 1025 } accept"},
		{firewallFlags{format: "nft", table: "ip mine"}, "add rule ip mine gportmap meta nfproto ipv4 tcp dport { 1025, 2049 } accept", "flush chain ip mine gportmap"},
		{firewallFlags{format: "firewalld"}, "firewall-cmd --add-port=2049/tcp\n", "firewall-cmd --remove-port=2049/tcp\n"},
		{firewallFlags{format: "firewalld", zone: "internal"}, "firewall-cmd --zone=internal --add-port=111/udp\n", "firewall-cmd --zone=internal --remove-port=2049/tcp\n"},
		{firewallFlags{format: "ufw"}, "ufw allow proto udp to any port 20048\n", "ufw delete allow proto tcp to any port 2049\n"},
	} {
		write, err := firewallFormat(c.flags)
		if err != nil {
			t.Fatal(err)
		}
		if got := write(nil, now); !strings.Contains(got, c.first) || c.flags.format == "nft" && c.first == nftOutput && got != nftOutput {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.first)
		}
		if got := write(now, later); !strings.Contains(got, c.then) || strings.Contains(got, "add-port") || strings.Contains(got, "\nufw allow") {
			t.Errorf("%+v, later: %s, want %s", c.flags, got, c.then)
		}
	}
	for _, f := range []firewallFlags{{format: "iptables"}, {format: "nft", table: "filter"}, {format: "nft", table: "inet a;b"},
		{format: "nft", table: "arp x"}, {format: "firewalld", zone: "a b"}, {format: "firewalld", zone: "-x"}} {
		if _, err := firewallFormat(f); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
}

// TestFirewallRulesLoad has nft load them, twice, into the filter of a network namespace that comes to nothing.
func TestFirewallRulesLoad(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Getuid() != 0 {
		if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
			t.Fatal("needs root and nft, of Debian's package nftables")
		}
		t.Skip("needs root and nft, of Debian's package nftables")
	}
	script := `set -e
nft add table inet filter
nft 'add chain inet filter input { type filter hook input priority filter; policy drop; }'
nft add chain inet filter gportmap
nft add rule inet filter input jump gportmap
printf %s "$RULES" | nft -c -f -
printf %s "$RULES" | nft -f -
printf %s "$RULES" | nft -f -
printf %s "$RULES" | nft -i
nft list chain inet filter gportmap`
	cmd := exec.Command("unshare", "-n", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "RULES="+nftOutput)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "accept\n") != 4 || !strings.Contains(string(out), "tcp dport { 1025, 2049 } accept") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestFirewallWatch sees a registration come and go.
func TestFirewallWatch(t *testing.T) {
	a := instanceFor(t)
	start(t, a.args()...)
	code, stdout, stderr := execute(t, "firewall", "--socket", a.socket())
	if code != 0 || !strings.Contains(stdout, fmt.Sprintf("ipv4 tcp dport { %d } accept\n", a.port)) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := execute(t, "firewall", "--format", "x", "--socket", a.socket()); code != 64 || !strings.Contains(stderr, "nft, firewalld or ufw") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	cmd := exec.Command(os.Getenv(binaryEnv), "firewall", "--format", "ufw", "--watch", "--interval", "100ms", "--socket", a.socket())
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer hung.Stop()
	lines := bufio.NewScanner(pipe)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
		}
		t.Fatalf("no line %q", want)
	}
	until(fmt.Sprintf("ufw allow proto udp to any port %d", a.port))
	if code, _, stderr := execute(t, "set", "--socket", a.socket(), "300000", "1", "tcp", "0.0.0.0.8.1"); code != 0 {
		t.Fatal(stderr)
	}
	until("ufw allow proto tcp to any port 2049")
	if code, _, stderr := execute(t, "unset", "--socket", a.socket(), "300000", "1", "tcp"); code != 0 {
		t.Fatal(stderr)
	}
	until("ufw delete allow proto tcp to any port 2049")
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
