package instance

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// endEnv makes the process that [holdEnv] makes end, over as long as it says: its first thread at once, the others, and the
// lock with them, after that. The kernel does so on a busy host with every process that is killed.
const endEnv = "GPORTMAP_TEST_END"

func endSlowly(l *Lock) {
	last, err := time.ParseDuration(os.Getenv(endEnv))
	if err != nil {
		os.Exit(1)
	}
	first := func() {
		runtime.LockOSThread()
		if syscall.Gettid() != syscall.Getpid() {
			select {} // keeps this thread, so that the next goroutine comes to another one
		}
		syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	for range 64 {
		go first()
	}
	for !sys.Ending(os.Getpid()) {
		time.Sleep(time.Millisecond)
	}
	os.Stdout.WriteString("held\n")
	time.Sleep(last)
	runtime.KeepAlive(l)
	os.Exit(0)
}

// TestLockOfOneThatEnds: a daemon that was killed keeps the lock until its last thread has ended, and shows no descriptor
// meanwhile. Whoever starts or looks then waits for that, and finds that none runs.
func TestLockOfOneThatEnds(t *testing.T) {
	for name, try := range map[string]func(path string) error{
		"start": func(path string) error {
			l, err := Acquire(path)
			l.Release()
			return err
		},
		"look": func(path string) error {
			s, err := State(Paths{Lock: path})
			if err == nil && s.Condition == Running {
				err = errors.New(s.String())
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			t.Setenv(endEnv, "1s")
			pid, _ := hold(t, path)
			if fds, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fdinfo"); err != nil || len(fds) != 0 {
				t.Fatalf("it shows descriptors %v, %v; want none", fds, err)
			}
			if err := try(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLockOfAnybody: with a lock that every user may open, as rpcbind's, such a process is no reason to wait.
func TestLockOfAnybody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	t.Setenv(endEnv, "1m")
	pid, kill := hold(t, path)
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	f, err := open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if e := holder(path, f); e.ending {
		t.Errorf("%+v of pid %d is waited for", e, pid)
	}
	if err := f.Chmod(0o600); err != nil {
		t.Fatal(err)
	}
	if e := holder(path, f); !e.ending {
		t.Errorf("%+v of pid %d isn't waited for", e, pid)
	}
	kill()
}
