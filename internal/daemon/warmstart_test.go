package daemon_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// services are registrations of several owners on every transport; uid is whose they are.
var services = []struct {
	uid uint32
	rpcbind.RPCB
}{
	{0, rpcbind.RPCB{Program: 100024, Version: 1, Netid: "udp", Addr: "0.0.0.0.182.11"}},
	{0, rpcbind.RPCB{Program: 100024, Version: 1, Netid: "tcp", Addr: "0.0.0.0.172.43"}},
	{0, rpcbind.RPCB{Program: 100024, Version: 1, Netid: "udp6", Addr: "::.201.81"}},
	{0, rpcbind.RPCB{Program: 100024, Version: 1, Netid: "tcp6", Addr: "::.219.7"}},
	{1000, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "127.0.0.1.8.1"}},
	{1000, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "local", Addr: "/run/service.sock"}},
	{0, rpcbind.RPCB{Program: 300002, Version: 3, Netid: "rdma", Addr: "0.0.0.0.78.80"}},
}

// registerServices registers all of services at the system's instance.
func registerServices(t *testing.T) {
	t.Helper()
	gportmap, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		cmd := exec.Command(gportmap, "set", decimal(s.Program), decimal(s.Version), string(s.Netid), s.Addr)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.uid}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", cmd.Args, err, out)
		}
	}
}

// foreign returns what is registered beside the portmapper itself.
func foreign(t *testing.T) []rpcbind.RPCB {
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
	return slices.DeleteFunc(all, func(b rpcbind.RPCB) bool { return b.Program == rpcbind.Program })
}

// shown is what rpcinfo prints of every version.
func shown(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{nil, {"-p"}, {"-s"}} {
		out, err := exec.Command("rpcinfo", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpcinfo %v: %v: %s", args, err, out)
		}
		all.Write(out)
	}
	return all.String()
}

// TestKilledAndRestarted kills the system's instance, with and without privileges, whoever its state directory belongs to.
func TestKilledAndRestarted(t *testing.T) {
	for _, c := range []struct{ name, owner, flag string }{
		{"root", "root", "-f"}, {"Debian's directory", "_rpc", "-f"}, {"no privileges", "_rpc", "-s"}, {"root's directory, no privileges", "root", "-s"},
		{"no directory", "", "-f"}, {"no directory, no privileges", "", "-s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				if c.owner == "" {
					os.RemoveAll("/run/rpcbind")
				} else {
					chown(t, c.owner)
				}
				d := ns.Start(t, bed.Gportmap, c.flag)
				registerServices(t)
				before := foreign(t)
				if len(before) != len(services) {
					t.Errorf("%d registrations, want %d: %v", len(before), len(services), before)
				}
				for range 3 {
					d.Signal(syscall.SIGKILL)
					d.Wait()
					d = ns.Start(t, bed.Gportmap, c.flag)
					if after := foreign(t); !slices.Equal(after, before) {
						t.Errorf("restored\n%v\nwant\n%v", after, before)
					}
				}
				if strings.Contains(d.Log(), "ERROR") || strings.Contains(d.Log(), "WARN") {
					t.Errorf("the log complains:\n%s", d.Log())
				}
			})
		})
	}
}

// chown gives rpcbind's state directory to a user of the service, or skips the test if this host has none.
func chown(t *testing.T, user string) {
	t.Helper()
	if out, err := exec.Command("chown", user, "/run/rpcbind").CombinedOutput(); err != nil {
		t.Skipf("needs a user named %s, as Debian's rpcbind makes it: %s", user, out)
	}
}

// TestThereAndBack goes from rpcbind to gportmap and back, and on again, by SIGTERM and by SIGKILL: rpcinfo shows the same
// all the time.
func TestThereAndBack(t *testing.T) {
	bed.NeedRpcbind(t)
	if _, err := exec.LookPath("rpcinfo"); err != nil {
		t.Skip("needs rpcinfo: apt-get install rpcbind")
	}
	for _, owner := range []string{"_rpc", "root"} {
		t.Run(owner, func(t *testing.T) {
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				first := bed.Rpcbind
				chown(t, "_rpc")
				if owner == "root" { // where no package made the directory for rpcbind
					first = bed.Gportmap
					chown(t, "root")
				}
				d := ns.Start(t, first)
				registerServices(t)
				before, list := shown(t), foreign(t)
				for i, next := range []bed.Subject{bed.Gportmap, bed.Rpcbind, bed.Gportmap, bed.Gportmap, bed.Rpcbind, bed.Rpcbind, bed.Gportmap} {
					if d.Subject == bed.Gportmap && i%2 == 1 {
						d.Signal(syscall.SIGKILL)
						// rpcbind doesn't remove the path that a killed daemon leaves, and can't bind it then.
						d.Wait()
						os.Remove(rpcbind.SocketPath)
					} else {
						d.Signal(syscall.SIGTERM)
						d.Wait()
					}
					d = ns.Start(t, next)
					if after := foreign(t); !slices.Equal(after, list) {
						t.Errorf("step %d, %v has\n%v\nwant\n%v", i, next, after, list)
					}
					if after := shown(t); after != before {
						t.Errorf("step %d, %v: rpcinfo shows\n%s\nwant\n%s", i, next, after, before)
					}
					if next == bed.Gportmap && (strings.Contains(d.Log(), "ERROR") || strings.Contains(d.Log(), "WARN")) {
						t.Errorf("step %d: the log complains:\n%s", i, d.Log())
					}
				}
			})
		})
	}
}

// TestSetReplacesADeadServer is row 8 at work: nobody is bound to the first address, and somebody is to the second.
func TestSetReplacesADeadServer(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Gportmap)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		c, err := rpcbind.DialPortmapper(ctx, "unix", rpcbind.SocketPath)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		alive := listen(t)
		for _, step := range []struct {
			addr string
			want bool
		}{
			{"0.0.0.0.78.80", true}, {alive, true}, {"0.0.0.0.78.80", false}, {"127.0.0.1.78.80", false}, {alive, true},
		} {
			ok, err := c.Set(ctx, rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: step.addr})
			if err != nil || ok != step.want {
				t.Errorf("SET %s: %v, %v; want %v", step.addr, ok, err, step.want)
			}
		}
	})
}

// listen returns the universal address of a TCP socket that is bound until the end of the test.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return rpcbind.UAddr(l.Addr().(*net.TCPAddr).AddrPort())
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
