package clients_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestOurRpcinfoMore runs what our rpcinfo has beyond Debian's against both
// portmappers; what it says has to agree with Debian's.
func TestOurRpcinfoMore(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"}, program{"script", "bsdutils"})
	buildTirpc(t)
	buildRpcinfo(t)
	for _, s := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
				setBroadcast(t, ns)
				daemon := ns.Start(t, s, "-r")
				for _, service := range rpcinfoServices {
					serve(t, service.uid, service.arguments)
				}
				agreesInJSON(t, ns)
				severalHosts(t, ns)
				onTerminal(t, ns)
				pings(t, ns)
				watches(t, ns, s, daemon)
			})
		})
	}
}

// inJSON runs our rpcinfo and decodes the only line that it prints.
func inJSON[T any](t *testing.T, ns *bed.NS, words string) T {
	t.Helper()
	got := run(t, ns, ours(t, line("rpcinfo --json "+words)))
	var v T
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || got.code != 0 {
		t.Fatalf("rpcinfo --json %s: %v:\n%s", words, err, indent(got.String()))
	}
	return v
}

// rows returns the columns of Debian's output without its headline.
func rows(t *testing.T, ns *bed.NS, words string) [][]string {
	t.Helper()
	var all [][]string
	for i, text := range strings.Split(strings.TrimSpace(run(t, ns, line("rpcinfo "+words)).stdout), "\n") {
		if i > 0 {
			all = append(all, strings.Fields(text))
		}
	}
	if len(all) < 5 {
		t.Fatalf("rpcinfo %s has %d rows", words, len(all))
	}
	return all
}

// agreesInJSON compares the objects of --json with Debian's columns.
func agreesInJSON(t *testing.T, ns *bed.NS) {
	t.Helper()
	type entry struct {
		Program, Version, Port            uint32
		Service, Netid, Address, Protocol string
		Owner                             string
	}
	named := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	var got [][]string
	for _, r := range inJSON[struct{ Registrations []entry }](t, ns, bed.HostIPv4).Registrations {
		got = append(got, []string{fmt.Sprint(r.Program), fmt.Sprint(r.Version), r.Netid, r.Address, named(r.Service), r.Owner})
	}
	if want := rows(t, ns, bed.HostIPv4); !slices.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("the list in JSON has\n%v\nDebian's rpcinfo\n%v", got, want)
	}
	got = nil
	for _, m := range inJSON[struct{ Mappings []entry }](t, ns, "-p").Mappings {
		row := []string{fmt.Sprint(m.Program), fmt.Sprint(m.Version), m.Protocol, fmt.Sprint(m.Port), m.Service}
		got = append(got, slices.DeleteFunc(row, func(s string) bool { return s == "" }))
	}
	if want := rows(t, ns, "-p"); !slices.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("-p in JSON has\n%v\nDebian's rpcinfo\n%v", got, want)
	}
	deleted := inJSON[struct{ Deleted bool }](t, ns, "-d 536870924 1")
	answers := inJSON[struct{ Address, Name string }](t, ns, "--timeout 600ms -b 100001 3")
	if !deleted.Deleted || answers.Address != bed.HostIPv4 {
		t.Errorf("-d in JSON: %+v; -b: %+v", deleted, answers)
	}
}

