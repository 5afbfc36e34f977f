package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What getopt(3) tells of wrong options, as Debian's rpcinfo does; compared with it in internal/bed/clients.
func TestWrongOptions(t *testing.T) {
	for arguments, want := range map[string]string{
		"-x":              "rpcinfo: invalid option -- 'x'\n",
		"-pxy host -z":    "rpcinfo: invalid option -- 'x'\nrpcinfo: invalid option -- 'y'\nrpcinfo: invalid option -- 'z'\n",
		"-:":              "rpcinfo: invalid option -- ':'\n",
		"-a":              "rpcinfo: option requires an argument -- 'a'\n",
		"-sT":             "rpcinfo: option requires an argument -- 'T'\n",
		"--nosuch=1":      "rpcinfo: unrecognized option '--nosuch=1'\n",
		"--timeout":       "rpcinfo: option '--timeout' requires an argument\n",
		"-p -s":           "",
		"-n 111 -p":       "",
		"-a 1.2.3.4.0.1":  "",
		"host 100000":     "",
		"-u host":         "",
		"-d -T udp 1":     "",
		"-b 1":            "",
		"-l host 1":       "",
		"-T udp h 1 2 3":  "",
		"-a x -T udp":     "",
		"-x\x1b[31m host": "rpcinfo: invalid option -- 'x'\nrpcinfo: invalid option -- '\\x1b'\nrpcinfo: invalid option -- '['\nrpcinfo: invalid option -- '3'\nrpcinfo: invalid option -- '1'\n",
	} {
		w := testWorld(t)
		expect(t, w, arguments, said{stderr: want + usageText, code: 1})
	}
}

func TestBadValues(t *testing.T) {
	for arguments, want := range map[string]string{
		"-n x -u h 1":                 "rpcinfo: x is illegal port number\n",
		"-n 65536 -u h 1":             "rpcinfo: 65536 is illegal port number\n",
		"-d nosuch 1":                 "rpcinfo: nosuch is unknown service\n",
		"-d 12x 1":                    "rpcinfo: 12x is unknown service\n",
		"-d 12+ 1":                    "rpcinfo: 12+ is illegal program number\n",
		"-d 4294967296 1":             "rpcinfo: 4294967296 is illegal program number\n",
		"-d 1 0x1":                    "rpcinfo: 0x1 is illegal version number\n",
		"-d -T nosuch 1 1":            "rpcinfo: netid nosuch not supported\n",
		"-T nosuch h 1":               "rpcinfo: Could not find nosuch\n",
		"-T nosuch h":                 "rpcinfo: invalid transport: Netid not found in netconfig database\n",
		"-a 1.2.3.4.0.1 -T nosuch 1":  "rpcinfo: Could not find nosuch\n",
		"-a 1.2.3.4 -T udp6 1":        "rpcinfo: rpcinfo: no address for client handle\n",
		"-a relative -T local 1":      "rpcinfo: rpcinfo: no address for client handle\n",
		"--timeout 0 -p":              "rpcinfo: --timeout 0: give seconds, or a duration as 500ms or 1m\n",
		"--timeout soon -p":           "rpcinfo: --timeout soon: give seconds, or a duration as 500ms or 1m\n",
		"-d 5\x1b]0;owned\x07 1":      "rpcinfo: 5\\x1b]0;owned\\a is unknown service\n",
		"-T \u202e 127.0.0.1 100000 ": "rpcinfo: Could not find \\u202e\n",
	} {
		expect(t, testWorld(t), arguments, said{stderr: want, code: 1})
	}
}

// parsed parses arguments separated by spaces that have nothing wrong.
func parsed(t *testing.T, w world, arguments string) *options {
	t.Helper()
	var stderr bytes.Buffer
	w.stderr = &stderr
	o, err := parse("rpcinfo", strings.Fields(arguments), w)
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s: %v\n%s", arguments, err, stderr.String())
	}
	return o
}

func TestOptionsStandAnywhere(t *testing.T) {
	w := testWorld(t)
	for _, arguments := range []string{
		"-T udp -u h 100000 2", "h -T udp 100000 -u 2", "-uTudp h 100000 2", "h 100000 2 -uT udp", "-T tcp -T udp -u -- h 100000 2",
	} {
		o := parsed(t, w, arguments)
		if o.mode != modeUDP || o.netid != "udp" || !slices.Equal(o.operands, []string{"h", "100000", "2"}) {
			t.Errorf("%s: %+v", arguments, o)
		}
	}
	if o := parsed(t, w, "-s - -- -p"); !slices.Equal(o.operands, []string{"-", "-p"}) || o.mode != modeShort {
		t.Errorf("%+v", o)
	}
	w.lookupEnv = func(name string) (string, bool) { return "", name == "POSIXLY_CORRECT" }
	if o := parsed(t, w, "-s h -p"); !slices.Equal(o.operands, []string{"h", "-p"}) {
		t.Errorf("with POSIXLY_CORRECT: %+v", o)
	}
}

