package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// testPaths are paths of an instance with everything that the system's has.
func testPaths(t *testing.T, dir string) Paths {
	t.Helper()
	p := DirPaths(dir)
	p.OtherPIDFiles = []string{filepath.Join(dir, "rpcbind.pid")}
	p.Subsys = filepath.Join(dir, "subsys", "gportmap")
	p.OtherSubsys = []string{filepath.Join(dir, "subsys", "rpcbind")}
	if err := os.Mkdir(filepath.Dir(p.Subsys), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// TestStaleFiles goes through what may be left behind, in every combination, with the kernel lock free and held.
func TestStaleFiles(t *testing.T) {
	stranger := named(t, "innocent")
	pidFiles := map[string]string{
		"none": "", "of an ended process": "4194304\n", "of another program": fmt.Sprintln(stranger), "empty": "\n", "noise": "\x00\xff",
		"of this process": fmt.Sprintln(os.Getpid()),
	}
	for pidFile, text := range pidFiles {
		for mask := range 32 {
			subsys, other, lockFile, socket, held := mask&1 != 0, mask&2 != 0, mask&4 != 0, mask&8 != 0, mask&16 != 0
			if held && !lockFile {
				continue
			}
			name := fmt.Sprintf("pid file %s, subsys %v, other's %v, lock file %v, dead socket %v, held %v", pidFile, subsys, other, lockFile, socket, held)
			p := testPaths(t, t.TempDir())
			want := Stopped
			var stale []string
			leave := func(path, text string, c Condition) {
				put(t, path, text)
				stale = append(stale, path)
				want = min(want, c)
			}
			if text != "" {
				leave(p.PIDFile, text, DeadWithPIDFile)
			}
			if subsys {
				leave(p.Subsys, "", DeadWithLock)
			}
			if other {
				leave(p.OtherSubsys[0], "", DeadWithLock)
				leave(p.OtherPIDFiles[0], "4194304", DeadWithPIDFile)
			}
			if lockFile {
				leave(p.Lock, "", DeadWithLock)
			}
			if socket {
				deadSocket(t, p.Socket)
				stale = append(stale, p.Socket)
			}
			slices.Sort(stale)
			if held {
				lock, err := Acquire(p.Lock)
				if err != nil {
					t.Fatal(err)
				}
				heldFiles(t, name, p, stale)
				lock.Release()
				continue
			}
			s, err := State(p)
			slices.Sort(s.Stale)
			if err != nil || s.Condition != want || !slices.Equal(s.Stale, stale) || s.Process.PID != 0 {
				t.Errorf("%s: %+v, %v, want %v, stale %v", name, s, err, want, stale)
			}
			removed, err := Clear(p)
			slices.Sort(removed)
			if err != nil || !slices.Equal(removed, stale) {
				t.Errorf("%s: removed %v, %v, want %v", name, removed, err, stale)
			}
			if s, err := State(p); err != nil || s.Condition != Stopped || s.Stale != nil {
				t.Errorf("%s: after Clear: %+v, %v", name, s, err)
			}
			if left, err := os.ReadDir(filepath.Dir(p.Lock)); err != nil || len(left) != 1 {
				t.Errorf("%s: after Clear: left are %v, %v", name, left, err)
			}
		}
	}
}

// heldFiles checks that with the lock held the status is running, whatever the files, and that nothing is removed. The
// test itself is the holder.
func heldFiles(t *testing.T, name string, p Paths, files []string) {
	t.Helper()
	s, err := State(p)
	if err != nil || s.Condition != Running || s.Process.PID != os.Getpid() || s.Stale != nil {
		t.Errorf("%s: %+v, %v, want running, pid %d", name, s, err, os.Getpid())
	}
	removed, err := Clear(p)
	if !errors.Is(err, ErrRunning) || removed != nil {
		t.Errorf("%s: Clear: %v, %v, want ErrRunning", name, removed, err)
	}
	for _, path := range files {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who looks isn't taken for a portmapper by others who look.
func TestManyLookAtOnce(t *testing.T) {
	p := testPaths(t, t.TempDir())
	put(t, p.Lock, "")
	f, err := open(p.Lock, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := flock(p.Lock, f, syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if s, err := State(p); err != nil || s.Condition != DeadWithLock {
		t.Errorf("%+v, %v, want %v", s, err, DeadWithLock)
	}
}

// A socket that is served is not stale, although no portmapper runs: systemd's, for one.
func TestLiveSocketIsNotStale(t *testing.T) {
	p := testPaths(t, t.TempDir())
	l, err := net.Listen("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if s, err := State(p); err != nil || s.Condition != Stopped || s.Stale != nil {
		t.Errorf("%+v, %v, want stopped", s, err)
	}
	if removed, err := Clear(p); err != nil || removed != nil {
		t.Errorf("removed %v, %v, want none", removed, err)
	}
	if _, err := os.Lstat(p.Socket); err != nil {
		t.Error(err)
	}
}

// A portmapper whose lock file somebody removed still runs, and its files stay.
func TestPortmapperWithoutItsLockFile(t *testing.T) {
	p := testPaths(t, t.TempDir())
	pid := named(t, "gportmap")
	put(t, p.PIDFile, fmt.Sprintln(pid))
	put(t, p.Subsys, "")
	s, err := State(p)
	if err != nil || s.Condition != Running || s.Process.PID != pid || !strings.Contains(s.Note, "lock file "+p.Lock+" was removed") {
		t.Errorf("%+v, %v, want running", s, err)
	}
	if removed, err := Clear(p); err == nil || removed != nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", pid)) {
		t.Errorf("Clear: %v, %v, want an error", removed, err)
	}
	for _, path := range []string{p.PIDFile, p.Subsys} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestLinksAreNeitherFollowedNorRemoved puts links where files of ours should be.
func TestLinksAreNeitherFollowedNorRemoved(t *testing.T) {
	for _, what := range []string{"lock", "pid", "subsys", "socket"} {
		dir := t.TempDir()
		p := testPaths(t, dir)
		precious := filepath.Join(dir, "precious")
		put(t, precious, "precious")
		path := map[string]string{"lock": p.Lock, "pid": p.PIDFile, "subsys": p.Subsys, "socket": p.Socket}[what]
		if err := os.Symlink(precious, path); err != nil {
			t.Fatal(err)
		}
		put(t, p.OtherPIDFiles[0], "4194304\n")
		if what == "lock" {
			if s, err := State(p); err == nil || s.Condition != Unknown || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: State: %+v, %v, want an error that names it", what, s, err)
			}
		}
		removed, err := Clear(p)
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: Clear: %v, want one line that names it", what, err)
		}
		if want := what != "lock"; slices.Contains(removed, p.OtherPIDFiles[0]) != want {
			t.Errorf("%s: removed %v", what, removed)
		}
		if target, err := os.Readlink(path); err != nil || target != precious || contents(t, precious) != "precious" {
			t.Errorf("%s: %q, %v, %q", what, target, err, contents(t, precious))
		}
	}
}

func TestNoDirectory(t *testing.T) {
	p := DirPaths(filepath.Join(t.TempDir(), "missing"))
	if s, err := State(p); err != nil || s.Condition != Stopped || s.Stale != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if removed, err := Clear(p); err != nil || removed != nil {
		t.Errorf("%v, %v", removed, err)
	}
}

// TestStatusOfUser has a user ask whom root's files are closed to.
func TestStatusOfUser(t *testing.T) {
	const dirEnv = "GPORTMAP_INSTANCE_TEST_DIR"
	dir := os.Getenv(dirEnv)
	if dir == "" {
		needRoot(t)
		var err error
		if dir, err = os.MkdirTemp("", "gportmap-instance-"); err != nil { // t.TempDir is closed to others
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := DirPaths(dir)
	user := syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}}
	in := os.Getenv(stageEnv)
	if in == "" {
		put(t, p.Lock, "")
		put(t, p.PIDFile, "4194304\n")
		if err := os.Chmod(p.Lock, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasSuffix(in, " held") && stage(t, "free", user, dirEnv+"="+dir) {
		if s, err := State(p); err != nil || s.Condition != Unknown || !strings.Contains(s.String(), "only root can tell") {
			t.Errorf("%v, %v, want unknown", s, err)
		}
		if removed, err := Clear(p); !errors.Is(err, fs.ErrPermission) || removed != nil {
			t.Errorf("Clear: %v, %v, want a lack of permission", removed, err)
		}
		return
	}
	if in == "" {
		pid, _ := hold(t, p.Lock)
		put(t, p.PIDFile, fmt.Sprintln(pid))
	}
	if stage(t, "held", user, dirEnv+"="+dir) {
		pid, _, err := ReadPIDFile(p.PIDFile)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := State(p); err != nil || s.Condition != Running || s.Process.PID != pid {
			t.Errorf("%+v, %v, want running, pid %d", s, err, pid)
		}
	}
}

func TestStatusOfRpcbind(t *testing.T) {
	if !host(t) {
		return
	}
	p := SystemPaths()
	if err := os.MkdirAll(filepath.Dir(p.Subsys), 0o755); err != nil {
		t.Fatal(err)
	}
	if s, err := State(p); err != nil || s.Condition != Stopped {
		t.Errorf("before: %+v, %v", s, err)
	}
	pid := startRpcbind(t, "exec /sbin/rpcbind -f -w")
	s, err := State(p)
	if err != nil || s.Condition != Running || s.Process.PID != pid || !strings.Contains(s.String(), fmt.Sprintf("running (pid %d, rpcbind, since ", pid)) {
		t.Errorf("%v, %v, want running, pid %d", s, err, pid)
	}
	if removed, err := Clear(p); !errors.Is(err, ErrRunning) || removed != nil {
		t.Errorf("Clear: %v, %v", removed, err)
	}
	// As an init script would have it at its end, and as rpcbind leaves it when killed.
	put(t, p.OtherPIDFiles[0], fmt.Sprint(pid))
	put(t, p.OtherSubsys[0], "")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for syscall.Kill(pid, 0) == nil { // until it is no zombie either
	}
	want := []string{p.Rpcbind, p.Socket, p.OtherPIDFiles[0], p.OtherSubsys[0]}
	slices.Sort(want)
	s, err = State(p)
	slices.Sort(s.Stale)
	if err != nil || s.Condition != DeadWithPIDFile || !slices.Equal(s.Stale, want) {
		t.Errorf("%+v, %v, want stale %v", s, err, want)
	}
	removed, err := Clear(p)
	slices.Sort(removed)
	if err != nil || !slices.Equal(removed, want) {
		t.Errorf("Clear: %v, %v, want %v", removed, err, want)
	}
	startRpcbind(t, "exec /sbin/rpcbind -f -w") // nothing is in its way
}

// TestClearAgainstStarts has processes start, with all their files, while others clear: never are the files of one that
// runs removed, and never do two run.
func TestClearAgainstStarts(t *testing.T) {
	const dirEnv = "GPORTMAP_INSTANCE_TEST_DIR"
	if dir := os.Getenv(dirEnv); dir != "" {
		p := DirPaths(dir)
		p.Subsys = filepath.Join(dir, "subsys", "gportmap")
		if strings.HasSuffix(os.Getenv(stageEnv), " start") {
			startOften(t, p)
		} else {
			clearOften(t, p)
		}
		return
	}
	p := testPaths(t, t.TempDir())
	var running []*exec.Cmd
	var outs []*strings.Builder
	for _, name := range []string{"start", "start", "clear", "clear"} {
		cmd := stageCommand(t, name, dirEnv+"="+filepath.Dir(p.Lock))
		out := new(strings.Builder)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running, outs = append(running, cmd), append(outs, out)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", cmd.Args, err, outs[i])
		}
		t.Log(strings.TrimSpace(outs[i].String()))
	}
}

func startOften(t *testing.T, p Paths) {
	won := 0
	for range 100 {
		lock, err := Acquire(p.Lock)
		if errors.Is(err, ErrRunning) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		won++
		if _, err := lock.Clear(p); err != nil {
			t.Error(err)
		}
		pid, err := WritePIDFile(p.PIDFile)
		if err != nil {
			t.Fatal(err)
		}
		subsys, err := CreateSubsys(p.Subsys)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // while it serves
			if got := contents(t, p.PIDFile); got != fmt.Sprintln(os.Getpid()) {
				t.Errorf("the pid file says %q", got)
			}
			if _, err := os.Lstat(p.Subsys); err != nil {
				t.Error(err)
			}
		}
		if won%2 == 0 { // every other one ends disorderly
			if err := errors.Join(subsys.Remove(), pid.Remove()); err != nil {
				t.Error(err)
			}
		}
		lock.Release()
	}
	if won == 0 {
		t.Error("never started")
	}
	t.Logf("started %d times", won)
}

func clearOften(t *testing.T, p Paths) {
	cleared := 0
	for range 300 {
		s, err := State(p)
		if err != nil {
			t.Fatal(err)
		}
		if s.Condition == Running {
			continue
		}
		removed, err := Clear(p)
		if err != nil && !errors.Is(err, ErrRunning) {
			t.Error(err)
		}
		cleared += len(removed)
	}
	t.Logf("removed %d files", cleared)
}

func TestStatusText(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{Condition: Running}, "running (its process can't be seen from here)"},
		{Status{Condition: Stopped}, "stopped"},
		{Status{Condition: DeadWithLock, Stale: []string{"/a", "/b"}}, "dead, but its lock file exists (stale: /a, /b)"},
		{Status{Condition: Unknown, Note: "why"}, "unknown; why"},
		{Status{Condition: 9}, "condition 9"},
	} {
		if got := c.s.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
