package clients_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// The services that rpcinfo is to find, as arguments of tirpc: one on every
// transport, one with a name in /etc/rpc, one of an ordinary user.
var rpcinfoServices = []struct {
	uid       uint32
	arguments string
}{
	{0, "serve 536870913 1,3 udp=0.0.0.0.78.133 tcp=0.0.0.0.78.133 udp6=::.78.133 tcp6=::.78.133 local=/run/service.sock"},
	{0, "serve 100001 3 udp=0.0.0.0.78.134"},
	{owner, "serve 536870914 1 udp=0.0.0.0.78.135 tcp=0.0.0.0.78.135 tcp6=::.78.135"},
}

// TestRpcinfo runs rpcinfo in each of its modes against a portmapper without
// relay, so that -b gets no answer.
func TestRpcinfo(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildTirpc(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		setBroadcast(t, ns)
		ns.Start(t, s)
		for _, service := range rpcinfoServices {
			serve(t, service.uid, service.arguments)
		}
		for _, c := range allCommands() {
			record.add(c.String(), run(t, ns, c).String())
		}
		for _, c := range sensibleCommands {
			checkRpcinfo(t, c.command, c.want, run(t, ns, line(c.command)))
		}
		amplified(t, ns, record)
		broadcasts(t, ns, record, "", "")
		deletions(t, ns, record)
	})
}

// TestRpcinfoRelay runs rpcinfo -b with the relay on, and -m, which has counted
// every call before it. The calls look few enough services up to fit gportmap's
// statistics (section 8, row 10).
func TestRpcinfoRelay(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"})
	buildTirpc(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		setBroadcast(t, ns)
		ns.Start(t, s, "-r")
		for _, service := range rpcinfoServices {
			serve(t, service.uid, service.arguments)
		}
		statistics(t, ns, record)
		for _, c := range sensibleCommands {
			record.add(c.command, run(t, ns, line(c.command)).String())
		}
		for _, c := range []command{
			line("rpcinfo -d rstatd 3"), line("rpcinfo -d 536870924 1"),
			{argv: strings.Fields("rpcinfo -d 536870914 1"), uid: stranger},
		} {
			record.add(c.String(), run(t, ns, c).String())
		}
		relayInOrder(t, ns)
		broadcasts(t, ns, record, "udp", "10.9.9.1.78.133")
		got := statistics(t, ns, record)
		if row := regexp.MustCompile(`(?m)^536870913 +3\t0\tudp\t[1-9]\d*\t0$`); !row.MatchString(got) {
			t.Errorf("rpcinfo -m shows no remote calls of program 536870913, version 3:\n%s", indent(got))
		}
		// Last, because how often multicasts are answered is a matter of
		// timing: they come twice, and the second counts or not.
		broadcasts(t, ns, record, "", "10.9.9.1.78.133")
	})
}

// relayInOrder makes one remote call of each service that broadcasts will call,
// so that the services stand in the same order in the statistics of both
// subjects, however the broadcasts interleave.
func relayInOrder(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, version := range []uint32{2, 3} {
		for _, service := range [][2]uint32{{536870924, 1}, {536870913, 1}, {536870913, 3}} {
			call := portmapperCall(version, procCallit, service[0], service[1], 0, 0)
			if _, err := ns.Call(t, bed.UDP, bed.From{}, call); err != nil && !errors.Is(err, bed.ErrSilence) {
				t.Fatalf("CALLIT of program %d: %v", service[0], err)
			}
		}
	}
}

