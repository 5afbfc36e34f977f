package bed_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A syslogd keeps what comes to /dev/log, which is the namespace's own.
type syslogd struct {
	mu    sync.Mutex
	lines []string
}

func startSyslog(t *testing.T) *syslogd {
	t.Helper()
	command(t, "sh", "-ec", "mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9; chmod 666 /dev/null /dev/urandom")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/dev/log", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &syslogd{}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.lines = append(s.lines, strings.TrimSpace(string(buf[:n])))
			s.mu.Unlock()
		}
	}()
	return s
}

// with returns the lines that have a text in them.
func (s *syslogd) with(text string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if strings.Contains(l, text) {
			found = append(found, l)
		}
	}
	return found
}

// inBackground starts gportmap as an init script does, and returns what ends it.
func inBackground(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	path, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	command(t, path, args...)
	return func() {
		t.Helper()
		command(t, path, "stop")
	}
}

// asFile writes lines of syslog's socket as they stand in /var/log/auth.log.
func asFile(t *testing.T, lines []string) (path string) {
	t.Helper()
	var b strings.Builder
	sent := regexp.MustCompile(`^<\d+>(\w+ +\d+ [0-9:]+) (.*)$`)
	for _, l := range lines {
		b.WriteString(sent.ReplaceAllString(l, "$1 server $2") + "\n")
	}
	path = filepath.Join(t.TempDir(), "auth.log")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// banned returns how many lines of a log fail2ban's filter of that name in docs takes, by address.
func banned(t *testing.T, log, filter string) string {
	t.Helper()
	tool, err := exec.LookPath("fail2ban-regex")
	if err != nil {
		t.Skip("needs fail2ban-regex: apt-get install fail2ban")
	}
	docs, err := filepath.Abs("../../docs/fail2ban")
	if err != nil {
		t.Fatal(err)
	}
	name, option, _ := strings.Cut(filter, "[")
	path := filepath.Join("/etc/fail2ban/filter.d", name)
	text, err := os.ReadFile(filepath.Join(docs, name))
	if err := errors.Join(err, os.WriteFile(path, text, 0o644)); err != nil {
		t.Fatal(err)
	}
	if option != "" {
		name = strings.TrimSuffix(name, ".conf") + "[" + option
	} else {
		name = path
	}
	out, err := exec.Command(tool, "-o", "ip", log, name).CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-regex: %v\n%s", err, out)
	}
	count := make(map[string]int)
	for _, ip := range strings.Fields(string(out)) {
		count[ip]++
	}
	return fmt.Sprint(count)
}