// severalHosts compares the answers of several hosts with Debian's of each.
func severalHosts(t *testing.T, ns *bed.NS) {
	t.Helper()
	hosts := []string{"127.0.0.1", "::1", bed.HostIPv4, bed.HostIPv6, "localhost"}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(strings.Join(hosts, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"-p", "-s", "-u %s 100000 2"} {
		var want []string
		for _, host := range hosts {
			words := strings.Replace(mode, "%s", host, 1)
			if words == mode {
				words += " " + host
			}
			want = append(want, host+":\n"+run(t, ns, line("rpcinfo "+words)).stdout)
		}
		c := line("rpcinfo --hosts " + file + " " + strings.Replace(mode, "%s ", "", 1))
		same(t, c, outcome{stdout: strings.Join(want, "\n")}, run(t, ns, ours(t, c)))
	}
	c := line("rpcinfo -p " + bed.HostIPv4 + " " + bed.HostIPv6)
	c.remote = true
	one := run(t, ns, line("rpcinfo -p")).stdout
	same(t, c, outcome{stdout: bed.HostIPv4 + ":\n" + one + "\n" + bed.HostIPv6 + ":\n" + one}, run(t, ns, ours(t, c)))
}

// onTerminal asks several hosts, one of which isn't there, in a pseudo terminal:
// there is a bar while that one is waited for, and nothing is left of it.
func onTerminal(t *testing.T, ns *bed.NS) {
	t.Helper()
	rpcinfo := buildRpcinfo(t) + " -s 127.0.0.1 10.9.9.77 ::1"
	got := run(t, ns, command{argv: []string{"script", "-qec", rpcinfo, "/dev/null"}}).stdout
	const clear = "\r\x1b[K"
	for _, bar := range []string{"[....", "] 0 of 3 hosts" + clear, "] 2 of 3 hosts" + clear} {
		if !strings.Contains(got, bar) {
			t.Errorf("the terminal never showed %q:\n%q", bar, got)
		}
	}
	// What a terminal shows of a line is what came after it was cleared last.
	var shown []string
	for text := range strings.Lines(got) {
		if i := strings.LastIndex(text, clear); i >= 0 {
			text = text[i+len(clear):]
		}
		shown = append(shown, strings.TrimRight(text, "\r\n")+"\n")
	}
	list := run(t, ns, line("rpcinfo -s")).stdout
	want := "127.0.0.1:\n" + list +
		"10.9.9.77: rpcinfo: can't contact rpcbind: : RPC: Unable to receive; errno = No route to host\n" + "\n::1:\n" + list
	if text := strings.Join(shown, ""); strings.TrimRight(text, "\n") != strings.TrimRight(want, "\n") {
		t.Errorf("the terminal shows\n%s\nwant\n%s", indent(text), indent(want))
	}
}

// pings measures a service over each transport.
func pings(t *testing.T, ns *bed.NS) {
	t.Helper()
	for _, words := range []string{
		"-u 127.0.0.1 536870913 3", "-t ::1 536870913 1", "-T tcp6 " + bed.HostIPv6 + " 536870913", "-T local localhost 536870913",
		"-a 127.0.0.1.78.134 -T udp rstatd", "-n 111 -u " + bed.HostIPv4 + " 100000 2",
	} {
		c := ours(t, line("rpcinfo --ping --count 5 --interval 10ms "+words))
		got := run(t, ns, c)
		if !strings.Contains(got.stdout, "5 calls, 5 answers, 0% loss, time ") || strings.Count(got.stdout, "answer from ") != 5 || got.code != 0 {
			t.Errorf("%s:\n%s", c, indent(got.String()))
		}
	}
	c := ours(t, line("rpcinfo --ping --count 2 --interval 10ms -a 127.0.0.1.0.9 -T udp 5 1"))
	if got := run(t, ns, c); !strings.Contains(got.stdout, "2 calls, 0 answers, 100% loss") || got.code != 1 {
		t.Errorf("%s:\n%s", c, indent(got.String()))
	}
}

// watches lets a watch see a service come, be deleted by Debian's rpcinfo, and
// the portmapper go and come back.
func watches(t *testing.T, ns *bed.NS, s bed.Subject, daemon *bed.Daemon) {
	t.Helper()
	watch := start(t, ours(t, line("rpcinfo --watch --interval 50ms")))
	watch.await(t, "rstatd     superuser\n")
	serve(t, owner, "serve 536870915 7 udp=0.0.0.0.78.136")
	watch.await(t, " +  536870915    7    udp       0.0.0.0.78.136         -          4242\n")
	if got := run(t, ns, line("rpcinfo -d 536870915 7")); got.code != 0 {
		t.Fatalf("Debian's rpcinfo -d:\n%s", got)
	}
	watch.await(t, " -  536870915    7    udp       0.0.0.0.78.136         -          4242\n")
	if err := daemon.Stop(); err != nil {
		t.Logf("%v ended: %v", s, err) // rpcbind says so by a code of 2
	}
	watch.await(t, " ! rpcinfo: can't contact rpcbind: ")
	ns.Start(t, s, "-r")
	watch.await(t, " ! the portmapper answers again\n")
	watch.terminate(t)
	if code := watch.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("a watch that is ended exits with %d", code)
	}
}
