package bed_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// initScript installs init/sysv/gportmap in the namespaces and returns a function that calls it, and one that sets OPTIONS.
func initScript(t *testing.T) (service func(action string) seen, options func(string)) {
	t.Helper()
	script, err := filepath.Abs("../../init/sysv/gportmap")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/lib/lsb/init-functions"); err != nil {
		t.Skipf("needs the functions of the LSB: apt-get install sysvinit-utils or lsb-base (%v)", err)
	}
	binary, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	installScript(t, script, "")
	service = func(action string) seen {
		t.Helper()
		return shell(t, "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin GORACE=$GORACE /etc/init.d/gportmap "+action)
	}
	options = func(text string) {
		t.Helper()
		if err := os.WriteFile("/etc/default/gportmap", []byte("DAEMON="+binary+"\nOPTIONS=\""+text+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return service, options
}

// TestInitScriptAfterAChangeOfOptions changes OPTIONS while the daemon runs: stop and status are about the one that runs.
func TestInitScriptAfterAChangeOfOptions(t *testing.T) {
	for _, change := range []struct{ name, from, to string }{
		{"an instance of its own", "-w", "--state-dir /run/own --port 1111"},
		{"back to the system's", "--state-dir /run/own", "-w"},
		{"to another directory", "--state-dir /run/own", "--state-dir /run/other"},
		{"a flag that isn't one", "-w", "--nosuchflag"},
		{"a value that isn't one", "-w", "--port none"},
	} {
		t.Run(change.name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
				service, options := initScript(t)
				served := func() bool { return shell(t, "ss -Hlnt 'sport = :111'").stdout != "" }
				for _, byHand := range []bool{false, true} {
					options(change.from)
					if byHand && !strings.Contains(change.from, "state-dir") {
						shell(t, "gportmap "+change.from).want(t, 0)
					} else {
						service("start").want(t, 0)
					}
					options(change.to)
					service("status").want(t, 0, "running (pid ")
					service("reload").want(t, 0)
					service("stop").want(t, 0)
					if served() {
						t.Fatal("port 111 is served still")
					}
					service("status").want(t, 3, "stopped")
				}
			})
		})
	}
}

// TestInitScriptKeepsWhatRuns: a restart with options or a file that a start refuses stops nothing.
func TestInitScriptKeepsWhatRuns(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		service, options := initScript(t)
		service("start").want(t, 0)
		seedRegistrations(t)
		pid := runningPID(t)
		for _, bad := range []string{"--nosuchflag", "--user nosuchuser", "--config /run/bad.toml"} {
			shell(t, "echo exposre=1 >/run/bad.toml").want(t, 0)
			options(bad)
			for _, action := range []string{"restart", "force-reload", "condrestart"} {
				service(action).want(t, 6)
				if now := runningPID(t); now != pid {
					t.Fatalf("%s with %s: pid %d, was %d", action, bad, now, pid)
				}
			}
		}
		seedIntact(t)
	})
}

// TestServiceRpcbind: where gportmap is installed in the place of rpcbind, entry points and scripts that call `service rpcbind`
// start, ask, restart and stop it, by the link to its script or by the script that Debian's rpcbind leaves when it is removed.
func TestServiceRpcbind(t *testing.T) {
	for _, left := range []bool{false, true} {
		name := map[bool]string{true: "rpcbind's script", false: "the link"}[left]
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat("/etc/init.d/rpcbind"); err != nil && left {
				t.Skipf("needs the script of Debian's rpcbind: apt-get install rpcbind (%v)", err)
			}
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
				script, _ := os.ReadFile("/etc/init.d/rpcbind")
				service, _ := initScript(t)
				binary, err := bed.Gportmap.Path()
				if err != nil {
					t.Fatal(err)
				}
				// As the package has it.
				shell(t, "mkdir /run/u /run/w && mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/u,workdir=/run/w /usr/sbin && "+
					"cp "+binary+" /usr/sbin/gportmap && ln -sf gportmap /usr/sbin/rpcbind && mkdir -p /run/sendsigs.omit.d").want(t, 0)
				if err := os.WriteFile("/etc/default/gportmap", nil, 0o644); err != nil {
					t.Fatal(err)
				}
				if left {
					if err := os.WriteFile("/etc/init.d/rpcbind", script, 0o755); err != nil {
						t.Fatal(err)
					}
				} else if err := os.Symlink("gportmap", "/etc/init.d/rpcbind"); err != nil {
					t.Fatal(err)
				}
				rpcbind := func(action string) seen {
					t.Helper()
					return shell(t, "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin GORACE=$GORACE /etc/init.d/rpcbind "+action)
				}
				rpcbind("status").want(t, 3)
				// The directory that gportmap makes must be one that rpcbind's script takes.
				shell(t, "rmdir /run/rpcbind").want(t, 0)
				service("start").want(t, 0)
				service("stop").want(t, 0)
				rpcbind("start").want(t, 0)
				rpcbind("status").want(t, 0)
				service("status").want(t, 0, "running (pid ")
				seedRegistrations(t)
				rpcbind("restart").want(t, 0)
				rpcbind("status").want(t, 0)
				seedIntact(t)
				service("restart").want(t, 0)
				rpcbind("status").want(t, 0)
				seedIntact(t)
				rpcbind("stop").want(t, 0)
				service("status").want(t, 3, "stopped")
				rpcbind("status").want(t, 3)
				rpcbind("start").want(t, 0)
				seedIntact(t)
				service("stop").want(t, 0)
				rpcbind("status").want(t, 3)
			})
		})
	}
}