// allCommands returns every mode of rpcinfo that only asks, on every transport,
// of this host under its several addresses and from the remote host.
func allCommands() []command {
	var all []command
	add := func(format string, a ...any) { all = append(all, line(fmt.Sprintf(format, a...))) }
	netids := []string{"udp", "tcp", "udp6", "tcp6", "local"}
	for _, mode := range []string{"", "-p", "-s"} {
		for _, host := range []string{"", "127.0.0.1", "::1", "localhost", bed.HostIPv4, bed.HostIPv6} {
			add("rpcinfo %s %s", mode, host)
		}
		for _, netid := range netids {
			for _, host := range []string{"", "127.0.0.1", "::1"} {
				add("rpcinfo -T %s %s %s", netid, mode, host)
			}
		}
	}
	// A program on all transports, one on UDP only, the portmapper, a user's,
	// one that nobody has; without a version, with one that is there, with
	// ones that are not.
	for _, program := range []string{"536870913", "100001", "100000", "536870914", "536870924"} {
		for _, version := range []string{"", "0", "1", "2", "3", "4", "4294967295"} {
			for _, host := range []string{"127.0.0.1", "::1", bed.HostIPv4} {
				for _, netid := range netids {
					add("rpcinfo -T %s %s %s %s", netid, host, program, version)
				}
				add("rpcinfo -u %s %s %s", host, program, version)
				add("rpcinfo -t %s %s %s", host, program, version)
			}
			add("rpcinfo -n 111 -u 127.0.0.1 %s %s", program, version)
			add("rpcinfo -n 111 -t 127.0.0.1 %s %s", program, version)
			add("rpcinfo -n 20101 -u 127.0.0.1 %s %s", program, version)
			add("rpcinfo -n 20101 -t 127.0.0.1 %s %s", program, version)
			for _, netid := range netids[:4] {
				address := "127.0.0.1"
				if strings.HasSuffix(netid, "6") {
					address = "::1"
				}
				add("rpcinfo -a %s.0.111 -T %s %s %s", address, netid, program, version)
				add("rpcinfo -a %s.78.133 -T %s %s %s", address, netid, program, version)
			}
			add("rpcinfo -a /run/rpcbind.sock -T local %s %s", program, version)
		}
	}
	for _, program := range []string{"536870913 3", "536870913 2", "100000 4", "100000 2", "100001 3", "536870924 1"} {
		for _, host := range []string{"127.0.0.1", "::1", "localhost", bed.HostIPv6} {
			add("rpcinfo -l %s %s", host, program)
		}
		for _, netid := range netids {
			add("rpcinfo -T %s -l 127.0.0.1 %s", netid, program)
			add("rpcinfo -T %s -l ::1 %s", netid, program)
		}
	}
	for _, words := range []string{
		"rpcinfo -u localhost rstatd", "rpcinfo -T udp localhost rstatd 3", "rpcinfo -l localhost rstatd 3",
		"rpcinfo -u localhost nosuchservice", "rpcinfo -u localhost", "rpcinfo -T nosuch localhost 100000",
		"rpcinfo -a rubbish -T tcp 100000", "rpcinfo -a 127.0.0.1.0.111 100000", "rpcinfo -p -s", "rpcinfo -n x -u localhost 100000",
	} {
		add("%s", words)
	}
	return append(all, remoteCommands()...)
}

// remoteCommands are what another host asks: over TCP, because over UDP it may
// not have everything (see amplified).
func remoteCommands() []command {
	var all []command
	add := func(format string, a ...any) {
		c := line(fmt.Sprintf(format, a...))
		c.remote = true
		all = append(all, c)
	}
	for _, host := range []string{bed.HostIPv4, bed.HostIPv6} {
		for _, mode := range []string{"-p", "-T tcp -s", "-T tcp6 -s", "-T tcp", "-T tcp6"} {
			add("rpcinfo %s %s", mode, host)
		}
		for _, netid := range []string{"tcp", "tcp6", "udp", "udp6"} {
			for _, program := range []string{"536870913 3", "536870913", "100001 3", "100000 4", "100000"} {
				add("rpcinfo -T %s %s %s", netid, host, program)
			}
		}
		add("rpcinfo -T tcp -l %s 536870913 3", host)
		add("rpcinfo -T tcp6 -l %s 536870913 3", host)
		add("rpcinfo -u %s 536870913 1", host)
		add("rpcinfo -t %s 536870913 1", host)
	}
	return all
}

