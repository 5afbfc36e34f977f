package bed_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// supervisors are those for which there is a service in init/, with what an administrator types. Each has its services below
// /run/service; the names of programs are those of Debian's packages.
func supervisors() []supervisor {
	return []supervisor{
		{"runit", "runsv", "cp -R %s/runit/gportmap /run/service", "runsv /run/service/gportmap >/run/log 2>&1 &",
			"sv -w 10 up /run/service/gportmap", "sv hup /run/service/gportmap", "sv -w 10 down /run/service/gportmap",
			"sv status /run/service/gportmap | grep -q ^down:"},
		{"s6", "s6-supervise", "cp -R %s/s6/gportmap /run/service", "s6-supervise /run/service/gportmap >/run/log 2>&1 &",
			"s6-svc -u /run/service/gportmap", "s6-svc -h /run/service/gportmap", "s6-svc -wD -d /run/service/gportmap",
			"s6-svstat /run/service/gportmap | grep -q ^down"},
		{"dinit", "dinit", "cp %s/dinit/gportmap /run/service/gportmap && touch /etc/default/gportmap",
			"dinit --system-mgr=no -d /run/service -p /run/dinitctl gportmap >/run/log 2>&1 &", "dinitctl -p /run/dinitctl start gportmap",
			"gportmap reload", "dinitctl -p /run/dinitctl stop gportmap",
			"dinitctl -p /run/dinitctl status gportmap | grep -q 'State: STOPPED'"},
	}
}

type supervisor struct{ name, program, install, supervise, up, hup, down, isDown string }

// TestSupervisors runs the services of init/: one that is killed comes again with every registration, one with a wrong option
// isn't started again and again.
func TestSupervisors(t *testing.T) {
	for _, s := range supervisors() {
		t.Run(s.name, func(t *testing.T) {
			if _, err := exec.LookPath(s.program); err != nil {
				t.Skipf("needs %s: apt-get install %s (%v)", s.program, s.name, err)
			}
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
				scripts, err := filepath.Abs("../../init")
				if err != nil {
					t.Fatal(err)
				}
				binary, err := bed.Gportmap.Path()
				if err != nil {
					t.Fatal(err)
				}
				shell(t, "mkdir /run/u /run/w /run/service && mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/u,workdir=/run/w /usr/sbin && "+
					"cp "+binary+" /usr/sbin/gportmap && mount -t tmpfs tmpfs /etc/default").want(t, 0)
				shell(t, strings.ReplaceAll(s.install, "%s", scripts)).want(t, 0)
				runs := func() bool { return shell(t, "gportmap status").code == 0 }
				shell(t, s.supervise).want(t, 0)
				waitUntil(t, "it serves", runs)
				seedRegistrations(t)
				pid := runningPID(t)
				shell(t, s.hup).want(t, 0)
				shell(t, "kill -9 $(cat /run/gportmap.pid)").want(t, 0)
				waitUntil(t, "it serves again", func() bool { return runs() && runningPID(t) != pid })
				seedIntact(t)
				shell(t, s.down).want(t, 0)
				waitUntil(t, "it has stopped", func() bool { return shell(t, "gportmap status").code == 3 })
				shell(t, s.up).want(t, 0)
				waitUntil(t, "it serves once more", runs)
				seedIntact(t)
				shell(t, s.down).want(t, 0)
				shell(t, "echo OPTIONS=--nosuchflag >/etc/default/gportmap").want(t, 0)
				shell(t, s.up)
				waitUntil(t, "the supervisor gives up", func() bool { return shell(t, s.isDown).code == 0 })
				shell(t, "cat /run/log").want(t, 0)
			})
		})
	}
}
