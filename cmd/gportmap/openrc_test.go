package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenRCRestartWithAWrongConfiguration runs init/openrc/gportmap's functions with stand-ins of openrc-run's, in its order: stop_pre
// decides whether a restart stops the daemon that runs.
func TestOpenRCRestartWithAWrongConfiguration(t *testing.T) {
	script, err := filepath.Abs("../../init/openrc/gportmap")
	if err != nil {
		t.Fatal(err)
	}
	a := instanceFor(t)
	path := configFile(t, "exposure = \"lan\"\n")
	run := func(command string) (code int, output string) {
		t.Helper()
		// What supervise-daemon would start is started in the background here.
		const openrc = `set -u; ebegin() { :; }; eend() { return "$1"; }; service_started() { return 1; }
RC_SVCNAME=gportmap RC_CMD=$1; . "$2"
start() { gportmap >/dev/null; }
stop() { :; }
case $1 in
start) start_pre && start && start_post ;;
restart) stop_pre && stop && stop_post && start_pre && start && start_post ;;
stop) stop_pre && stop && stop_post ;;
*) "$1" ;;
esac`
		cmd := exec.Command("sh", "-c", openrc, "sh", command, script)
		cmd.Env = append(os.Environ(), "GPORTMAP="+os.Getenv(binaryEnv), "GPORTMAP_OPTS="+strings.Join(a.args("--config", path), " "))
		code, stdout, stderr := finish(t, cmd)
		return code, stdout + stderr
	}
	if code, out := run("start"); code != 0 {
		t.Fatalf("start: %d, %s", code, out)
	}
	pid := a.holderOf(t)
	if err := os.WriteFile(path, []byte("expsure = \"lan\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"restart", "reload"} {
		if code, out := run(command); code == 0 || !strings.Contains(out, "expsure") {
			t.Errorf("%s with a wrong configuration: %d, %s", command, code, out)
		}
		if now := a.holderOf(t); now != pid {
			t.Errorf("%s with a wrong configuration: pid %d, was %d", command, now, pid)
		}
	}
	a.ask(t)
	if code, out := run("stop"); code != 0 {
		t.Errorf("stop with a wrong configuration: %d, %s", code, out)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"start", "restart", "stop"} {
		if code, out := run(command); code != 0 {
			t.Errorf("%s: %d, %s", command, code, out)
		}
	}
	a.gone(t)
}