func TestModes(t *testing.T) {
	for arguments, want := range map[string]mode{
		"": modeDump, "h": modeDump, "-T udp": modeDump, "-T udp h": modeDump, "-T udp h 1": modeProgram, "-s": modeShort,
		"-m": modeStats, "-p": modeMappings, "-l h 1 2": modeAddresses, "-u h 1": modeUDP, "-t h 1": modeTCP,
		"-a x -T udp 1": modeAddress, "-b 1 2": modeBroadcast, "-d 1 2": modeDelete, "--help": modeHelp, "-p --version": modeVersion,
	} {
		if got := parsed(t, testWorld(t), arguments).mode; got != want {
			t.Errorf("%q: mode %q, want %q", arguments, got, want)
		}
	}
}

func TestTimeout(t *testing.T) {
	for arguments, want := range map[string]time.Duration{
		"": defaultTimeout, "--timeout 3": 3 * time.Second, "--timeout=0.25": time.Second / 4, "--timeout 1m30s": 90 * time.Second,
	} {
		if got := parsed(t, testWorld(t), arguments).timeout; got != want {
			t.Errorf("%q: %v, want %v", arguments, got, want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	w := testWorld(t)
	expect(t, w, "--help", said{stdout: helpText})
	expect(t, w, "-x --version", said{stderr: "rpcinfo: invalid option -- 'x'\n", stdout: "rpcinfo of gportmap " + versionName() + "\n"})
	for line := range strings.Lines(helpText) {
		if len(line) > 122 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// The texts as rpcinfo(8) prints them when it is called wrongly may not change: scripts look for them.
func TestUsageIsRpcinfos(t *testing.T) {
	if n := strings.Count(usageText, "\n"); n != 8 || !strings.HasPrefix(usageText, "Usage: rpcinfo [-m | -s] [host]\n") {
		t.Errorf("%d lines:\n%s", n, usageText)
	}
}

func TestNames(t *testing.T) {
	w := testWorld(t)
	known := readNames(w.rpcFile)
	if known.of(100003, "-") != "nfs" || known.number["rpcbind"] != 100000 || known.of(5, "-") != "-" {
		t.Error("the names of programs that are known without a file are wrong")
	}
	text := "# comment\nfirst 7 alias # more\nsecond 7\nfirst 8\nbad x\nlonely\n\x1b[31m 9\nhuge 99999999999\n"
	if err := os.WriteFile(w.rpcFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := readNames(w.rpcFile)
	if n.of(7, "-") != "first" || n.number["alias"] != 7 || n.number["first"] != 7 || n.number["second"] != 7 || n.of(100003, "-") != "-" {
		t.Errorf("%+v", n)
	}
	if n.of(9, "-") != `\x1b[31m` {
		t.Errorf("a name drives the terminal: %q", n.of(9, "-"))
	}
}

func TestTransports(t *testing.T) {
	w := testWorld(t)
	netids := func(list []transport) string {
		var all []string
		for _, t := range list {
			all = append(all, t.netid)
		}
		return strings.Join(all, " ")
	}
	if got := netids(readTransports(w.netconfigFile).toPortmapper()); got != "tcp tcp6 udp udp6" {
		t.Errorf("without a file and NETPATH: %s", got)
	}
	known := readTransports(w.netconfigFile)
	for netpath, want := range map[string]string{"udp6:nosuch:tcp6": "udp6 tcp6", "": ""} {
		known.netpath, known.hasNetpath = netpath, true
		if got := netids(known.path()); got != want {
			t.Errorf("of NETPATH=%s: %s", netpath, got)
		}
	}
	if err := os.WriteFile(w.netconfigFile, []byte("#x\nudp6 tpi_clts v inet6 udp - -\nshort\ntcp tpi_cots - inet tcp - -\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := readTransports(w.netconfigFile)
	s.netpath, s.hasNetpath = "tcp", true
	if got := netids(s.toPortmapper()); got != "tcp udp6" {
		t.Errorf("with a file and NETPATH: %s", got)
	}
	if _, ok := s.find("udp"); ok {
		t.Error("udp is found, which the file doesn't have")
	}
}
