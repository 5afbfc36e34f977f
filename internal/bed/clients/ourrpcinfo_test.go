package clients_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// buildRpcinfo compiles cmd/rpcinfo, once for all tests and processes, and
// returns where it lies.
func buildRpcinfo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(os.Getenv(envDir), "rpcinfo")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.Command("go", "build", "-o", path, "github.com/gportmap/gportmap/cmd/rpcinfo")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return path
}

// wrongCommands are what rpcinfo refuses without asking anybody, or reads in its
// own way.
func wrongCommands() []command {
	var all []command
	for _, words := range []string{
		"-x", "-a", "-T", "-n", "-p -s", "-s -m -l", "-pT", "-xyz", "-p -x -y", "-sx", "-n 9 -p", "- -", "-T udp -",
		"-u", "-t", "-l", "-b", "-d", "-b 100000", "-d 1", "-l 127.0.0.1 100000", "-b 1 2 3", "-d 1 2 3", "a b c d",
		"127.0.0.1 100000", "127.0.0.1 100000 2", "-a 127.0.0.1.0.111 -T tcp", "-a 127.0.0.1.0.111 -T tcp 1 2 3",
		"-a rubbish -T udp 5", "-a ::1.0.111 -T udp 5", "-a 127.0.0.1.0.111 -T udp6 5", "-a nosuch -T local 5",
		"-a 127.0.0.1.0.111 -T nosuch 5", "-a 127.0.0.1.0.111 -T rawip 5", "-T nosuch 127.0.0.1", "-T nosuch -s 127.0.0.1",
		"-T nosuch -d 100001 3", "-T nosuch -l 127.0.0.1 1 2", "-T nosuch 127.0.0.1 nosuchservice",
		"-T rawip 127.0.0.1 100000 2", "-T udp 127.0.0.1 12x", "-T udp 127.0.0.1 12+", "-T udp 127.0.0.1 x12",
		"-T udp 127.0.0.1 -- -5", "-T udp 127.0.0.1 100000 0x2", "-T udp 127.0.0.1 100000 +2", "-T udp 127.0.0.1 100000 -1",
		"-T udp 127.0.0.1 100000 -- -1", "-T udp 127.0.0.1 rpcbind 2", "-T udp 127.0.0.1 portmapper 2", "-n 5x -u 127.0.0.1 5",
		"-d 5x 2", "-d 5 2x", "-u 127.0.0.1 100000 2 -x", "-Tudp 127.0.0.1 100000 2", "127.0.0.1 -T udp 100000 2",
		"-T udp -- 127.0.0.1 100000 2", "-sTudp 127.0.0.1", "-T udp -T tcp 127.0.0.1 100000 2", "127.0.0.1 -s", "-T udp -s",
	} {
		all = append(all, line("rpcinfo "+words))
	}
	for _, c := range [][]string{
		{"-T", "udp", "127.0.0.1", ""}, {"-T", "udp", "127.0.0.1", "100000", ""}, {"-T", "udp", "127.0.0.1", "100000", " 2"},
		{"-T", "udp", "127.0.0.1", " 100000"}, {"-n", "", "-u", "127.0.0.1", "5"}, {"-T", "", "127.0.0.1"}, {""}, {"-p", ""},
	} {
		all = append(all, command{argv: append([]string{"rpcinfo"}, c...)})
	}
	return all
}

// otherCommands ask over the transports of NETPATH, and link-local addresses.
func otherCommands() []command {
	var all []command
	for _, netpath := range []string{"udp", "tcp6", "udp6:tcp", "local", "nosuch:udp"} {
		for _, words := range []string{"127.0.0.1", "::1", "-s localhost", "-m nosuch.invalid", "-l ::1 536870913 3", "-u ::1 100001", "-p 127.0.0.1"} {
			c := line("rpcinfo " + words)
			c.netpath = netpath
			all = append(all, c)
		}
	}
	linkLocal := bed.HostLinkLocal + "%" + bed.PeerInterface
	for _, words := range []string{
		linkLocal, "-p " + linkLocal, "-T tcp6 -s " + linkLocal, "-T tcp6 " + linkLocal + " 536870913 3", "-u " + linkLocal + " 536870913",
		"-T tcp6 -l " + linkLocal + " 536870913 3", "-T udp " + linkLocal + " 100000",
	} {
		c := line("rpcinfo " + words)
		c.remote = true
		all = append(all, c)
	}
	return all
}

