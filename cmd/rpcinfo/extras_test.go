package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// decoded runs rpcinfo and decodes each line that it prints.
func decoded(t *testing.T, w world, arguments string, code int) []map[string]any {
	t.Helper()
	got := runIn(t, w, arguments)
	if got.code != code || got.stderr != "" {
		t.Fatalf("rpcinfo %s: exit %d\n%s%s", arguments, got.code, got.stdout, got.stderr)
	}
	var all []map[string]any
	for line := range strings.Lines(got.stdout) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("rpcinfo %s: %v: %s", arguments, err, line)
		}
		all = append(all, v)
	}
	return all
}

func TestJSONOfLists(t *testing.T) {
	w := testWorld(t)
	mappings := rpcbind.AppendMappingElement(nil, rpcbind.Mapping{Program: 100003, Version: 3, Prot: 6, Port: 2049})
	tcp, _ := rpcbind.TCP.Transport()
	entries := rpcbind.AppendEntryElement(nil, rpcbind.Entry{Addr: "127.0.0.1.8.1", Transport: tcp})
	portmapper(t, &w, map[uint32]oncrpc.Procedures{
		2: {rpcbind.ProcDump: answering(xdr.AppendBool(mappings, false))},
		3: dumped(registered[2], rpcbind.RPCB{Program: 7, Version: 1, Netid: "x\u009b\U000e0001\xff", Addr: "\x1b]", Owner: "<0>"}),
		4: {rpcbind.ProcGetAddrList: answering(xdr.AppendBool(entries, false)), rpcbind.ProcGetAddr: answering(xdr.AppendString(nil, "")),
			rpcbind.ProcGetStat: answering(rpcbind.AppendStats(nil, &rpcbind.Stats{{Lookups: []rpcbind.LookupStats{{Program: 100003}}}}))},
	})
	for arguments, want := range map[string]string{
		"--json": `{"registrations":[{"program":536870913,"version":1,"netid":"udp","address":"0.0.0.0.78.133","port":20101,"owner":"4242"},` +
			`{"program":7,"version":1,"netid":"x\u009b\udb40\udc01\ufffd","address":"\u001b]","owner":"<0>"}]}` + "\n",
		"--json -s 127.0.0.1": `{"host":"127.0.0.1","programs":[{"program":536870913,"versions":[1],"netids":["udp"],"owner":"4242"},` +
			`{"program":7,"versions":[1],"netids":["x\u009b\udb40\udc01\ufffd"],"owner":"<0>"}]}` + "\n",
		"--json -p": `{"mappings":[{"program":100003,"service":"nfs","version":3,"protocol":"tcp","port":2049}]}` + "\n",
		"--json -l 127.0.0.1 nfs 3": `{"host":"127.0.0.1","program":100003,"service":"nfs","version":3,"addresses":[{"netid":"tcp","family":"inet",` +
			`"protocol":"tcp","class":"cots_ord","address":"127.0.0.1.8.1","port":2049}]}` + "\n",
	} {
		expect(t, w, arguments, said{stdout: want})
	}
	stats := decoded(t, w, "--json -m", 0)[0]["statistics"].([]any)
	v2 := stats[0].(map[string]any)
	if len(stats) != 3 || len(v2["calls"].(map[string]any)) != 6 || v2["lookups"].([]any)[0].(map[string]any)["service"] != "nfs" {
		t.Errorf("%v", stats)
	}
	expect(t, w, "--json -u 127.0.0.1 nfs", said{stdout: `{"host":"127.0.0.1","error":"127.0.0.1: RPC: Program not registered"}` + "\n", code: 1})
	expect(t, w, "--json -p nosuch -s", said{stderr: usageText, code: 1})
}

func TestJSONOfProbe(t *testing.T) {
	w := testWorld(t)
	uaddr := program(t, &w, 2, 4)
	got := decoded(t, w, "--json -t 127.0.0.1 nfs", 1)[0]
	versions := got["versions"].([]any)
	if got["address"] != uaddr || got["service"] != "nfs" || got["netid"] != "tcp" || len(versions) != 3 {
		t.Fatalf("%v", got)
	}
	for i, ready := range []bool{true, false, true} {
		if v := versions[i].(map[string]any); v["ready"] != ready || (v["error"] == nil) != ready {
			t.Errorf("%v", v)
		}
	}
}

