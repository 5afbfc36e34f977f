package bed_test

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Floating addresses, in the networks of the veth pair.
const (
	vip4 = "10.9.9.100"
	vip6 = "fd09::100"
)

// ip runs ip(8) here, or on the remote host.
func ip(t *testing.T, ns *bed.NS, remote bool, args ...string) {
	t.Helper()
	var out string
	var err error
	if remote {
		out, err = ns.RemoteCommand(t, "ip", args...)
	} else {
		var b []byte
		b, err = exec.Command("ip", args...).CombinedOutput()
		out = string(b)
	}
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// vipAdd and vipDel move the floating addresses as a cluster's resource agent does.
func vipAdd(t *testing.T, ns *bed.NS, remote bool, device string) {
	t.Helper()
	ip(t, ns, remote, "addr", "add", vip4+"/32", "dev", device)
	ip(t, ns, remote, "addr", "add", vip6+"/128", "dev", device, "nodad")
}

func vipDel(t *testing.T, ns *bed.NS, remote bool, device string) {
	t.Helper()
	ip(t, ns, remote, "addr", "del", vip4+"/32", "dev", device)
	ip(t, ns, remote, "addr", "del", vip6+"/128", "dev", device)
}

// TestFreeBind starts with addresses that no interface has. They are answered once one has them, and again after they came back.
func TestFreeBind(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		d := ns.StartBare(t, bed.Gportmap, "-h", vip4)
		if err := d.Wait(); err == nil || !strings.Contains(d.Log(), "--free-bind") {
			t.Fatalf("without free-bind: %v, %s", err, d.Log())
		}
		ns.Start(t, bed.Gportmap, "-h", vip4, "-h", vip6, "--free-bind")
		for netid, addr := range map[string]string{"udp": "0.0.0.0.78.80", "tcp": "0.0.0.0.78.80", "udp6": "::.78.80", "tcp6": "::.78.80"} {
			register(t, ns, 100005, 3, netid, addr)
		}
		for range 2 {
			vipAdd(t, ns, false, bed.HostInterface)
			for _, to := range []string{vip4, vip6} {
				from := bed.From{Remote: true, To: netip.AddrPortFrom(bed.Addr(to), rpcbind.Port)}
				for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6} {
					if (tr == bed.UDP || tr == bed.TCP) != from.To.Addr().Is4() {
						continue
					}
					if got := must(t, ns, tr, from, getAddr(4, 100005, 3, "tcp", "")); !bytes.Contains(got, []byte(to+".78.80")) {
						t.Errorf("%v to %s: %q", tr, to, got)
					}
				}
			}
			vipDel(t, ns, false, bed.HostInterface)
		}
	})
}

// TestFloatingAddress has a gportmap with registrations on each of two hosts, and an address that moves between them. Each host
// calls the other by it: who has the address answers, with its own registrations, from that address.
func TestFloatingAddress(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		path, err := bed.Gportmap.Path()
		if err != nil {
			t.Fatal(err)
		}
		// Node A is the host, by wildcard sockets; node B is the remote host, with a state of its own.
		ns.Start(t, bed.Gportmap)
		register(t, ns, 100005, 3, "udp", "0.0.0.0.8.1")
		dir := t.TempDir() + "/b"
		var b *exec.Cmd
		ns.Remote(t, func() {
			b = exec.Command(path, "-f", "--state-dir", dir, "--port", "111")
			err = b.Start()
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Process.Kill(); b.Wait() })
		onB := func(args ...string) (string, error) {
			return ns.RemoteCommand(t, path, append([]string{args[0], "--socket", dir + "/rpcbind.sock"}, args[1:]...)...)
		}
		waitUntil(t, "node B takes a registration", func() bool {
			_, err := onB("set", "100005", "3", "udp", "0.0.0.0.8.2")
			return err == nil
		})
		ask := func(fromB bool, host string) string {
			args := []string{"getaddr", "--host", host, "100005", "3", "udp"}
			if fromB {
				out, _ := ns.RemoteCommand(t, path, args...)
				return strings.TrimSpace(out)
			}
			out, _ := exec.Command(path, args...).CombinedOutput()
			return strings.TrimSpace(string(out))
		}
		for range 2 {
			vipAdd(t, ns, false, bed.HostInterface) // A has it
			if got := ask(true, vip4); got != vip4+".8.1" {
				t.Errorf("A has the address: B is answered %q", got)
			}
			vipDel(t, ns, false, bed.HostInterface)
			vipAdd(t, ns, true, bed.PeerInterface) // B has it
			ip(t, ns, false, "neigh", "flush", "all")
			if got := ask(false, vip4); got != vip4+".8.2" {
				t.Errorf("B has the address: A is answered %q", got)
			}
			vipDel(t, ns, true, bed.PeerInterface)
			ip(t, ns, true, "neigh", "flush", "all")
		}
		// What is registered stays where it was registered.
		if got := ask(true, bed.HostIPv4); got != bed.HostIPv4+".8.1" {
			t.Errorf("A by its own address: %q", got)
		}
		if got := ask(false, bed.PeerIPv4); got != bed.PeerIPv4+".8.2" {
			t.Errorf("B by its own address: %q", got)
		}
	})
}
