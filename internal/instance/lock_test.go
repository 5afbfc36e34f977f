package instance

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// holdEnv makes the test binary a process that holds the lock named by it until its standard input ends.
const holdEnv = "GPORTMAP_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		l, err := Acquire(path)
		if err != nil {
			os.Stdout.WriteString("error " + err.Error() + "\n")
			os.Exit(1)
		}
		if os.Getenv(endEnv) != "" {
			endSlowly(l)
		}
		os.Stdout.WriteString("held\n")
		bufio.NewReader(os.Stdin).ReadString('\n')
		l.Release()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hold starts another process that holds the lock; the function returned kills it.
func hold(t *testing.T, path string) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	var once sync.Once
	kill = func() {
		once.Do(func() {
			cmd.Process.Kill()
			cmd.Wait()
			in.Close()
		})
	}
	t.Cleanup(kill)
	return cmd.Process.Pid, kill
}

func TestAcquireAndRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		l, err := Acquire(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("lock file: %v, %v; want mode 0600", info, err)
		}
		l.Release()
		l.Release()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("after Release: %v, want no file", err)
		}
	}
	(*Lock)(nil).Release()
}

func TestRunningNamesTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	pid, kill := hold(t, path)
	_, err := Acquire(path)
	var running *RunningError
	if !errors.Is(err, ErrRunning) || !errors.As(err, &running) {
		t.Fatalf("Acquire: %v, want ErrRunning", err)
	}
	comm, _ := os.ReadFile("/proc/self/comm")
	if running.PID != pid || running.Command != strings.TrimSpace(string(comm)) || running.Path != path {
		t.Errorf("holder %+v, want pid %d, command %q, path %s", running, pid, comm, path)
	}
	// The kernel gives the lock up for a process that was killed; the file that stays behind hinders nobody.
	kill()
	l, err := Acquire(path)
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	l.Release()
}

func TestStaleFileOfRpcbind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("lock file: %v, %v; want mode 0600, or any user can hold it", info, err)
	}
}

func TestReleaseKeepsAnothersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	other, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	l.Release()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the other's lock file is gone: %v", err)
	}
}

func TestUnfitPaths(t *testing.T) {
	dir := t.TempDir()
	link, dangling, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "fifo")
	target := filepath.Join(dir, "target")
	if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Symlink(target, link),
		os.Symlink(filepath.Join(dir, "made"), dangling), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{link, "symbolic link"},
		{dangling, "symbolic link"},
		{fifo, "not a regular file"},
		{dir, "is a directory"},
		{filepath.Join(dir, "missing", "lock"), "no such file"},
	} {
		l, err := Acquire(c.path)
		if err == nil {
			l.Release()
			t.Errorf("%s: locked, want an error with %q", c.path, c.want)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %v, want the path and %q", c.path, err, c.want)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "made")); err == nil {
		t.Error("a dangling link was followed")
	}
}

// TestHeirIsNamed has the lock taken by a process that ends and leaves it to a child, as rpcbind does when it goes to the
// background: the pid that the kernel remembers is nobody's then.
func TestHeirIsNamed(t *testing.T) {
	if _, err := os.Stat("/proc/self/fdinfo"); err != nil {
		t.Skipf("needs /proc/self/fdinfo: %v", err)
	}
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skipf("needs flock(1): %v", err)
	}
	// flock(1) locks descriptor 9 of the shell and ends. The shell becomes cat, which lives until its input ends.
	cmd := exec.Command("sh", "-c", `exec 9>"$0"; flock 9; echo $$; exec cat`, path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	said := bufio.NewReader(out)
	pid, err := said.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("you are cat\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := said.ReadString('\n'); line != "you are cat\n" {
		t.Fatalf("cat said %q, %v", line, err)
	}
	_, err = Acquire(path)
	var running *RunningError
	if !errors.As(err, &running) || strconv.Itoa(running.PID) != strings.TrimSpace(pid) || running.Command != "cat" {
		t.Errorf("Acquire: %v, want pid %s, command cat", err, strings.TrimSpace(pid))
	}
}

