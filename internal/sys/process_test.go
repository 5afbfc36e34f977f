package sys

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDropPrivileges(t *testing.T) {
	needRoot(t)
	if !child(t, syscall.SysProcAttr{}) {
		return
	}
	if err := syscall.Setgroups([]int{0, 5, 7}); err != nil {
		t.Fatal(err)
	}
	// Several threads, each to be found without privileges afterwards.
	var ready, done sync.WaitGroup
	dropped := make(chan struct{})
	for range 4 {
		ready.Add(1)
		done.Go(func() {
			onThread(t, func() error {
				ready.Done()
				<-dropped
				if uid, gid := syscall.Geteuid(), syscall.Getegid(); uid != alice || gid != bob {
					t.Errorf("a thread has uid %d, gid %d", uid, gid)
				}
				return nil
			})
		})
	}
	ready.Wait()
	err := DropPrivileges(alice, bob)
	close(dropped)
	done.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if groups, err := syscall.Getgroups(); err != nil || len(groups) != 0 {
		t.Errorf("groups %v, %v, want none", groups, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t54321\t54321\t54321\t54321\n", "Gid:\t54322\t54322\t54322\t54322\n",
		"CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapInh:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if err := DropPrivileges(alice, bob); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := DropPrivileges(alice+5, bob); err == nil {
		t.Error("another user could be reached")
	}
}

// A process that can get its ids back, as with a unit's AmbientCapabilities=, is found out.
func TestDropPrivilegesVerifies(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name string
		caps []uintptr
	}{
		{"CAP_SETUID", []uintptr{unix.CAP_SETUID}},
		{"CAP_SETGID", []uintptr{unix.CAP_SETGID}},
		{"", nil},
	} {
		t.Run("with "+test.name, func(t *testing.T) {
			attr := syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: bob}, AmbientCaps: test.caps}
			if !child(t, attr) {
				return
			}
			err := DropPrivileges(alice, bob)
			if test.name == "" && err != nil || test.name != "" && (err == nil || !strings.Contains(err.Error(), test.name)) {
				t.Errorf("DropPrivileges = %v, want an error about %q", err, test.name)
			}
		})
	}
}

func TestDropPrivilegesRefuses(t *testing.T) {
	for _, id := range [][2]uint32{{0, 0}, {0, 5}, {noID, 5}, {5, noID}} {
		if err := DropPrivileges(id[0], id[1]); err == nil {
			t.Fatalf("DropPrivileges(%d, %d) succeeded", id[0], id[1])
		}
	}
}

func TestLookupUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	text := strings.Join([]string{
		"root:x:0:0:root:/root:/bin/sh",
		"# comment",
		"",
		"+::::::",
		"_rpc:x:107:65534::/run/rpcbind:/usr/sbin/nologin",
		"rpc:x:32:33:" + strings.Repeat("long", 50000) + ":/:/sbin/nologin",
		"short:x:1",
		"word:x:one:1::/:",
		"gword:x:1:one::/:",
		"minus:x:-1:1::/:",
		"high:x:4294967294:4294967293::/:",
		"noid:x:4294967295:1::/:",
		"big:x:4294967296:1::/:",
		"twice:x:1:2::/:",
		"twice:x:3:4::/:",
		"last:x:8:9::/:", // no line feed
	}, "\n")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		uid, gid uint32
		fails    string
	}{
		{"root", 0, 0, ""},
		{"_rpc", 107, 65534, ""},
		{"rpc", 32, 33, ""},
		{"high", 4294967294, 4294967293, ""},
		{"twice", 1, 2, ""},
		{"last", 8, 9, ""},
		{"nobody", 0, 0, "not in " + path},
		{"", 0, 0, "not in " + path},
		{"RPC", 0, 0, "not in " + path},
		{"rpc:x", 0, 0, "not in " + path},
		{"short", 0, 0, path + ":7: 3 fields"},
		{"word", 0, 0, path + ":8: user id"},
		{"gword", 0, 0, path + ":9: group id"},
		{"minus", 0, 0, path + ":10: user id"},
		{"noid", 0, 0, path + ":12: 4294967295"},
		{"big", 0, 0, path + ":13: user id"},
	} {
		uid, gid, err := lookupUser(path, test.name)
		if test.fails != "" {
			if err == nil || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%q: %d, %d, %v, want an error with %q", test.name, uid, gid, err, test.fails)
			}
		} else if err != nil || uid != test.uid || gid != test.gid {
			t.Errorf("%q: %d, %d, %v, want %d, %d", test.name, uid, gid, err, test.uid, test.gid)
		}
	}
	if _, _, err := lookupUser(path+"x", "root"); err == nil || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("no file: %v", err)
	}
	if uid, gid, err := LookupUser("root"); err != nil || uid != 0 || gid != 0 {
		t.Errorf("LookupUser(root) = %d, %d, %v", uid, gid, err)
	}
}

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	n := NewNotifier()
	for _, test := range []struct {
		name string
		send func() error
		want string
	}{
		{"ready", func() error { return n.Ready("serving udp and tcp") }, "READY=1\nSTATUS=serving udp and tcp"},
		{"status", func() error { return n.Status("ünïcode") }, "STATUS=ünïcode"},
		{"status of two lines", func() error { return n.Status("a\nMAINPID=1\r\x00b") }, "STATUS=a MAINPID=1  b"},
		{"status not UTF-8", func() error { return n.Status("a\xffb") }, "STATUS=a?b"},
		{"stopping", func() error { return n.Stopping() }, "STOPPING=1"},
		{"alive", func() error { return n.Alive() }, "WATCHDOG=1"},
	} {
		if err := test.send(); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		b := make([]byte, 1000)
		k, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:k]) != test.want {
			t.Errorf("%s: %q, want %q", test.name, b[:k], test.want)
		}
	}
	manager.Close()
	if err := n.Stopping(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("nobody listens: %v, want an error with the path", err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	n = NewNotifier()
	if n != nil {
		t.Error("a notifier without NOTIFY_SOCKET")
	}
	if err := n.Ready("x"); err != nil || n.WatchdogInterval() != 0 {
		t.Errorf("nil notifier: %v, interval %v", err, n.WatchdogInterval())
	}
}

func TestWatchdogInterval(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/nobody")
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 30 * time.Second},
		{"30000000", "1", 0}, // meant for another process
		{"soon", "", 0},
		{"-1", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := NewNotifier().WatchdogInterval(); got != test.want {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, want %v", test.usec, test.pid, got, test.want)
		}
	}
}

func TestLookupGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "group")
	text := "root:x:0:\n# no group\nadm:x:4:a,b\nempty:x::\nshort\nnoid:x:4294967295:\nlast:x:7:"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		gid   uint32
		fails string
	}{
		{"root", 0, ""}, {"adm", 4, ""}, {"last", 7, ""}, {"1234", 1234, ""},
		{"nobody", 0, "not in " + path}, {"", 0, "not in " + path}, {"empty", 0, path + ":4"}, {"short", 0, path + ":5"},
		{"noid", 0, path + ":6"}, {"4294967295", 0, "not in " + path},
	} {
		gid, err := lookupGroup(path, c.name)
		switch {
		case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
			t.Errorf("%q: %d, %v, want an error with %q", c.name, gid, err, c.fails)
		case c.fails == "" && (err != nil || gid != c.gid):
			t.Errorf("%q: %d, %v, want %d", c.name, gid, err, c.gid)
		}
	}
	if _, err := lookupGroup(path+"x", "root"); err == nil {
		t.Error("no error without the file")
	}
}