// TestRefusedCallersAreLogged has a host of hosts.deny, and one that may only look up, call everything: each refused call is a
// warning of facility auth with the rule, also several at once; of many, the rest is counted.
func TestRefusedCallersAreLogged(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		ownEtc(t)
		s := startSyslog(t)
		accessLists(t, "", "rpcbind: 10.9.9.2\n")
		stop := inBackground(t, "-r", "--udp-lists", "local")
		v4, v6 := bed.From{Remote: true}, bed.From{Remote: true, Addr: bed.Addr(bed.PeerIPv6)}
		const auth = "<36>" // warning of facility auth
		for _, c := range []struct {
			tr   bed.Transport
			from bed.From
			call []byte
			want string
		}{
			{bed.UDP, v4, getPort(100003, 3, rpcbind.ProtTCP), `lookup refused procedure=GETPORT from="udp 10.9.9.2:|program=100003 version=3 netid=tcp port=0 rule="/etc/hosts.deny:1: rpcbind: 10.9.9.2" answer=too_weak`},
			{bed.TCP, v4, getAddr(4, 100005, 3, "", ""), `lookup refused procedure=GETADDR from="tcp 10.9.9.2:|program=100005`},
			{bed.TCP, v4, dump(4), `list refused procedure=DUMP from="tcp 10.9.9.2:|rule="/etc/hosts.deny:1`},
			{bed.UDP, v4, message(2, rpcbind.ProcCallIt, remoteCall(100005, 3, 0, nil)), `remote call refused procedure=CALLIT from="udp 10.9.9.2:|program=100005 version=3 procedure=0`},
			{bed.UDP6, v6, dump(2), `list refused procedure=DUMP from="udp6 [fd09::2]:|udp-lists = \"local\"`},
			{bed.TCP6, v6, setAddr(4, 100003, 3, "tcp", "0.0.0.0.8.1"), `registration refused procedure=SET from="tcp6 [fd09::2]:|rule="only this host registers" answer=too_weak`},
			{bed.UDP6, v6, message(2, rpcbind.ProcCallIt, remoteCall(100003, 3, 1, nil)), `remote call refused procedure=CALLIT from="udp6 [fd09::2]:|rule="this procedure isn't called for others"`},
		} {
			start, rest, _ := strings.Cut(c.want, "|")
			_, _ = ns.Call(t, c.tr, c.from, withXID(c.call, 1))
			matching := func(l string) bool { return strings.HasPrefix(l, auth) && strings.Contains(l, rest) }
			if !eventually(func() bool { return slices.ContainsFunc(s.with(start), matching) }) {
				t.Errorf("no line %s with %s in %q", start, rest, s.with("refused"))
			}
		}
		const more = 40
		c := ns.Dial(t, bed.TCP6, v6)
		for i := range uint32(more) { // at once
			if _, err := c.Call(withXID(setAddr(4, 100003, 3, "tcp", "0.0.0.0.8.1"), i)); err != nil {
				t.Fatal(err)
			}
		}
		if !eventually(func() bool { return len(s.with("registration refused procedure")) == 10 }) {
			t.Errorf("%d lines of refused registrations, want 10", len(s.with("registration refused procedure")))
		}
		stop()
		left := fmt.Sprintf("%d more like it were not logged: registration refused", more+1-10)
		if !eventually(func() bool { return len(s.with(left)) == 1 }) {
			t.Errorf("no line %q", left)
		}
		log := asFile(t, append(s.with("gportmap"), "<30>Nov 30 12:00:00 gportmap[1]: started from=\"tcp 192.0.2.9:1\""))
		if got := banned(t, log, "gportmap.conf"); got != "map[10.9.9.2:2 fd09::2:10]" {
			t.Errorf("fail2ban-regex finds %s", got)
		}
		if got := banned(t, log, `gportmap.conf[netid="(?:tcp|udp)6?"]`); got != "map[10.9.9.2:4 fd09::2:12]" {
			t.Errorf("fail2ban-regex with UDP finds %s", got)
		}
	})
}

// TestRefusedCallersInRpcbindsWords compares with what rpcbind itself sends to syslog.
func TestRefusedCallersInRpcbindsWords(t *testing.T) {
	const program = 0x30150077
	calls := [][]byte{
		getPort(100003, 3, rpcbind.ProtTCP), dump(2), getAddr(3, 100005, 3, "", ""), getAddr(4, program, 3, "", ""), dump(4),
		getVersAddr(100003, 3, ""), getAddrList(100003, 3), message(4, rpcbind.ProcGetStat, nil), message(3, rpcbind.ProcGetTime, nil),
		message(2, rpcbind.ProcNull, nil),
	}
	var said [2]string
	for i, subject := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(subject.String(), func(t *testing.T) {
			if subject == bed.Rpcbind {
				bed.NeedRpcbind(t)
			}
			said[i] = bed.Collect(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) string {
				ownEtc(t)
				s := startSyslog(t)
				accessLists(t, "", "rpcbind: 10.9.9.2\n")
				if subject == bed.Rpcbind {
					ns.Start(t, subject)
				} else {
					inBackground(t, "--rpcbind-messages")
				}
				const words = "rpcbind["
				for _, call := range calls {
					_, _ = ns.Call(t, bed.TCP, bed.From{Remote: true}, withXID(call, 1))
					time.Sleep(20 * time.Millisecond) // rpcbind has a process log each
				}
				if !eventually(func() bool { return len(s.with(words)) >= len(calls) }) {
					t.Errorf("%d lines for %d calls: %q", len(s.with(words)), len(calls), s.with(""))
				}
				lines := s.with("connect from")
				if subject == bed.Gportmap {
					if got, want := banned(t, asFile(t, lines), "gportmap-rpcbind.conf"), fmt.Sprintf("map[10.9.9.2:%d]", len(calls)); got != want {
						t.Errorf("fail2ban-regex finds %s, want %s", got, want)
					}
				}
				for i := range lines {
					lines[i] = regexp.MustCompile(`^(<\d+>).*?\[\d+\]: `).ReplaceAllString(lines[i], "$1")
				}
				slices.Sort(lines)
				return strings.Join(lines, "\n")
			})
		})
	}
	if !bed.Inside() && said[0] != said[1] {
		t.Errorf("rpcbind says\n%s\ngportmap\n%s", said[0], said[1])
	}
}