// sameMerged compares what a file gets that takes both standard output and
// standard error: in it, the order matters.
func sameMerged(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, words := range []string{"-t 127.0.0.1 536870913", "-T udp ::1 100000 7", "-u localhost 100001", "-s", "-T udp6 ::1 536870913"} {
		merged := func(rpcinfo string) outcome {
			return run(t, ns, command{argv: append([]string{"sh", "-c", `"$0" "$@" 2>&1`, rpcinfo}, strings.Fields(words)...)})
		}
		same(t, line("rpcinfo "+words+" 2>&1"), merged("rpcinfo"), merged(buildRpcinfo(t)))
	}
}

// TestOurRpcinfo runs Debian's rpcinfo and ours side by side in every mode,
// against rpcbind and against gportmap: standard output, standard error and exit
// codes have to be the same.
func TestOurRpcinfo(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildTirpc(t)
	buildRpcinfo(t)
	for _, s := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
				setBroadcast(t, ns)
				ns.Start(t, s, "-r")
				for _, service := range rpcinfoServices {
					serve(t, service.uid, service.arguments)
				}
				sameRpcinfo(t, ns, slices.Concat(allCommands(), wrongCommands(), otherCommands()))
				sameMerged(t, ns)
				samePorts(t, ns)
				sameStatistics(t, ns)
				sameBroadcasts(t, ns)
				sameDeletions(t, ns)
			})
		})
	}
}

// ours makes a command of our rpcinfo out of one of Debian's.
func ours(t *testing.T, c command) command {
	c.file = buildRpcinfo(t)
	return c
}

// sameRpcinfo compares the commands, but for those with -n: see samePorts.
func sameRpcinfo(t *testing.T, ns *bed.NS, commands []command) {
	t.Helper()
	compared := 0
	for _, c := range commands {
		if n := slices.Index(c.argv, "-n"); n >= 0 && n+1 < len(c.argv) && regexp.MustCompile(`^\d+$`).MatchString(c.argv[n+1]) {
			continue
		}
		same(t, c, run(t, ns, c), run(t, ns, ours(t, c)))
		compared++
	}
	t.Logf("%d commands compared", compared)
}

func same(t *testing.T, c command, debian, ours outcome) {
	t.Helper()
	if debian != ours {
		t.Errorf("%s\nDebian's rpcinfo:\n%s\nours:\n%s", c, indent(debian.String()), indent(ours.String()))
	}
}

// samePorts compares -n. Its manual page says that the program is called at this
// port and the portmapper isn't asked; since 2015 rpcinfo has asked it anyway and
// called the port it answered. Ours does what the manual says, which is what
// Debian's does with -a.
func samePorts(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, netid := range []string{"udp", "tcp", "udp6", "tcp6"} {
		host := "127.0.0.1"
		if strings.HasSuffix(netid, "6") {
			host = "::1"
		}
		for _, port := range []int{111, 20101, 9} {
			for _, program := range []string{"536870913", "536870913 3", "536870913 2", "100000 4", "5 6"} {
				if netid == "udp6" && port == 9 {
					continue // where Debian's doesn't see the refusal
				}
				debian := line(fmt.Sprintf("rpcinfo -a %s.%d.%d -T %s %s", host, port>>8, port&0xff, netid, program))
				want := run(t, ns, debian)
				if port == 9 && netid != "udp" {
					want.stderr = strings.Replace(want.stderr, "rpcinfo: ", host+": ", 1)
				}
				c := line(fmt.Sprintf("rpcinfo -n %d -%c %s %s", port, netid[0], host, program))
				same(t, c, want, run(t, ns, ours(t, c)))
			}
		}
	}
}