// sensibleCommands have outputs that are known: a test of the test, lest two
// equal errors pass for agreement.
var sensibleCommands = []struct{ command, want string }{
	{"rpcinfo", "536870914    1    tcp6      ::.78.135              -          4242\n"},
	{"rpcinfo 127.0.0.1", "100001    3    udp       0.0.0.0.78.134         rstatd     superuser\n"},
	{"rpcinfo -p", "100000    2   udp    111  portmapper\n"},
	{"rpcinfo -p ::1", "536870913    3   tcp  20101\n"},
	{"rpcinfo -s", "536870913  3,1       local,tcp6,udp6,tcp,udp          -           superuser\n"},
	{"rpcinfo -s 127.0.0.1", "100000  2,3,4     local,udp,tcp,udp6,tcp6          portmapper  superuser\n"},
	{"rpcinfo -T udp 127.0.0.1 536870913 3", "program 536870913 version 3 ready and waiting\n"},
	{"rpcinfo -T tcp 127.0.0.1 536870913 3", "program 536870913 version 3 ready and waiting\n"},
	{"rpcinfo -T udp6 ::1 536870913 3", "program 536870913 version 3 ready and waiting\n"},
	{"rpcinfo -T tcp6 ::1 536870913 3", "program 536870913 version 3 ready and waiting\n"},
	{"rpcinfo -u 127.0.0.1 100000", "program 100000 version 4 ready and waiting\n"},
	{"rpcinfo -t 127.0.0.1 100000", "program 100000 version 2 ready and waiting\n"},
	{"rpcinfo -n 20101 -u 127.0.0.1 536870913 1", "program 536870913 version 1 ready and waiting\n"},
	{"rpcinfo -a ::1.78.133 -T tcp6 536870913 3", "program 536870913 version 3 ready and waiting\n"},
	{"rpcinfo -l 127.0.0.1 536870913 3", "536870913  3    inet/udp/clts           127.0.0.1.78.133         -"},
	{"rpcinfo -l ::1 536870913 3", "536870913  3    inet6/tcp/cots_ord      ::1.78.133               -"},
}

func checkRpcinfo(t *testing.T, what, want string, got outcome) {
	t.Helper()
	if !strings.Contains(got.stdout, want) || got.code != 0 || got.stderr != "" {
		t.Errorf("%s:\n%s\nwant in it:\n%s", what, indent(got.String()), indent(want))
	}
}

// amplified are the listings that are larger than their request, over UDP from
// a host of the own network: ours denies them others (section 8, row 11).
func amplified(t *testing.T, ns *bed.NS, record *transcript) {
	t.Helper()
	for _, words := range []string{
		"rpcinfo -T udp " + bed.HostIPv4, "rpcinfo -T udp6 " + bed.HostIPv6,
		"rpcinfo -T udp -s " + bed.HostIPv4, "rpcinfo -T udp6 -s " + bed.HostIPv6,
		"rpcinfo -T udp -l " + bed.HostIPv4 + " 536870913 3", "rpcinfo -T udp6 -l " + bed.HostIPv6 + " 536870913 3",
	} {
		c := line(words)
		c.remote = true
		record.add(c.String(), run(t, ns, c).String())
	}
}

