package bed_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// TestExplain asks what callers would be answered, and then lets them call.
func TestExplain(t *testing.T) {
	const program = 0x30150001
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ownEtc(t)
		if err := os.WriteFile("/etc/gportmap.toml", []byte("exposure = \"lan\"\ndeny = [\"from fd09::/64 for list\"]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		accessLists(t, "", "rpcbind: 10.9.9.77\n")
		ns.Start(t, bed.Gportmap)
		register(t, ns, program, 1, "udp", "0.0.0.0.8.1")
		register(t, ns, program, 1, "udp6", "::.8.1")
		register(t, ns, program, 1, "tcp", "192.0.2.5.8.1")
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		explain := func(args string) (answer, rule string) {
			t.Helper()
			out, _ := exec.Command(path, append([]string{"explain"}, strings.Fields(args)...)...).CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if text, ok := strings.CutPrefix(line, "answer:"); ok {
					answer = strings.TrimSpace(text)
				}
				if text, ok := strings.CutPrefix(line, "rule:"); ok {
					rule = strings.TrimSpace(text)
				}
			}
			if answer == "" || rule == "" {
				t.Fatalf("explain %s:\n%s", args, out)
			}
			return answer, rule
		}
		remote := bed.From{Remote: true}
		for _, c := range []struct {
			args string
			tr   bed.Transport
			from bed.From
			call []byte
			rule string
		}{
			{bed.PeerIPv4 + " getaddr 0x30150001 1", bed.UDP, remote, getAddr(4, program, 1, "", ""), `permitted: exposure = "lan"`},
			{"tcp:" + bed.PeerIPv4 + " getaddr 0x30150001 1", bed.TCP, remote, getAddr(4, program, 1, "", ""), `permitted: exposure = "lan"`},
			{bed.PeerIPv6 + " getaddr 0x30150001 1", bed.UDP6, remote, getAddr(4, program, 1, "", ""), `permitted: exposure = "lan"`},
			{"127.0.0.1 getaddr 0x30150001 1", bed.UDP, root, getAddr(4, program, 1, "", ""), `permitted: exposure = "lan"`},
			{"local:0 getaddr 100000 4", bed.Unix, root, getAddr(4, rpcbind.Program, 4, "", ""), "permitted: the local socket"},
			{"tcp:" + bed.PeerIPv6 + " dump", bed.TCP6, remote, dump(4), `refused: deny "from fd09::/64 for list"`},
			{"tcp:" + bed.PeerIPv6 + " set 7 1 tcp 0.0.0.0.8.1", bed.TCP6, remote, setAddr(4, 7, 1, "tcp", "0.0.0.0.8.1"), "refused: only this host"},
		} {
			answer, rule := explain(c.args)
			reply, err := ns.Call(t, c.tr, c.from, withXID(c.call, 1))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(rule, c.rule) {
				t.Errorf("explain %s: rule %s, want %s", c.args, rule, c.rule)
			}
			want := "AUTH_TOOWEAK"
			if r := results(reply); r != nil {
				d := xdr.NewDecoder(r)
				want = string(d.Opaque(uint32(len(r))))
			}
			if answer != want {
				t.Errorf("explain %s: answer %s, a real call gets %s", c.args, answer, want)
			}
		}
		if _, rule := explain("10.9.9.77 null"); !strings.Contains(rule, "/etc/hosts.deny:1: rpcbind: 10.9.9.77") {
			t.Errorf("hosts.deny: rule %s", rule)
		}
		if answer, _ := explain("local:1000 unset 0x30150001 1"); answer != "FALSE" {
			t.Errorf("a user's UNSET of root's program: %s", answer)
		}
		if got := must(t, ns, bed.UDP, root, getPort(program, 1, rpcbind.ProtUDP)); !bytes.Equal(got, words(2049)) {
			t.Errorf("after all that GETPORT answers %x", got)
		}
	})
}
