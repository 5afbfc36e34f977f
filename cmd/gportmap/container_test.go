package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// containerScript runs the program as the image of docs/container does, without a container engine: a root that has
// nothing else and is read-only, a tmpfs on /run, an unprivileged user without capabilities, a network of its own in which
// that user may bind port 111, as engines let it, and a port of the host that is mapped to it for another host.
const containerScript = `set -e
root=$1; shift
ip link set lo up
ip link add eth0 type veth peer name eth1
unshare -n sleep 30 & other=$!
trap 'kill $other $daemon 2>/dev/null' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep .01; done
ip link set eth1 netns $other
ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up
nsenter -t $other -n sh -c 'ip addr add 192.0.2.2/24 dev eth1; ip link set eth1 up; ip link set lo up'
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
nft 'add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }'
nft add rule ip nat pre tcp dport 2111 redirect to :111
nft add rule ip nat pre udp dport 2111 redirect to :111
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid,nodev "$root"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/run"
! touch "$root/x" 2>/dev/null
env -i PATH="$PATH" setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \
  chroot --userspec=65534:65534 "$root" "$@" & daemon=$!
tries=0
until "$root/gportmap" list --host 127.0.0.1 >/dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt 300 ]; sleep .05; done
grep -E '^(Uid|CapEff|CapPrm|NoNewPrivs)' /proc/$daemon/status
env -i PATH="$PATH" setpriv --reuid 65534 --regid 65534 --clear-groups "$root/gportmap" set --socket "$root/run/gportmap/rpcbind.sock" 300000 1 tcp 0.0.0.0.8.1
nsenter -t $other -n "$root/gportmap" getaddr --host 192.0.2.1:2111 300000 1 tcp
nsenter -t $other -n "$root/gportmap" list --host 192.0.2.1:2111 | grep ' 2049 '
kill $daemon; wait $daemon
echo ended $?
`

func TestContainer(t *testing.T) {
	for _, tool := range []string{"unshare", "nsenter", "setpriv", "nft", "ip", "chroot"} {
		if _, err := exec.LookPath(tool); err != nil || os.Getuid() != 0 {
			if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
				t.Fatalf("needs root and %s", tool)
			}
			t.Skipf("needs root and %s", tool)
		}
	}
	root := t.TempDir()
	for path := root; path != "/" && path != os.TempDir(); path = filepath.Dir(path) {
		os.Chmod(path, 0o755) // for the unprivileged user
	}
	if err := os.Mkdir(filepath.Join(root, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "gportmap"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	code, stdout, stderr := finish(t, exec.Command("unshare", append([]string{"-mn", "sh", "-c", containerScript, "sh", root}, entryPoint(t)...)...))
	for _, want := range []string{`Uid:\s+65534\s+65534`, `CapPrm:\s+0+\n`, `CapEff:\s+0+\n`, `NoNewPrivs:\s+1`, `(?m)^192\.0\.2\.1\.8\.1$`, `300000 .* 65534 `, `(?m)^ended 0$`} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("exit code %d, no %s in\n%s\n%s", code, want, stdout, stderr)
		}
	}
}

// entryPoint returns the command of the image.
func entryPoint(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\nENTRYPOINT [")
	if !ok {
		t.Fatal("the Dockerfile has no ENTRYPOINT")
	}
	rest, _, _ = strings.Cut(rest, "]")
	var words []string
	for _, w := range strings.Split(rest, ",") {
		words = append(words, strings.Trim(w, ` "`))
	}
	return words
}
