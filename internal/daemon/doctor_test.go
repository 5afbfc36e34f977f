package daemon

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// diagnose looks at an instance of its own in dir on a port that nobody has.
func diagnose(t *testing.T, dir string, fix bool) Diagnosis {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	return Diagnose(t.Context(), Config{StateDir: dir, Port: uint16(port)}, fix)
}

// finding returns the first finding that has the text, or fails.
func finding(t *testing.T, d Diagnosis, text string) Finding {
	t.Helper()
	i := slices.IndexFunc(d.Findings, func(f Finding) bool { return strings.Contains(f.Text, text) })
	if i < 0 {
		t.Fatalf("no finding with %q: %+v", text, d.Findings)
	}
	return d.Findings[i]
}

func TestDoctorOnTheState(t *testing.T) {
	write := func(t *testing.T, path string, b []byte, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, b, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name     string
		prepare  func(t *testing.T, dir string)
		severity Severity
		text     string
	}{
		{"damaged", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "rpcbind.xdr"), binary.BigEndian.AppendUint32(nil, 1), 0o600)
		}, Warning, "rpcbind.xdr is damaged"},
		{"empty", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "portmap.xdr"), nil, 0o600)
		}, Warning, "portmap.xdr is damaged"},
		{"more behind the end", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "rpcbind.xdr"), make([]byte, 8), 0o600)
		}, Warning, "4 octets behind the end"},
		{"writable file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "rpcbind.xdr"), make([]byte, 4), 0o666)
		}, Warning, "lets others write"},
		{"link", func(t *testing.T, dir string) {
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "rpcbind.xdr")); err != nil {
				t.Fatal(err)
			}
		}, Warning, "not a regular file"},
		{"set aside", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "rpcbind.xdr.damaged"), nil, 0o600)
		}, Warning, "set aside"},
		{"writable directory", func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, Error, "lets others write"},
		{"socket is a file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "rpcbind.sock"), nil, 0o600)
		}, Error, "it is no socket"},
		{"lock is a link", func(t *testing.T, dir string) {
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "rpcbind.lock")); err != nil {
				t.Fatal(err)
			}
		}, Error, "symbolic link"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if d := diagnose(t, dir, false); !d.OK {
				t.Fatalf("an empty directory: %+v", d.Findings)
			}
			c.prepare(t, dir)
			for _, fix := range []bool{false, true} {
				d := diagnose(t, dir, fix)
				f := finding(t, d, c.text)
				if d.OK || f.Severity != c.severity || f.Remedy == "" || f.Fixed {
					t.Errorf("fix %v: %+v", fix, f)
				}
			}
		})
	}
}

func TestDoctorOnTheDirectory(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{link: "symbolic link", filepath.Join(dir, "no", "d"): "no such file"} {
		d := diagnose(t, path, true)
		if f := finding(t, d, text); d.OK || f.Severity != Error || f.Remedy == "" {
			t.Errorf("%s: %+v", path, f)
		}
		if _, err := os.Lstat(filepath.Join(dir, "no")); err == nil {
			t.Errorf("%s was made", path)
		}
	}
}