// sameStatistics compares -m: twice, because it counts itself.
func sameStatistics(t *testing.T, ns *bed.NS) {
	t.Helper()
	relayInOrder(t, ns)
	for _, words := range []string{"rpcinfo -m", "rpcinfo -m 127.0.0.1", "rpcinfo -m ::1", "rpcinfo -m -T tcp localhost"} {
		c := line(words)
		same(t, c, uncounted(t, run(t, ns, c)), uncounted(t, run(t, ns, ours(t, c))))
	}
}

// uncounted leaves out of statistics what they count of their own asking.
func uncounted(t *testing.T, o outcome) outcome {
	t.Helper()
	itself := regexp.MustCompile(`(?m)^(VERADDR.*\n(?:\d+ +){3})\d+ *$`)
	if strings.HasPrefix(o.stdout, "PORTMAP") && !itself.MatchString(o.stdout) {
		t.Fatalf("statistics that don't count themselves:\n%s", indent(o.String()))
	}
	o.stdout = itself.ReplaceAllString(o.stdout, "$1")
	return o
}

// sameBroadcasts compares -b, all its variants at once. How often a host
// answers is a matter of timing, so lines are counted once.
func sameBroadcasts(t *testing.T, ns *bed.NS) {
	t.Helper()
	commands := []command{line("rpcinfo -b 536870913 3"), line("rpcinfo -b 536870913 1"), line("rpcinfo -b 536870924 1"), line("rpcinfo -b 536870913 3")}
	commands[1].netpath = "udp"
	commands[3].remote = true
	var debian, got [4]outcome
	var all sync.WaitGroup
	for i, c := range commands {
		all.Go(func() { debian[i] = run(t, ns, c) })
		all.Go(func() { got[i] = run(t, ns, ours(t, c)) })
	}
	all.Wait()
	for i, c := range commands {
		for _, o := range []*outcome{&debian[i], &got[i]} {
			lines := strings.SplitAfter(o.stdout, "\n")
			slices.Sort(lines)
			o.stdout = strings.Join(slices.Compact(lines), "")
		}
		same(t, c, debian[i], got[i])
	}
	if !strings.Contains(got[0].stdout, bed.HostIPv4+".78.133\t") {
		t.Errorf("%s: nobody answered:\n%s", commands[0], indent(got[0].String()))
	}
}

// sameDeletions lets our rpcinfo delete what Debian's then finds gone.
func sameDeletions(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, step := range []struct {
		uid   uint32
		words string
		code  int
		gone  string // from rpcinfo's list, or "" for no check
	}{
		{stranger, "rpcinfo -d 536870914 1", 1, ""},
		{stranger, "rpcinfo -d -T tcp 536870914 1", 1, ""},
		{owner, "rpcinfo -d -T tcp 536870914 1", 0, "536870914    1    tcp "},
		{owner, "rpcinfo -d 536870914 1", 0, "536870914"},
		{0, "rpcinfo -d -T udp6 536870913 3", 0, "536870913    3    udp6"},
		{0, "rpcinfo -d rstatd 3", 0, "rstatd"},
		{0, "rpcinfo -d 536870924 1", 0, ""},
	} {
		c := line(step.words)
		c.uid = step.uid
		got := run(t, ns, ours(t, c))
		want := outcome{code: step.code}
		if step.code != 0 {
			want.stderr = "rpcinfo: Could not delete registration for prog 536870914 version 1\n"
		}
		same(t, c, want, got)
		if left := run(t, ns, line("rpcinfo")); step.gone != "" && strings.Contains(left.stdout, step.gone) {
			t.Errorf("after %s: %q is still there:\n%s", c, step.gone, indent(left.stdout))
		}
	}
}

