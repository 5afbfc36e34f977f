package clients_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// The NIS domain and a user that only its maps know.
const (
	nisDomain = "bed.example"
	nisUser   = "nisuser:x:4242:4242:known to NIS only:/:/bin/sh"
)

// TestNIS runs a NIS domain: ypserv and ypbind register, the clients find the
// server by way of ypbind, which was told its address.
func TestNIS(t *testing.T) {
	requiresNIS(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		ns.Start(t, s)
		startYpserv(t, ns, "domain "+nisDomain+" server "+bed.HostIPv4+"\n")
		binder := start(t, line("ypbind -n -debug -p 20062"))
		nisAnswers(t, ns, record)
		listed := run(t, ns, line("rpcinfo -p"))
		record.add("rpcinfo -p", listed.String())
		record.add("rpcinfo -s", run(t, ns, line("rpcinfo -s")).String())
		for _, want := range []string{"100004    2   udp    951  ypserv", "100004    1   tcp    951  ypserv",
			"100007    1   udp  20062  ypbind", "100007    3   tcp  20062  ypbind"} {
			if !strings.Contains(listed.stdout, want) {
				t.Errorf("rpcinfo -p lacks %q:\n%s", want, indent(listed.stdout))
			}
		}
		binder.terminate(t)
		left := run(t, ns, line("rpcinfo -s"))
		record.add("rpcinfo -s after ypbind's end", left.String())
		if strings.Contains(left.stdout, "ypbind") || !strings.Contains(left.stdout, "ypserv") {
			t.Errorf("after ypbind's end only ypserv is to be left:\n%s", indent(left.stdout))
		}
	})
}

// TestNISBroadcast lets ypbind look for the server by broadcast, which the
// portmapper must forward to it: it does with -r.
func TestNISBroadcast(t *testing.T) {
	requiresNIS(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		setBroadcast(t, ns)
		ns.Start(t, s, "-r")
		startYpserv(t, ns, "")
		start(t, line("ypbind -n -debug -broadcast -p 20062"))
		nisAnswers(t, ns, record)
	})
}

// TestNISBroadcastWithoutRelay: without -r nobody answers the broadcast.
func TestNISBroadcastWithoutRelay(t *testing.T) {
	requiresNIS(t)
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		setBroadcast(t, ns)
		ns.Start(t, s)
		startYpserv(t, ns, "")
		binder := start(t, line("ypbind -n -debug -broadcast -p 20062"))
		binder.await(t, "do_broadcast() for domain")
		// Of all the clients it is ypwhich that gives up soonest.
		got := run(t, ns, line("ypwhich"))
		record.add("ypwhich", got.String())
		if got.code == 0 {
			t.Errorf("ypwhich finds a server:\n%s", indent(got.String()))
		}
		binder.await(t, "broadcast: RPC: Timed out.")
		if log := binder.log.String(); strings.Contains(log, "Answer for domain") {
			t.Errorf("ypbind found a server without the relay:\n%s", indent(log))
		}
	})
}

func requiresNIS(t *testing.T) {
	t.Helper()
	requires(t, program{"ypserv", "ypserv"}, program{"ypbind", "ypbind-mt"}, program{"ypcat", "yp-tools"},
		program{"ypmatch", "yp-tools"}, program{"make", "make"}, program{"rpcinfo", "rpcbind"})
}

// startYpserv makes the maps of the domain from files that only this namespace
// has and starts the server on a port that ypbind trusts, one below 1024.
func startYpserv(t *testing.T, ns *bed.NS, ypConf string) {
	t.Helper()
	if err := syscall.Sethostname([]byte("bed")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setdomainname([]byte(nisDomain)); err != nil {
		t.Fatal(err)
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("/var/yp/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	replace(t, "/etc/passwd", string(passwd)+nisUser+"\n")
	replace(t, "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"+bed.HostIPv4+" bed\n")
	replace(t, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nnetgroup: files\n")
	replace(t, "/etc/yp.conf", ypConf)
	replace(t, "/etc/ypserv.securenets", "255.0.0.0 127.0.0.0\n255.255.255.0 10.9.9.0\n")
	mount(t, "tmpfs", "/var/yp")
	for name, content := range map[string]string{"Makefile": string(makefile), "ypservers": "bed\n", "nicknames": "passwd passwd.byname\n"} {
		if err := os.WriteFile(filepath.Join("/var/yp", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"binding", nisDomain} {
		if err := os.Mkdir(filepath.Join("/var/yp", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/ypserv.securenets", "/var/yp/securenets"); err != nil {
		t.Fatal(err)
	}
	start(t, line("ypserv -d -p 951"))
	awaitService(t, ns, "100004 2")
	if o := run(t, ns, line("make -C /var/yp NOPUSH=true")); o.code != 0 {
		t.Fatalf("make the NIS maps: %s", o)
	}
}

// replace puts a file of this content in the place of one that exists, in this
// namespace only.
func replace(t *testing.T, path, content string) {
	t.Helper()
	source := filepath.Join("/run", strings.ReplaceAll(path, "/", "_"))
	if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(source, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("mount a file of the test's own on %s: %v", path, err)
	}
}

// nisAnswers waits until ypbind is bound and asks the server.
func nisAnswers(t *testing.T, ns *bed.NS, record *transcript) {
	t.Helper()
	eventually(t, "ypwhich names the server", func() bool {
		return run(t, ns, line("ypwhich")).code == 0
	})
	for _, c := range []struct{ words, want string }{
		{"ypwhich", bed.HostIPv4 + "\n"},
		{"ypmatch nisuser passwd.byname", nisUser + "\n"},
		{"ypmatch 4242 passwd.byuid", nisUser + "\n"},
		{"ypcat passwd.byname", nisUser + "\n"},
		{"ypcat -k rpc.bynumber", "100004 ypserv"},
	} {
		got := run(t, ns, line(c.words))
		record.add(c.words, got.String())
		if !strings.Contains(got.stdout, c.want) || got.code != 0 {
			t.Errorf("%s:\n%s\nwant in it:\n%s", c.words, indent(got.String()), indent(c.want))
		}
	}
}