func TestDoctorRepairsStaleFilesAlone(t *testing.T) {
	dir := t.TempDir()
	pid, lock := filepath.Join(dir, "gportmap.pid"), filepath.Join(dir, "rpcbind.lock")
	state := filepath.Join(dir, "rpcbind.xdr")
	// No process has an id beyond PID_MAX_LIMIT.
	for path, text := range map[string]string{pid: "4194304\n", lock: "", state: "\x00\x00\x00\x00"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := diagnose(t, dir, false)
	if f := finding(t, d, pid); d.OK || f.Severity != Warning || f.Fixed || !strings.Contains(f.Remedy, "--fix") {
		t.Errorf("%+v", f)
	}
	d = diagnose(t, dir, true)
	for _, path := range []string{pid, lock} {
		if f := finding(t, d, path); !d.OK || !f.Fixed {
			t.Errorf("%+v", f)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if _, err := os.Lstat(state); err != nil {
		t.Errorf("the state is gone: %v", err)
	}
}

func TestDoctorOnServicesEnabledTwice(t *testing.T) {
	const wants, units, systemd = "etc/systemd/system/multi-user.target.wants/", "etc/systemd/system/", "run/systemd/system"
	const program, script = "usr/sbin/rpcbind", "../init.d/rpcbind"
	for _, c := range []struct {
		name  string
		links map[string]string // from, to
		want  []string          // parts of the findings; none: nothing is found
	}{
		{"gportmap alone", map[string]string{wants + "gportmap.service": "/lib/systemd/system/gportmap.service", systemd: "/", program: "/bin/true"}, nil},
		{"rpcbind alone", map[string]string{systemd: "/", program: "/bin/true", wants + "rpcbind.service": "/lib/systemd/system/rpcbind.service"}, nil},
		{"both", map[string]string{
			wants + "gportmap.service":                               "/lib/systemd/system/gportmap.service",
			"etc/systemd/system/sockets.target.wants/rpcbind.socket": "/lib/systemd/system/rpcbind.socket",
			systemd: "/", program: "/bin/true",
		}, []string{"sockets.target.wants/rpcbind.socket", "systemctl disable --now rpcbind.socket rpcbind.service"}},
		{"an alias", map[string]string{
			wants + "gportmap.service": "/lib/systemd/system/gportmap.service",
			wants + "rpcbind.service":  "/lib/systemd/system/rpcbind.service",
			units + "rpcbind.service":  "/lib/systemd/system/gportmap.service",
			systemd:                    "/", program: "/bin/true",
		}, nil},
		{"masked", map[string]string{
			wants + "gportmap.service": "/lib/systemd/system/gportmap.service",
			wants + "rpcbind.service":  "/lib/systemd/system/rpcbind.service",
			units + "rpcbind.service":  "/dev/null",
			systemd:                    "/", program: "/bin/true",
		}, nil},
		{"System V", map[string]string{"etc/rc2.d/S01gportmap": "../init.d/gportmap", "etc/rcS.d/S12rpcbind": script, program: "/bin/true"},
			[]string{"/etc/rcS.d/S12rpcbind", "rpcbind "}},
		{"System V's links on a system of systemd's", map[string]string{"etc/rc2.d/S01gportmap": "../init.d/gportmap", "etc/rcS.d/S01rpcbind": script,
			program: "/bin/true", systemd: "/"}, nil},
		{"links of a package that was removed, whose name is gportmap's", map[string]string{"etc/rc2.d/S01gportmap": "../init.d/gportmap",
			"etc/rcS.d/S01rpcbind": script, program: "gportmap", "usr/sbin/gportmap": "/bin/true"}, nil},
		{"links of a package that was removed", map[string]string{"etc/rc2.d/S01gportmap": "../init.d/gportmap", "etc/rcS.d/S01rpcbind": script}, nil},
		{"OpenRC", map[string]string{"run/openrc": "/", "sbin/portmap": "/bin/true", "etc/runlevels/default/gportmap": "/etc/init.d/gportmap", "etc/runlevels/default/portmap": "/etc/init.d/portmap"},
			[]string{"/etc/runlevels/default/portmap", "rc-update delete portmap"}},
	} {
		root := t.TempDir()
		for from, to := range c.links {
			from = filepath.Join(root, from)
			if err := os.MkdirAll(filepath.Dir(from), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, from); err != nil {
				t.Fatal(err)
			}
		}
		d := &doctor{root: root}
		d.services()
		if (len(d.findings) > 0) != (c.want != nil) {
			t.Errorf("%s: %+v", c.name, d.findings)
			continue
		}
		for _, w := range c.want {
			if f := d.findings[0]; f.Severity != Warning || !strings.Contains(f.Text+f.Remedy, w) {
				t.Errorf("%s: %+v lacks %q", c.name, f, w)
			}
		}
	}
}