// TestOurRpcinfoUnreachable compares both where there is no portmapper: refused
// ports, hosts and networks that don't exist, names that nobody knows.
func TestOurRpcinfoUnreachable(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildRpcinfo(t)
	t.Parallel()
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		var commands []command
		add := func(format string, a ...any) {
			commands = append(commands, line("rpcinfo "+fmt.Sprintf(format, a...)))
		}
		for _, mode := range []string{"", "-s", "-p", "-m", "-d 5 6", "-T udp", "-T local"} {
			add("%s", mode)
		}
		nowhere := "10.9.9.77" // on the link, but nobody is there
		for _, host := range []string{"127.0.0.1", "localhost", nowhere, "192.0.2.1", "2001:db8::1", "nosuch.invalid"} {
			for _, words := range []string{"%s", "-s %s", "-p %s", "-m %s", "-l %s 100003 3", "-u %s 100003 3", "-t %s 100003", "-t %s nfs"} {
				add(words, host)
			}
			for _, netid := range []string{"udp", "tcp", "udp6", "tcp6", "local"} {
				for _, words := range []string{"-T %s %s", "-T %s %s 100003 3", "-T %s %s 100003", "-T %s -l %s 100003 3"} {
					add(words, netid, host)
				}
			}
		}
		add("-p ::1")
		add("-T tcp6 ::1")
		add("-t ::1 100003 3")
		for _, at := range []string{
			"127.0.0.1.0.9 -T tcp", "127.0.0.1.0.9 -T udp", "::1.0.9 -T tcp6", "/run/nosuch -T local", "192.0.2.1.0.9 -T udp",
			"192.0.2.1.0.9 -T tcp", nowhere + ".0.9 -T tcp", "2001:db8::1.0.9 -T udp6",
		} {
			add("-a %s 5 6", at)
			add("-a %s 5", at)
		}
		sameAtOnce(t, ns, commands)
		// Alone: Debian's sends its only datagram while the kernel looks for the
		// host, and of many that wait for that the kernel drops some silently.
		for _, words := range []string{"5 6", "5"} {
			c := line("rpcinfo -a " + nowhere + ".0.9 -T udp " + words)
			same(t, c, run(t, ns, c), run(t, ns, ours(t, c)))
		}
		refusedUDP6(t, ns)
	})
}

// refusedUDP6 is where ours knows better: Debian's doesn't ask the kernel for
// refusals over IPv6 and waits for a minute.
func refusedUDP6(t *testing.T, ns *bed.NS) {
	t.Helper()
	for words, want := range map[string]string{
		"rpcinfo -s ::1":               "rpcinfo: can't contact rpcbind: : RPC: Unable to receive; errno = Connection refused\n",
		"rpcinfo -u ::1 100003 3":      "::1: RPC: Unable to receive\n",
		"rpcinfo -T udp6 fd09::77 5 6": "rpcinfo: RPC: Unable to receive\n",
	} {
		c := line(words)
		same(t, c, outcome{stderr: want, code: 1}, run(t, ns, ours(t, c)))
	}
}

// TestOurRpcinfoNoIPv6 compares both on a host whose IPv6 is switched off.
func TestOurRpcinfoNoIPv6(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildRpcinfo(t)
	t.Parallel()
	bed.InNamespace(t, bed.Options{NoIPv6: true}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Gportmap)
		var commands []command
		for _, host := range []string{"", "127.0.0.1", "localhost", "::1", "2001:db8::1"} {
			for _, mode := range []string{"", "-s", "-p", "-m"} {
				commands = append(commands, line("rpcinfo "+mode+" "+host))
			}
			for _, mode := range []string{"-T udp %s", "-T udp6 %s", "-T tcp6 %s", "-u %s", "-t %s", "-l %s"} {
				if host != "" {
					commands = append(commands, line("rpcinfo "+fmt.Sprintf(mode, host)+" 100000 2"))
				}
			}
		}
		for _, words := range []string{"-a ::1.0.111 -T udp6 100000", "-a ::1.0.111 -T tcp6 100000 3", "-d 5 1"} {
			commands = append(commands, line("rpcinfo "+words))
		}
		for _, c := range commands {
			same(t, c, uncounted(t, run(t, ns, c)), uncounted(t, run(t, ns, ours(t, c))))
		}
	})
}

