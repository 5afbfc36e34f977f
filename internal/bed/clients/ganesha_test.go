package clients_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// ganeshaConfig exports /run/export over NFSv3 and NFSv4 with every protocol
// beside them, on ports of its own choice so that listings can be compared. The
// %s is for options that only some versions know.
const ganeshaConfig = `
NFS_CORE_PARAM { %s Protocols = 3,4; Enable_NLM = true; Enable_RQUOTA = true;
	NFS_Port = 2049; MNT_Port = 20048; NLM_Port = 20049; Rquota_Port = 20050; }
NFSv4 { Graceless = true; }
EXPORT { Export_Id = 1; Path = /run/export; Pseudo = /export; Protocols = 3,4; Access_Type = RW;
	Squash = None; SecType = sys; FSAL { Name = VFS; } }
`

// TestGanesha runs nfs-ganesha, an NFS server with an RPC library of its own that
// gives up when a registration is refused. What it registers is found by
// rpcinfo and showmount, and goes with it.
func TestGanesha(t *testing.T) {
	requires(t, program{"rpcinfo", "rpcbind"}, program{"ganesha.nfsd", "nfs-ganesha"},
		program{"rpc.statd", "nfs-common"}, program{"showmount", "nfs-common"})
	if found, _ := filepath.Glob("/usr/lib/*/ganesha/libfsalvfs.so"); len(found) == 0 {
		missing(t, "needs nfs-ganesha's VFS back end: apt-get install nfs-ganesha-vfs (no /usr/lib/*/ganesha/libfsalvfs.so)")
	}
	each(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		prepareNFS(t)
		ns.Start(t, s)
		// NLM asks the status monitor about its clients.
		start(t, line("rpc.statd -F --no-notify -p 20051 -o 20052"))
		awaitService(t, ns, "100024 1")
		ganesha := start(t, line("ganesha.nfsd -F -L STDERR -f /run/ganesha/ganesha.conf -p /run/ganesha/pid"))
		awaitService(t, ns, "100011 2") // the last one that it registers
		ganeshaListed(t, ns, record)
		ganeshaAnswers(t, ns, record)
		ganesha.terminate(t)
		for _, words := range []string{"rpcinfo -s", "rpcinfo -p"} {
			left := run(t, ns, line(words))
			record.add(words+" after SIGTERM", left.String())
			for _, name := range []string{"nfs", "mountd", "nlockmgr", "rquotad"} {
				if strings.Contains(left.stdout, name) {
					t.Errorf("%s is still registered after nfs-ganesha's end:\n%s", name, indent(left.stdout))
				}
			}
			if !strings.Contains(left.stdout, "status") {
				t.Errorf("statd's registration went with nfs-ganesha's:\n%s", indent(left.stdout))
			}
		}
	})
}

// prepareNFS makes the directories that nfs-ganesha and statd write to, and the
// configuration.
func prepareNFS(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/run/ganesha", "/run/export"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A file system of its own: nfs-ganesha exports whole ones best.
	mount(t, "tmpfs", "/run/export")
	option := ""
	if knowsOption(t, "allow_set_io_flusher_fail") {
		// Otherwise 6.x refuses to start without CAP_SYS_RESOURCE.
		option = "allow_set_io_flusher_fail = true;"
	}
	if err := os.WriteFile("/run/ganesha/ganesha.conf", fmt.Appendf(nil, ganeshaConfig, option), 0o644); err != nil {
		t.Fatal(err)
	}
	// statd runs, and registers, as the user that owns its directory.
	const state = "/var/lib/nfs"
	info, err := os.Stat(state + "/sm")
	if err != nil {
		t.Fatal(err)
	}
	user := info.Sys().(*syscall.Stat_t)
	mount(t, "tmpfs", state)
	for _, dir := range []string{"sm", "sm.bak", "ganesha", "v4recov", "v4old"} {
		path := filepath.Join(state, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(user.Uid), int(user.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// knowsOption tells whether nfs-ganesha has the option of that name.
func knowsOption(t *testing.T, name string) bool {
	t.Helper()
	files, _ := filepath.Glob("/usr/lib/ganesha/libganesha_nfsd.so*")
	for _, file := range append(files, "/usr/bin/ganesha.nfsd") {
		octets, err := os.ReadFile(file)
		if err == nil && bytes.Contains(octets, []byte(name)) {
			return true
		}
	}
	return false
}

// mount mounts a fresh file system over a directory, in this namespace only.
func mount(t *testing.T, kind, dir string) {
	t.Helper()
	if err := syscall.Mount(kind, dir, kind, syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		t.Fatalf("mount a %s on %s: %v", kind, dir, err)
	}
}

// awaitService waits until rpcinfo reaches a program and version over TCP.
func awaitService(t *testing.T, ns *bed.NS, service string) {
	t.Helper()
	eventually(t, "program "+service+" answers over TCP", func() bool {
		return run(t, ns, line("rpcinfo -T tcp 127.0.0.1 "+service)).code == 0
	})
}

// ganeshaListed checks that every program is listed with all four transports.
func ganeshaListed(t *testing.T, ns *bed.NS, record *transcript) {
	t.Helper()
	for _, words := range []string{"rpcinfo", "rpcinfo -p", "rpcinfo -s 127.0.0.1"} {
		record.add(words+" with nfs-ganesha", run(t, ns, line(words)).String())
	}
	short := run(t, ns, line("rpcinfo -s")).stdout
	for _, want := range []struct{ program, versions, name string }{
		{"100003", "4,3", "nfs"},
		{"100005", "3,1", "mountd"},
		{"100021", "4", "nlockmgr"},
		{"100011", "2,1", "rquotad"},
	} {
		text := fmt.Sprintf("    %s  %-9s tcp6,tcp,udp6,udp %s %-11s superuser\n", want.program, want.versions, strings.Repeat(" ", 14), want.name)
		if !strings.Contains(short, text) {
			t.Errorf("rpcinfo -s lacks\n%s\nin\n%s", indent(text), indent(short))
		}
	}
}

// ganeshaAnswers calls every program through the portmapper, on this host and from
// the remote one.
func ganeshaAnswers(t *testing.T, ns *bed.NS, record *transcript) {
	t.Helper()
	var commands []command
	for _, service := range []string{"100003 3", "100003 4", "100005 1", "100005 3", "100021 4", "100011 1", "100011 2", "100024 1"} {
		for _, on := range []string{"udp 127.0.0.1", "tcp 127.0.0.1", "udp6 ::1", "tcp6 ::1"} {
			commands = append(commands, line("rpcinfo -T "+on+" "+service))
		}
		for _, on := range []string{"udp " + bed.HostIPv4, "tcp6 " + bed.HostIPv6} {
			c := line("rpcinfo -T " + on + " " + service)
			c.remote = true
			commands = append(commands, c)
		}
	}
	for _, c := range commands {
		got := run(t, ns, c)
		record.add(c.String(), got.String())
		checkRpcinfo(t, c.String(), "ready and waiting\n", got)
	}
	remote := line("showmount -e " + bed.HostIPv4)
	remote.remote = true
	for _, c := range []command{line("showmount -e 127.0.0.1"), remote} {
		got := run(t, ns, c)
		record.add(c.String(), got.String())
		checkRpcinfo(t, c.String(), "/run/export (everyone)\n", got)
	}
}
