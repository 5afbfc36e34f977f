package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// unitDir is where our units of systemd's are.
const unitDir = "../../init/systemd"

// analyze returns systemd-analyze, or skips the test.
func analyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err == nil {
		return path
	}
	if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
		t.Fatal("GPORTMAP_REQUIRE_ALL=1, but there is no systemd-analyze, of Debian's package systemd")
	}
	t.Skip("needs systemd-analyze, of Debian's package systemd")
	return ""
}

// TestUnitsAreValid has systemd read the units as they are, but for programs that aren't installed here.
func TestUnitsAreValid(t *testing.T) {
	program := analyze(t)
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(unitDir, "*.s*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("units: %q, %v; want 5", files, err)
	}
	var units []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, filepath.Base(file))
		text := strings.NewReplacer("=/usr/sbin/gportmap ", "="+os.Getenv(binaryEnv)+" ", "=+/usr/sbin/gportmap ", "=+"+os.Getenv(binaryEnv)+" ",
			"=/sbin/apparmor_parser ", "=/bin/true ").Replace(string(b))
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	cmd := exec.Command(program, append([]string{"verify", "--man=no"}, units...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_COLOR=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze verify: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "Unknown key 'RestartMode'") || strings.Contains(line, "Unknown key name 'RestartMode'") {
			continue // systemd before 254
		}
		// A machine that is tested on may have rpcbind's units, and broken ones of others.
		if (strings.Contains(line, "gportmap") || strings.Contains(line, "rpcbind")) && !strings.Contains(line, "Cannot add dependency job") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
}

// TestServiceIsConfined holds the service to the exposure that it was made for: Debian's rpcbind.service has 9.5.
func TestServiceIsConfined(t *testing.T) {
	program := analyze(t)
	out, err := exec.Command(program, "security", "--no-pager", "--offline=true", filepath.Join(unitDir, "rpcbind.service")).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "unrecognized option") {
			t.Skipf("needs systemd-analyze security --offline, of systemd 250: %s", out)
		}
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	level := regexp.MustCompile(`exposure level for rpcbind\.service: ([0-9.]+)`).FindSubmatch(out)
	if level == nil {
		t.Fatalf("systemd-analyze security tells no level:\n%s", out)
	}
	if exposure, err := strconv.ParseFloat(string(level[1]), 64); err != nil || exposure > 1.2 {
		t.Errorf("exposure %s, want at most 1.2:\n%s", level[1], out)
	}
}

// TestUnitsSayWhatTheDaemonServes compares the addresses of the socket units with those that the daemon binds by itself.
func TestUnitsSayWhatTheDaemonServes(t *testing.T) {
	want := map[string][]string{
		"rpcbind.socket": {"ListenStream=/run/rpcbind.sock", "ListenStream=0.0.0.0:111", "ListenDatagram=0.0.0.0:111",
			"ListenStream=[::]:111", "ListenDatagram=[::]:111", "BindIPv6Only=ipv6-only"},
		// Any user can take the name: that fails alone.
		"gportmap-abstract.socket": {"ListenStream=@/run/rpcbind.sock"},
	}
	for unit, lines := range want {
		b, err := os.ReadFile(filepath.Join(unitDir, unit))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "Listen") || strings.HasPrefix(line, "BindIPv6Only") {
				got = append(got, line)
			}
		}
		for _, line := range lines {
			if !strings.Contains("\n"+strings.Join(got, "\n")+"\n", "\n"+line+"\n") {
				t.Errorf("%s lacks %s", unit, line)
			}
		}
		if len(got) != len(lines) {
			t.Errorf("%s has %q, want %q", unit, got, lines)
		}
	}
}
