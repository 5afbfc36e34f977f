package instance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// id is a container's.
const id = "4f66b4bb0a5d3b3d2e1e8b3f5ad0f7b6f1f0a9c6b1d6a2e1c7c0f8f0a1b2c3d4"

// Texts as those programs make them, shortened to the lines that differ.
func TestParseOrigin(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Origin
	}{
		{"systemd, unified", "0::/system.slice/rpcbind.service\n", Origin{Unit: "rpcbind.service"}},
		{"systemd, legacy", "12:pids:/system.slice/rpcbind.service\n11:memory:/\n1:name=systemd:/system.slice/rpcbind.service\n",
			Origin{Unit: "rpcbind.service"}},
		{"systemd, hybrid", "5:cpu,cpuacct:/\n1:name=systemd:/system.slice/rpcbind.service\n0::/system.slice/rpcbind.service\n",
			Origin{Unit: "rpcbind.service"}},
		{"system v script under systemd", "0::/system.slice/portmap.service\n", Origin{Unit: "portmap.service"}},
		{"instance of a template", "0::/system.slice/system-rpc.slice/rpc@a\\x2db.service\n", Origin{Unit: "rpc@a-b.service"}},
		{"service with subgroups", "0::/system.slice/foo.service/workers/7\n", Origin{Unit: "foo.service"}},
		{"login session", "0::/user.slice/user-1000.slice/session-3.scope\n", Origin{Unit: "session-3.scope"}},
		{"user's service", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/portmap.service\n",
			Origin{Unit: "portmap.service", User: "1000"}},
		{"user's manager", "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", Origin{Unit: "init.scope", User: "1000"}},
		{"manager's own unit", "0::/user.slice/user-1000.slice/user@1000.service\n", Origin{Unit: "user@1000.service"}},
		{"systemd itself", "0::/init.scope\n", Origin{Unit: "init.scope"}},
		{"without systemd", "0::/\n", Origin{}},
		{"without systemd, legacy", "9:name=systemd:/\n8:pids:/\n4:memory:/jobs/7\n0::/\n", Origin{}},
		{"seen from a cgroup namespace", "0::/../rpcbind.service\n", Origin{Unit: "rpcbind.service"}},
		{"openrc", "0::/openrc.rpcbind\n", Origin{}},

		{"docker, systemd driver, unified", "0::/system.slice/docker-" + id + ".scope\n", Origin{Runtime: "docker", Container: id}},
		{"docker, cgroupfs driver, legacy", "3:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n",
			Origin{Runtime: "docker", Container: id}},
		{"docker without name=systemd", "3:memory:/docker/" + id + "\n0::/\n", Origin{Runtime: "docker", Container: id}},
		{"docker in docker", "0::/docker/" + strings.Repeat("0", 64) + "/docker/" + id + "\n", Origin{Runtime: "docker", Container: id}},
		{"docker's daemon", "0::/system.slice/docker.service\n", Origin{Unit: "docker.service"}},
		{"systemd in docker", "0::/system.slice/docker-" + id + ".scope/system.slice/rpcbind.service\n",
			Origin{Unit: "rpcbind.service", Runtime: "docker", Container: id}},
		{"podman", "0::/machine.slice/libpod-" + id + ".scope/container\n", Origin{Runtime: "podman", Container: id}},
		{"podman, rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope/container\n",
			Origin{Unit: "libpod-" + id + ".scope", User: "1000"}},
		{"a user's idea of docker", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker/" + id + "\n",
			Origin{Unit: "user@1000.service"}},
		{"podman, cgroupfs", "0::/libpod_parent/libpod-" + id + "\n", Origin{Runtime: "podman", Container: id}},
		{"podman's monitor", "0::/machine.slice/libpod-conmon-" + id + ".scope\n", Origin{Unit: "libpod-conmon-" + id + ".scope"}},
		{"kubernetes, containerd, systemd driver", "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0a1b_2c.slice/cri-containerd-" +
			id + ".scope\n", Origin{Runtime: "kubernetes", Container: id}},
		{"kubernetes, cgroupfs driver", "4:memory:/kubepods/burstable/pod0a1b-2c/" + id + "\n", Origin{Runtime: "kubernetes", Container: id}},
		{"kubernetes, colons", "0::/system.slice/containerd.service/kubepods-burstable-pod0a1b.slice:cri-containerd:" + id + "\n",
			Origin{Runtime: "kubernetes", Container: id}},
		{"kubernetes, cri-o", "0::/kubepods.slice/kubepods-pod0a1b.slice/crio-" + id + ".scope\n", Origin{Runtime: "kubernetes", Container: id}},
		{"lxc, legacy", "1:name=systemd:/lxc/101/ns/system.slice/rpcbind.service\n",
			Origin{Unit: "rpcbind.service", Runtime: "lxc", Container: "101"}},
		{"lxc, unified", "0::/lxc.payload.web/system.slice/rpcbind.service\n", Origin{Unit: "rpcbind.service", Runtime: "lxc", Container: "web"}},
		{"nspawn", "0::/machine.slice/systemd-nspawn@deb\\x2d12.service/payload/system.slice/rpcbind.service\n",
			Origin{Unit: "rpcbind.service", Runtime: "nspawn", Container: "deb-12"}},
		{"nspawn by hand", "1:name=systemd:/machine.slice/machine-deb.scope/system.slice/rpcbind.service\n",
			Origin{Unit: "rpcbind.service", Runtime: "nspawn", Container: "deb"}},
		{"virtual machine", "0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator\n", Origin{Unit: "machine-qemu-1-vm.scope"}},
		{"another runtime", "4:memory:/garden/" + id + "\n", Origin{Runtime: "container", Container: id}},

		{"empty", "", Origin{}},
		{"noise", "x\n::\n0:\n:::::\n0::", Origin{}},
	} {
		if got := parseOrigin(c.text); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestUnescapeUnit(t *testing.T) {
	for name, want := range map[string]string{
		"a.service": "a.service", `a\x2db`: "a-b", `\x2f`: "/", `\x2`: `\x2`, `\xzz1`: `\xzz1`, `\`: `\`, `a\\x2d`: `a\-`, "": "",
	} {
		if got := unescapeUnit(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// TestVerifiedOrigin: a user to whom root gave a control group names what is in it, and nothing else.
func TestVerifiedOrigin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes control groups")
	}
	dir := hierarchy("")
	given := "gportmap-test-" + strconv.Itoa(os.Getpid()) + ".service"
	if err := os.Mkdir(filepath.Join(dir, given), 0o755); err != nil {
		t.Skipf("needs control groups version 2 that may be made: %v", err)
	}
	t.Cleanup(func() { os.Remove(filepath.Join(dir, given)) })
	const name = "docker-" + id + ".scope"
	if err := os.Mkdir(filepath.Join(dir, given, name), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(filepath.Join(dir, given, name)) })
	text := "0::/" + given + "/" + name + "\n"
	if got, want := verifiedOrigin(text), (Origin{Runtime: "docker", Container: id}); got != want {
		t.Errorf("made by root: %+v, want %+v", got, want)
	}
	if err := os.Chown(filepath.Join(dir, given), alice, alice); err != nil {
		t.Fatal(err)
	}
	if got, want := verifiedOrigin(text), (Origin{Unit: given}); got != want {
		t.Errorf("in a user's group: %+v, want %+v", got, want)
	}
	if got, want := verifiedOrigin("0::/gportmap-test-none/"+name+"\n"), (Origin{}); got != want {
		t.Errorf("in a group that isn't there: %+v, want %+v", got, want)
	}
}