// broadcasts runs rpcinfo -b, which collects answers for twelve seconds, in all
// its variants at once, on the transports of netpath. who is the universal
// address that answers over IPv4, "" when nobody may. ours also answers IPv6
// multicasts (section 8, row 26), with its link-local address.
func broadcasts(t *testing.T, ns *bed.NS, record *transcript, netpath, who string) {
	t.Helper()
	commands := []command{
		line("rpcinfo -b 536870913 3"), line("rpcinfo -T udp -b 536870913 1"), line("rpcinfo -T udp6 -b 536870913 3"),
		line("rpcinfo -b 536870924 1"), line("rpcinfo -b 536870913 3"),
	}
	commands[len(commands)-1].remote = true
	outcomes := make([]outcome, len(commands))
	var all sync.WaitGroup
	for i := range commands {
		commands[i].netpath = netpath
		all.Go(func() { outcomes[i] = run(t, ns, commands[i]) })
	}
	all.Wait()
	const multicast = bed.HostLinkLocal + ".78.133\tunknown\n"
	for i, c := range commands {
		got := outcomes[i]
		wanted := who != "" && strings.Contains(c.String(), "536870913")
		if answered := strings.Contains(got.stdout, who+"\t"); answered != wanted || got.code != 0 {
			t.Errorf("%s: want an answer: %v, got:\n%s", c, wanted, indent(got.String()))
		}
		wanted = wanted && netpath == "" && record.subject == bed.Gportmap
		if answered := strings.Contains(got.stdout, multicast); answered != wanted {
			t.Errorf("%s: want an answer over IPv6: %v, got:\n%s", c, wanted, indent(got.String()))
		}
		got.stdout = strings.ReplaceAll(got.stdout, multicast, "")
		record.add(c.String(), got.String())
	}
}

// statistics compares rpcinfo -m, which prints what GETSTAT says of all the
// calls that the test made up to here, and returns it.
func statistics(t *testing.T, ns *bed.NS, record *transcript) string {
	t.Helper()
	for _, words := range []string{"rpcinfo -m", "rpcinfo -m 127.0.0.1", "rpcinfo -m ::1", "rpcinfo -m localhost"} {
		record.add("$ "+words, run(t, ns, line(words)).String())
	}
	remote := line("rpcinfo -m " + bed.HostIPv4)
	remote.remote = true
	got := run(t, ns, remote)
	record.add(remote.String(), got.String())
	checkRpcinfo(t, remote.String(), "PORTMAP (version 2) statistics\n", got)
	return got.stdout
}

// deletions runs rpcinfo -d: as a stranger, as the owner, as root; of one
// transport, of all, of what is not there, of the portmapper itself.
func deletions(t *testing.T, ns *bed.NS, record *transcript) {
	t.Helper()
	for _, step := range []struct {
		uid   uint32
		words string
		code  int
		gone  string // from rpcinfo -s, or "" for no check
	}{
		{stranger, "rpcinfo -d 536870914 1", 1, ""},
		{stranger, "rpcinfo -d -T tcp 536870914 1", 1, ""},
		{owner, "rpcinfo -d 536870913 1", 1, ""},
		{owner, "rpcinfo -d -T tcp 536870914 1", 0, ""},
		{owner, "rpcinfo -d 536870914 1", 0, "536870914"},
		{owner, "rpcinfo -d 536870914 1", 0, "536870914"},
		{0, "rpcinfo -d -T udp6 536870913 3", 0, ""},
		{0, "rpcinfo -d rstatd 3", 0, "rstatd"},
		{0, "rpcinfo -d 536870913 1", 0, ""},
		{0, "rpcinfo -d 536870913 3", 0, "536870913"},
		{0, "rpcinfo -d 536870924 1", 0, ""},
		{owner, "rpcinfo -d 100000 2", 1, ""},
	} {
		c := line(step.words)
		c.uid = step.uid
		got := run(t, ns, c)
		record.add(c.String(), got.String())
		if got.code != step.code {
			t.Errorf("%s: exit %d, want %d: %s", c, got.code, step.code, got.stderr)
		}
		left := run(t, ns, line("rpcinfo -s"))
		record.add("$ rpcinfo -s after "+c.String(), left.String())
		if step.gone != "" && strings.Contains(left.stdout, step.gone) {
			t.Errorf("after %s: %s is still there:\n%s", c, step.gone, indent(left.stdout))
		}
	}
	record.addDeviant(t, 16, "$ rpcinfo -d 100000 2", run(t, ns, line("rpcinfo -d 100000 2")).String(), func(done string) string {
		return strings.Replace(done, "exit 0\n",
			"standard error:\nrpcinfo: Could not delete registration for prog 100000 version 2\nexit 1\n", 1)
	})
}