func TestJSONOfDeletion(t *testing.T) {
	w := testWorld(t)
	questions := make(chan rpcbind.RPCB, 3)
	var granted atomic.Bool
	granted.Store(true)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: {rpcbind.ProcUnset: func(_ context.Context, r *oncrpc.Request, dst []byte) ([]byte, error) {
		d := r.Decoder()
		questions <- rpcbind.ReadRPCB(&d, maxString)
		return xdr.AppendBool(dst, granted.Load()), nil
	}}})
	expect(t, w, "--json -d -T tcp nfs 3", said{stdout: `{"program":100003,"service":"nfs","version":3,"netid":"tcp","deleted":true}` + "\n"})
	if asked := <-questions; asked.Program != 100003 || asked.Version != 3 || asked.Netid != "tcp" || asked.Addr != "" {
		t.Errorf("asked for %+v", asked)
	}
	granted.Store(false)
	const refused = "rpcinfo: Could not delete registration for prog nfs version 3"
	expect(t, w, "-d nfs 3", said{stderr: refused + "\n", code: 1})
	expect(t, w, "--json -d nfs 3", said{stdout: `{"error":"` + refused + `"}` + "\n", code: 1})
}

func TestSeveralHosts(t *testing.T) {
	w := testWorld(t)
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: dumped(registered...)})
	expect(t, w, "-s 127.0.0.1 127.0.0.1", said{stdout: "127.0.0.1:\n" + shortOfRegistered + "\n127.0.0.1:\n" + shortOfRegistered})
	expect(t, w, "-T tcp -s ::1 127.0.0.1", said{stdout: "127.0.0.1:\n" + shortOfRegistered,
		stderr: "::1: rpcinfo: can't contact rpcbind: RPC: Unknown host\n", code: 1})
	// Of the plain list, because two operands are a host and a program.
	w.stdin = strings.NewReader("# hosts\n127.0.0.1 # this one\n\n 127.1\n")
	expect(t, w, "--hosts -", said{stdout: "127.0.0.1:\n" + dumpOfRegistered + "\n127.1:\n" + dumpOfRegistered})
	if got := decoded(t, w, "--json -s 127.0.0.1 127.1", 0); len(got) != 2 || got[1]["host"] != "127.1" {
		t.Errorf("%v", got)
	}
}

// Their order is kept, however many there are.
func TestManyHosts(t *testing.T) {
	w := testWorld(t)
	program(t, &w, 3)
	var hosts []string
	for i := range 3 * atOnce {
		hosts = append(hosts, "127.0.0.1", []string{"127.1", "::1", "0x7f.1"}[i%3])
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(strings.Join(hosts, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	got := decoded(t, w, "--json --hosts "+file+" -T udp nfs 3", 1)
	if len(got) != len(hosts) {
		t.Fatalf("%d hosts of %d", len(got), len(hosts))
	}
	for i, v := range got {
		if v["host"] != hosts[i] || (v["error"] == nil) != (hosts[i] != "::1") {
			t.Errorf("host %d is %s: %v", i, hosts[i], v)
		}
	}
}

func TestHostsThatArent(t *testing.T) {
	w := testWorld(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for arguments, want := range map[string]string{
		"--hosts " + empty:                  "rpcinfo: --hosts " + empty + ": there is no host in it; write one on each line\n",
		"--hosts " + empty + ".no":          "rpcinfo: --hosts: open " + empty + ".no: no such file or directory\n",
		"--hosts x -d 1 1":                  "rpcinfo: --hosts: -d asks no host; see --help\n",
		"--hosts x -a 1.2.3.4.0.1 -T udp 1": "rpcinfo: --hosts: -a asks no host; see --help\n",
		"--ping -s":                         "rpcinfo: --ping: tell what to call by -u, -t, -T or -a; see --help\n",
		"--watch -s":                        "rpcinfo: --watch: it lists the registrations of one host, without -s, -p and the like; see --help\n",
		"--count 3":                         "rpcinfo: --count and --interval are for --ping and --watch; see --help\n",
		"--count 0 --watch":                 "rpcinfo: --count 0: give a number from 1 on\n",
		"--interval 1ms --watch":            "rpcinfo: --interval: at least 10ms\n",
		"-u 127.0.0.1 127.0.0.1 nosuch":     "rpcinfo: 127.0.0.1 is unknown service\n",
		"--hosts " + empty + " -u nfs 3 4":  usageText,
	} {
		expect(t, w, arguments, said{stderr: want, code: 1})
	}
}
