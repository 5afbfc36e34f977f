package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

func TestComplete(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		config       Config
		socket, lock string
		port         uint16
	}{
		{"defaults", Config{}, "/run/rpcbind.sock", "/run/rpcbind/gportmap.lock", 111},
		{"instance", Config{StateDir: "/x", Port: 1111}, "/x/rpcbind.sock", "/x/rpcbind.lock", 1111},
		{"socket", Config{Socket: "/y.sock"}, "/y.sock", "/run/rpcbind/gportmap.lock", 111},
		{"instance and socket", Config{StateDir: "/x", Socket: "/y.sock"}, "/y.sock", "/x/rpcbind.lock", 111},
		{"relative", Config{StateDir: "x", Socket: "./y.sock"}, filepath.Join(cwd, "y.sock"), filepath.Join(cwd, "x/rpcbind.lock"), 111},
		{"longest", Config{Socket: "/" + strings.Repeat("s", 106)}, "/" + strings.Repeat("s", 106), "/run/rpcbind/gportmap.lock", 111},
	} {
		got, err := c.config.complete()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.Socket != c.socket || got.lockPath() != c.lock || got.Port != c.port || got.Log == nil {
			t.Errorf("%s: socket %s, lock %s, port %d; want %s, %s, %d", c.name, got.Socket, got.lockPath(), got.Port, c.socket, c.lock, c.port)
		}
	}
	for _, socket := range []string{"@abstract", "/" + strings.Repeat("s", 107)} {
		if _, err := (Config{Socket: socket}).complete(); ExitCode(err) != ExitUsage || !strings.Contains(err.Error(), socket) {
			t.Errorf("socket %s: %v, want a usage error that names it", socket, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	ipv6 := sys.IPv6Available()
	for _, c := range []struct {
		name  string
		hosts string // separated by spaces
		want  string
		needs bool // needs IPv6
	}{
		{"none", "", "0.0.0.0 ::", true},
		{"loopback", "127.0.0.1", "127.0.0.1 ::1", true},
		{"loopback 6", "::1", "::1 127.0.0.1", true},
		{"another and twice", "127.0.0.2 127.0.0.2", "127.0.0.2 127.0.0.1 ::1", true},
		{"mapped", "::ffff:127.0.0.2", "127.0.0.2 127.0.0.1 ::1", true},
		{"a wildcard covers its family", "127.0.0.2 0.0.0.0", "0.0.0.0 ::1", true},
		{"both wildcards", "0.0.0.0 ::", "0.0.0.0 ::", true},
		{"without IPv6", "", "0.0.0.0", false},
		{"loopback without IPv6", "127.0.0.1", "127.0.0.1", false},
	} {
		if c.needs && !ipv6 {
			t.Logf("%s: left out: this host has no IPv6", c.name)
			continue
		}
		var hosts []netip.Addr
		for _, h := range strings.Fields(c.hosts) {
			hosts = append(hosts, netip.MustParseAddr(h))
		}
		got, err := addresses(Config{Hosts: hosts}, c.needs)
		if text := strings.Trim(fmt.Sprint(got), "[]"); err != nil || text != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, text, err, c.want)
		}
	}
}

func TestUnusableAddresses(t *testing.T) {
	// 192.0.2.0/24 and 2001:db8::/32 are documentation's: no host has them.
	for _, c := range []struct {
		host string
		ipv6 bool
		want string
	}{
		{"192.0.2.77", true, "isn't an address of this host"},
		{"2001:db8::77", false, "no IPv6"},
		{"fe80::77", true, "needs its interface"},
	} {
		a := netip.MustParseAddr(c.host)
		if a.Is6() && c.ipv6 && !sys.IPv6Available() {
			t.Logf("%s: left out: this host has no IPv6", c.host)
			continue
		}
		_, err := addresses(Config{Hosts: []netip.Addr{netip.MustParseAddr("127.0.0.1"), a}}, c.ipv6)
		if ExitCode(err) != ExitConfig || !strings.Contains(err.Error(), c.host) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (exit code %d), want %q and exit code %d", c.host, err, ExitCode(err), c.want, ExitConfig)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), ExitSystem},
		{WithExitCode(ExitConfig, errors.New("x")), ExitConfig},
		{fmt.Errorf("wrapped: %w", WithExitCode(ExitUsage, errors.New("x"))), ExitUsage},
		{byCause(ExitCantCreate, errors.New("x")), ExitCantCreate},
		{byCause(ExitCantCreate, &instance.RunningError{}), ExitRunning},
		{byCause(ExitSystem, os.NewSyscallError("bind", syscall.EADDRINUSE)), ExitUnavailable},
		{byCause(ExitSystem, os.NewSyscallError("bind", syscall.EACCES)), ExitPermission},
		{byCause(ExitSystem, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)), ExitConfig},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWithoutActivation(t *testing.T) {
	got := withoutActivation([]string{"A=1", "LISTEN_PID=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=x", backgroundEnv + "=3", "LISTEN_PIDS=7"})
	if strings.Join(got, " ") != "A=1 LISTEN_PIDS=7" {
		t.Errorf("%q", got)
	}
}

func TestProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "rpcbind")
	other := filepath.Join(dir, "other")
	if err := errors.Join(os.Symlink(self, link), os.WriteFile(other, []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for _, c := range []struct{ name, arg, want string }{
		{"by path", link, link},
		{"by PATH", "rpcbind", link},
		{"another program of that name", "other", self},
		{"nothing of that name", "nothing", self},
		{"empty", "", self},
	} {
		if got, err := program(c.arg); got != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", c.name, got, err, c.want)
		}
	}
}

func TestEndOfTheProcessInTheBackground(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		told   bool // by this process; else the other one has told already
	}{
		{"exit 69", ExitUnavailable, false},
		{"exit 0", ExitSystem, true},
		{"exit 2", ExitInternal, true},
		{"kill -9 $$", ExitInternal, true},
	} {
		code, err := endOf(exec.Command("sh", "-c", c.script).Run())
		if code != c.code || (err != nil) != c.told {
			t.Errorf("%s: %d, %v; want %d", c.script, code, err, c.code)
		}
	}
}
