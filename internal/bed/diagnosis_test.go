package bed_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// holdPort makes a plain process of that user hold TCP port 111 of every IPv4 address, and returns its pid.
func holdPort(t *testing.T, uid uint32) int {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // which has a socket below it, with an owner of its own
	l, err := plain.Listen(t.Context(), "tcp4", "0.0.0.0:111")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	// A socket belongs to who owns its inode.
	if err := f.Chown(int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	f.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// notHalfStarted fails if anything of a start that failed is left, which another portmapper could trip over.
func notHalfStarted(t *testing.T) {
	t.Helper()
	for _, path := range []string{pidFile, subsysLock, "/run/rpcbind.lock", "/run/rpcbind.sock"} {
		if present(path) {
			t.Errorf("%s was left behind", path)
		}
	}
	u, err := net.ListenPacket("udp4", "0.0.0.0:111")
	if err != nil {
		t.Errorf("the UDP port isn't free: %v", err)
		return
	}
	u.Close()
}

// TestPortHeldByAPlainProcess: all or nothing, and who has the port is named with the command that frees it.
func TestPortHeldByAPlainProcess(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		subsysDirectory(t)
		pid := holdPort(t, 1234)
		remedy := fmt.Sprintf("kill %d", pid)
		who := fmt.Sprintf("tcp 0.0.0.0:111 is held by sleep (pid %d, user 1234, ", pid)
		for _, start := range []string{"gportmap", "gportmap -f"} {
			shell(t, start).oneLine(t).want(t, 69, "address already in use", who, "`sleep 1000`", "remedy: "+remedy)
			notHalfStarted(t)
		}
		shell(t, "gportmap doctor").want(t, 1, "error    sockets: "+who, "remedy: "+remedy)
		notHalfStarted(t)

		var d struct {
			OK       bool
			Findings []struct{ Severity, Subject, Text, Remedy string }
		}
		if err := json.Unmarshal([]byte(shell(t, "gportmap doctor --json").want(t, 1).stdout), &d); err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(d.Findings, func(f struct{ Severity, Subject, Text, Remedy string }) bool {
			return f.Severity == "error" && f.Subject == "sockets" && strings.Contains(f.Text, who) && f.Remedy == remedy
		})
		if d.OK || !found {
			t.Errorf("%+v", d)
		}

		// Who may not look into the process learns whose it is, and that root sees more.
		const directory = "/run/own"
		if err := os.Mkdir(directory, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(directory, 4321, 4321); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		unprivileged := shellAs(t, 4321, "gportmap --state-dir "+directory+"/d --port 111").oneLine(t)
		unprivileged.want(t, 69, "tcp 0.0.0.0:111 is held by a process of user 1234 that only root can look into", "ss -lnp 'sport = :111'")
		shellAs(t, 4321, "gportmap doctor --state-dir "+directory+"/d").want(t, 1, "of user 1234 that only root can look into")

		// The remedy is one.
		shell(t, remedy).want(t, 0)
		syscall.Wait4(pid, nil, 0, nil)
		shell(t, "gportmap").want(t, 0)
	})
}

// TestPortHeldOutsideThePIDNamespace: a container that shares the host's network sees the port, and not the process.
func TestPortHeldOutsideThePIDNamespace(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		if _, err := exec.LookPath("unshare"); err != nil {
			t.Skipf("needs unshare(1): apt-get install util-linux (%v)", err)
		}
		holdPort(t, 0)
		shell(t, "unshare --pid --fork --mount-proc gportmap -f").oneLine(t).want(t, 69,
			"tcp 0.0.0.0:111 is held outside this pid namespace", "look on the host")
		shell(t, "unshare --pid --fork --mount-proc gportmap doctor").want(t, 1, "outside this pid namespace", "look on the host")
		notHalfStarted(t)
	})
}

// TestLockHeldOutsideThePIDNamespace: the same for a portmapper, where the host's /run is shared.
func TestLockHeldOutsideThePIDNamespace(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		if _, err := exec.LookPath("unshare"); err != nil {
			t.Skipf("needs unshare(1): apt-get install util-linux (%v)", err)
		}
		shell(t, "gportmap").want(t, 0)
		shell(t, "unshare --pid --fork --mount-proc gportmap -f").oneLine(t).want(t, 75, "already running", "namespace")
		shell(t, "unshare --pid --fork --mount-proc gportmap status").want(t, 0, "running")
		shell(t, "unshare --pid --fork --mount-proc gportmap stop").want(t, 77, "can't be seen")
		shell(t, "gportmap status").want(t, 0, "running (pid ")
	})
}

// TestPortHeldBySystemd: the service manager holds the sockets for a unit. In here process 1 is this test, which takes its
// name.
func TestPortHeldBySystemd(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		units := "/run/systemd/system"
		if err := os.MkdirAll(units, 0o755); err != nil {
			t.Fatal(err)
		}
		// That of the host's rpcbind is masked.
		if err := os.Symlink(os.DevNull, filepath.Join(units, "rpcbind.socket")); err != nil {
			t.Fatal(err)
		}
		// The name of process 1 is that of its first thread.
		if err := os.WriteFile("/proc/1/comm", []byte("systemd"), 0); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", "0.0.0.0:111")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()

		// For rpcbind it has to stop that; the unit is the one that says it listens there.
		unit := "[Socket]\nListenStream=0.0.0.0:111\n"
		if err := os.WriteFile(filepath.Join(units, "bed-portmap.socket"), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		shell(t, "gportmap").oneLine(t).want(t, 69, "tcp 0.0.0.0:111 is held by systemd (pid 1) for bed-portmap.socket",
			"remedy: systemctl stop bed-portmap.socket")
		shell(t, "gportmap doctor").want(t, 1, "held by systemd (pid 1) for bed-portmap.socket", "systemctl stop bed-portmap.socket")

		// For gportmap's own it is as it should be.
		if err := os.Rename(filepath.Join(units, "bed-portmap.socket"), filepath.Join(units, "gportmap.socket")); err != nil {
			t.Fatal(err)
		}
		shell(t, "gportmap doctor").want(t, 0, "systemctl start gportmap.service", "nothing is wrong")
	})
}

// TestDiagnosisWithoutIPv6: a host without IPv6 is none with something wrong.
func TestDiagnosisWithoutIPv6(t *testing.T) {
	bed.InNamespace(t, bed.Options{NoIPv6: true}, func(t *testing.T, _ *bed.NS) {
		shell(t, "gportmap doctor").want(t, 0, "no IPv6", "nothing is wrong")
		shell(t, "gportmap").want(t, 0)
		status := shell(t, "gportmap status").want(t, 0, "udp 0.0.0.0:111")
		if strings.Contains(status.stdout, "udp6") {
			t.Errorf("IPv6 is served: %s", status)
		}
		shell(t, "gportmap stop").want(t, 0)
		shell(t, "gportmap -h ::1").oneLine(t).want(t, 78, "no IPv6")
		shell(t, "gportmap doctor -h ::1").want(t, 1, "error    configuration: ", "no IPv6")
	})
}

// TestHungDaemon: one that runs and doesn't answer isn't well.
func TestHungDaemon(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		subsysDirectory(t)
		shell(t, "gportmap").want(t, 0)
		pid := runningPID(t)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		shell(t, "gportmap status").want(t, 4, "not answering (pid ")
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		shell(t, "gportmap status").want(t, 0, "running (pid ")
	})
}
