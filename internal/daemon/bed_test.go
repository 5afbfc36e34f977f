package daemon_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func TestMain(m *testing.M) { bed.Main(m) }

// limit bounds what should come at once; only a failing test waits so long.
const limit = 20 * time.Second

// eventually asks again until the answer is yes.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !ask() {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// netids returns what the system's instance has registered for itself, as in "tcp udp local", each once.
func netids(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "unix", rpcbind.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, b := range all {
		if b.Version == rpcbind.RPCBVers4 {
			list = append(list, string(b.Netid))
		}
	}
	return strings.Join(list, " ")
}

func TestWithoutIPv6(t *testing.T) {
	bed.InNamespace(t, bed.Options{NoIPv6: true}, func(t *testing.T, ns *bed.NS) {
		d := ns.Start(t, bed.Gportmap)
		if got := netids(t); got != "tcp udp local" {
			t.Errorf("serves %s, want tcp udp local", got)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(d.Log(), "IPv6"); n != 1 {
			t.Errorf("%d lines about IPv6, want 1:\n%s", n, d.Log())
		}
	})
}

func TestHost(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Gportmap, "-h", bed.HostIPv4)
		call := bed.NullCall(7, 100000, 2)
		for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6, bed.Unix} {
			if _, err := ns.Call(t, tr, bed.From{}, call); err != nil {
				t.Errorf("%s from this host: %v", tr, err)
			}
		}
		for _, tr := range []bed.Transport{bed.UDP, bed.TCP} {
			if _, err := ns.Call(t, tr, bed.From{Remote: true}, call); err != nil {
				t.Errorf("%s from the other host: %v", tr, err)
			}
		}
		if out, err := exec.Command("ss", "-Hlntu", "sport = :111").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 6 ||
			strings.Contains(string(out), "0.0.0.0:111") || strings.Contains(string(out), "[::]:111 ") {
			t.Errorf("listening sockets, %v:\n%s\nwant two each on 127.0.0.1, ::1 and %s", err, out, bed.HostIPv4)
		}
	})
}

// TestDropPrivileges also starts again over what a daemon without privileges can't remove.
func TestDropPrivileges(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		for range 2 {
			d := ns.Start(t, bed.Gportmap, "-s")
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(string(status), "\n") {
				f := strings.Fields(line)
				if len(f) > 1 && (f[0] == "Uid:" || f[0] == "CapPrm:" || f[0] == "CapEff:") {
					zero := strings.Trim(f[1], "0") == "" // root, or no capability
					if zero == (f[0] == "Uid:") {
						t.Errorf("%s", line)
					}
				}
			}
			if _, err := ns.Call(t, bed.UDP, bed.From{}, bed.NullCall(7, 100000, 2)); err != nil {
				t.Error(err)
			}
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

// register registers with the system's instance.
func register(t *testing.T, b rpcbind.RPCB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := rpcbind.DialPortmapper(ctx, "unix", rpcbind.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := c.Set(ctx, b); err != nil || !ok {
		t.Fatalf("SET: %v, %v", ok, err)
	}
}

// processStatus returns the fields of /proc/PID/status.
func processStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		name, values, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(values), " ")
	}
	return fields
}

// TestServiceUser looks at the system's instance as root starts it without -s: once it serves it is another user, without a
// capability. What it may not remove at its end is stale for the next start and for status, which clears it.
func TestServiceUser(t *testing.T) {
	if bed.RaceEnabled {
		t.Skip("a program with the race detector has cgo and can't be kept from new privileges; make test runs this without it as well")
	}
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		for _, want := range []string{"tcp udp local", "tcp udp local local"} {
			d := ns.Start(t, bed.Gportmap)
			var fields map[string]string
			eventually(t, "it is confined", func() bool {
				fields = processStatus(t, d.PID())
				return fields["NoNewPrivs"] == "1"
			})
			uid, _, _ := strings.Cut(fields["Uid"], " ")
			if uid == "0" || fields["Uid"] != strings.TrimSpace(strings.Repeat(uid+" ", 4)) || fields["Groups"] != "" {
				t.Errorf("Uid: %s; Groups: %s", fields["Uid"], fields["Groups"])
			}
			const none = "0000000000000000"
			if fields["CapPrm"] != none || fields["CapEff"] != none || fields["CapInh"] != none {
				t.Errorf("capabilities %s, %s, %s", fields["CapPrm"], fields["CapEff"], fields["CapInh"])
			}
			if got := netids(t); strings.ReplaceAll(strings.ReplaceAll(got, "tcp6 ", ""), "udp6 ", "") != want {
				t.Errorf("registered: %s, want %s", got, want)
			}
			register(t, rpcbind.RPCB{Program: 400000, Version: rpcbind.RPCBVers4, Netid: "local", Addr: "/run/some.sock"})
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
			for _, path := range []string{"/run/rpcbind/gportmap.lock", "/run/rpcbind/gportmap.sock"} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("left behind in its own directory: %s", path)
				}
			}
		}
		st, err := daemon.Look(t.Context(), daemon.Config{})
		if err != nil || st.State != daemon.StateStopped || len(st.Stale) != 0 {
			t.Errorf("status: %+v, %v", st, err)
		}
		for _, path := range []string{"/run/rpcbind.lock", "/run/gportmap.pid", rpcbind.SocketPath, "/var/lock/subsys/gportmap"} {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("status left behind: %s", path)
			}
		}
	})
}

// TestMulticastGroup looks at what the kernel lists as joined, on an interface that was there and on one that comes later.
func TestMulticastGroup(t *testing.T) {
	bed.InNamespace(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Gportmap)
		joined := func(device string) func() bool {
			return func() bool {
				groups, err := os.ReadFile("/proc/net/igmp6")
				if err != nil {
					t.Fatal(err)
				}
				for _, line := range strings.Split(string(groups), "\n") {
					if f := strings.Fields(line); len(f) > 2 && f[1] == device && f[2] == "ff020000000000000000000000000202" {
						return true
					}
				}
				return false
			}
		}
		if !joined(bed.HostInterface)() {
			t.Errorf("ff02::202 isn't joined on %s when the daemon is ready", bed.HostInterface)
		}
		for _, step := range []string{"ip link add later0 type veth peer name later1", "ip link set later0 up", "ip link set later1 up"} {
			f := strings.Fields(step)
			if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", step, err, out)
			}
		}
		eventually(t, "ff02::202 joined on an interface that came later", joined("later0"))
	})
}