// sameAtOnce compares commands that take their time. So many at once may be in
// each other's way, on a machine that is busy with other tests as well: what
// differed is asked again, alone.
func sameAtOnce(t *testing.T, ns *bed.NS, commands []command) {
	t.Helper()
	debian, got := make([]outcome, len(commands)), make([]outcome, len(commands))
	var all sync.WaitGroup
	places := make(chan struct{}, 40)
	for i, c := range commands {
		for to, c := range map[*outcome]command{&debian[i]: c, &got[i]: ours(t, c)} {
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				*to = run(t, ns, c)
			})
		}
	}
	all.Wait()
	again := 0
	for i, c := range commands {
		for tries := 0; debian[i] != got[i] && tries < 2; tries++ {
			again++
			debian[i], got[i] = run(t, ns, c), run(t, ns, ours(t, c))
		}
		same(t, c, debian[i], got[i])
	}
	t.Logf("%d commands compared, %d of them again", len(commands), again)
}

// TestOurRpcinfoSilent compares both with ports that take everything and answer
// nothing. Where Debian's waits for a minute, what it then said is written down
// here.
func TestOurRpcinfoSilent(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildRpcinfo(t)
	t.Parallel()
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		silence(t)
		sameAtOnce(t, ns, []command{
			line("rpcinfo -a 127.0.0.1.0.111 -T tcp 5 6"), line("rpcinfo -a 127.0.0.1.0.111 -T udp 5 6"),
			line("rpcinfo -a ::1.0.111 -T udp6 5"), line("rpcinfo -a /run/rpcbind.sock -T local 5"),
			line("rpcinfo -b 5 1"), // loopback can't broadcast
		})
		const contact = "rpcinfo: can't contact "
		for words, want := range map[string]string{
			"":                          contact + "rpcbind: : RPC: Timed out\n",
			"-s":                        contact + "rpcbind: : RPC: Timed out\n",
			"-p":                        contact + "portmapper: RPC: Timed out\n",
			"-m":                        contact + "rpcbind: : RPC: Timed out\n",
			"127.0.0.1":                 contact + "rpcbind: : RPC: Timed out\n",
			"-T udp 127.0.0.1":          contact + "rpcbind: : RPC: Timed out\n",
			"-p ::1":                    "::1: RPC: Timed out\n",
			"-l 127.0.0.1 100003 3":     contact + "rpcbind: : RPC: Timed out\n",
			"-u 127.0.0.1 100003 3":     "127.0.0.1: RPC: Timed out\n",
			"-t ::1 100003 3":           "::1: RPC: Timed out\n",
			"-T udp 127.0.0.1 100003 3": "rpcinfo: RPC: Timed out\n",
			"-T tcp 127.0.0.1 100003 3": "rpcinfo: RPC: Timed out\n",
			"-d 5 6":                    "rpcinfo: Could not delete registration for prog 5 version 6\n",
		} {
			c := line("rpcinfo --timeout 0.3 " + words)
			same(t, c, outcome{stderr: want, code: 1}, run(t, ns, ours(t, c)))
		}
	})
}

// silence takes the portmapper's ports and socket, and answers nothing.
func silence(t *testing.T) {
	t.Helper()
	closed := func(c io.Closer, err error) {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	accept := func(l net.Listener, err error) {
		closed(l, err)
		go func() {
			for {
				if _, err := l.Accept(); errors.Is(err, net.ErrClosed) {
					return
				}
			}
		}()
	}
	for _, host := range []string{"127.0.0.1:111", "[::1]:111"} {
		accept(net.Listen("tcp", host))
		p, err := net.ListenPacket("udp", host)
		closed(p, err)
	}
	accept(net.Listen("unix", "/run/rpcbind.sock"))
}