// TestOneAtATime lets several contenders take and release the lock as fast as they can: whatever the order of open,
// flock and remove, never two have it.
func TestOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside, won atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 300 {
				l, err := Acquire(path)
				if errors.Is(err, ErrRunning) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the lock", n)
				}
				won.Add(1)
				inside.Add(-1)
				l.Release()
			}
		})
	}
	all.Wait()
	if won.Load() == 0 {
		t.Error("nobody ever had the lock")
	}
}

// TestLockGivenByAnother takes the lock as systemd's service without privileges does: by a descriptor of the file, in a
// directory where it may neither open nor make it.
func TestLockGivenByAnother(t *testing.T) {
	needRoot(t)
	const lockEnv = "GPORTMAP_TEST_GIVEN"
	if path := os.Getenv(lockEnv); path != "" {
		withGivenLock(t, path)
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := stageCommand(t, "given", lockEnv+"="+path)
	cmd.Stdin = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("as another user: %v\n%s", err, out)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file that only root may remove: %v", err)
	}
	// The open file is still ours, but no lock is on it.
	l, err := Acquire(path)
	if err != nil {
		t.Fatalf("after the other one released it: %v", err)
	}
	defer l.Release()
	cmd = stageCommand(t, "given", lockEnv+"="+path)
	cmd.Stdin = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), ErrRunning.Error()) {
		t.Errorf("while another process has it: %v\n%s", err, out)
	}
}

// withGivenLock is the process of another user.
func withGivenLock(t *testing.T, path string) {
	if f, err := os.Open(path); err == nil {
		f.Close()
		t.Fatal("the file may be opened, so this shows nothing")
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	// What isn't the file at the path is no lock.
	if _, err := Acquire(filepath.Join(filepath.Dir(path), "another")); !errors.Is(err, os.ErrPermission) {
		t.Errorf("another file: %v, want that it is refused", err)
	}
	other, err := os.OpenFile("/proc/self/fd/0", os.O_RDONLY, 0)
	if err == nil {
		other.Close()
		t.Error("the file may be opened by its descriptor")
	}
	if pid := taken(t, path); pid != os.Getpid() {
		t.Errorf("the kernel says that %d has the lock, want us, %d", pid, os.Getpid())
	}
}

// taken returns the process that took the lock on path, by the kernel's table.
func taken(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	i, _ := inodeOf(info)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	return taker(locks, i)
}

func TestTaker(t *testing.T) {
	const table = `1: POSIX  ADVISORY  WRITE 10 00:1a:1387 0 EOF
2: FLOCK  ADVISORY  WRITE 20 00:1a:1387 0 EOF
2: -> FLOCK  ADVISORY  WRITE 21 00:1a:1387 0 EOF
3: FLOCK  ADVISORY  WRITE 30 00:1b:1388 0 EOF
4: FLOCK  ADVISORY  WRITE 40 00:1c:1389 0 EOF
5: FLOCK  ADVISORY  WRITE 50 00:1d:1389 0 EOF
6: FLOCK  ADVISORY  WRITE -1 00:1a:1390 0 EOF
7: FLOCK  ADVISORY  WRITE 70 13900 0 EOF
8: FLOCK  short
`
	for _, c := range []struct {
		name   string
		device string
		inode  uint64
		want   int
	}{
		{"device and inode", "00:1a", 1387, 20},
		{"another device, one inode", "00:99", 1388, 30},
		{"another device, two inodes", "00:99", 1389, 0},
		{"one of two by device", "00:1d", 1389, 50},
		{"no pid", "00:1a", 1390, 0},
		{"nobody", "00:1a", 1391, 0},
	} {
		if got := taker(strings.NewReader(table), inode{c.device, strconv.FormatUint(c.inode, 10)}); got != c.want {
			t.Errorf("%s: pid %d, want %d", c.name, got, c.want)
		}
	}
}

func TestRunningErrorEscapesTheCommand(t *testing.T) {
	e := &RunningError{Path: "/run/rpcbind.lock", PID: 7, Command: "evil\x1b[2J"}
	if s := e.Error(); strings.ContainsRune(s, '\x1b') || !strings.Contains(s, "pid 7") {
		t.Errorf("%q", s)
	}
	e.PID = 0
	if s := e.Error(); !strings.Contains(s, "namespace") || !strings.Contains(s, e.Path) {
		t.Errorf("%q", s)
	}
}
