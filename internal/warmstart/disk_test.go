package warmstart

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

const childEnv = "GPORTMAP_WARMSTART_TEST_CHILD"

// child runs the calling test again in a process of its own, made with attr, and returns false; in that process it returns
// true.
func child(t *testing.T, attr syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(childEnv) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"="+t.Name(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.SysProcAttr = &attr
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in the child process: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("in the child process:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("the child process did not run the test:\n%s", out)
	}
	return false
}

// mountNamespace is child in a mount namespace of its own.
func mountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childEnv) == "" {
		needRoot(t, "mounts a file system in a mount namespace")
	}
	if !child(t, syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}) {
		return false
	}
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Skipf("this root may not mount: %v", err)
	}
	return true
}

// tmpfs mounts a small file system in memory.
func tmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Skipf("this root may not mount: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// disk is a file system that a test can fill and empty.
type disk struct{ fill, empty func() }

// TestFullDisk registers and unregisters while a small file system is full.
func TestFullDisk(t *testing.T) {
	if !mountNamespace(t) {
		return
	}
	dir := stateDir(t)
	tmpfs(t, dir, "64k")
	filler := filepath.Join(dir, "filler")
	fullDisk(t, dir, disk{
		fill: func() {
			f, err := os.Create(filler)
			for block := make([]byte, 4096); err == nil; {
				_, err = f.Write(block)
			}
			f.Close()
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		},
		empty: func() { os.Remove(filler) },
	})
}

// TestFileSizeLimit is TestFullDisk for those who may not mount: no file can grow.
func TestFileSizeLimit(t *testing.T) {
	if !child(t, syscall.SysProcAttr{}) {
		return
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	limit := func(octets uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: octets, Max: was.Max}); err != nil {
			t.Fatal(err)
		}
	}
	fullDisk(t, stateDir(t), disk{fill: func() { limit(1000) }, empty: func() { limit(was.Cur) }})
}

func fullDisk(t *testing.T, dir string, d disk) {
	s, log := open(t, dir)
	table := tableOf(t, s)
	set(t, table, nfsTCP, nfsUDP, nfsTCP6)
	for round := range 3 {
		d.fill()
		last := until(t, table, s, uint32(500000+1000*round))
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("Err() = %v, want one that names %s", err, dir)
		}
		select {
		case <-s.Trouble():
		default:
			t.Error("Trouble() doesn't wake anybody")
		}
		// What is there is whole, without the last that could not be written.
		kept := restored(t, dir)
		if !slices.Equal(kept[:3], []rpcbind.RPCB{nfsTCP, nfsUDP, nfsTCP6}) || slices.Contains(kept, last) {
			t.Errorf("on the full disk is %v", kept)
		}
		unset(t, table, last.Program, 1)
		set(t, table, last)
		log.want(t, round+1, "ERROR", "can't be written")
		d.empty()
		switch round { // any of these writes everything that is missing
		case 0:
			table.Save()
		case 1:
			set(t, table, mountd)
		case 2:
			unset(t, table, mountd.Program, mountd.Version)
		}
		wantFiles(t, dir, table)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		log.want(t, round+1, "INFO", "written again")
		log.want(t, round+1, "ERROR", "")
		set(t, table, rpcb(600000+uint32(round), 1, "tcp", "0.0.0.0.8.1", "superuser"))
		wantFiles(t, dir, table)
		missing(t, filepath.Join(dir, rpcbFile+".new"))
	}
}

// until registers programs until the state can't be written, and some more; it returns the last.
func until(t *testing.T, table *registry.Table, s *Store, prog uint32) (last rpcbind.RPCB) {
	t.Helper()
	for n, behind := 0, 0; behind < 20; n++ {
		if n == 10_000 {
			t.Fatal("the disk isn't full")
		}
		last = rpcb(prog+uint32(n), 1, "tcp", "0.0.0.0.8.1", "superuser")
		set(t, table, last)
		if table.Lookup(last.Program, 1, "tcp") == nil {
			t.Fatal("a registration isn't served")
		}
		if s.Err() != nil {
			behind++
		}
	}
	return last
}

func restored(t *testing.T, dir string) []rpcbind.RPCB {
	t.Helper()
	s, log := open(t, dir)
	defer s.Close()
	regs := s.Restore()
	log.want(t, 0, "ERROR", "")
	return regs
}

// TestReadOnlyFileSystem starts on a file system that turned read-only, with the state of an earlier daemon.
func TestReadOnlyFileSystem(t *testing.T) {
	if !mountNamespace(t) {
		return
	}
	dir := stateDir(t)
	tmpfs(t, dir, "64k")
	readOnly(t, dir, func(on bool) {
		flags := uintptr(syscall.MS_REMOUNT)
		if on {
			flags |= syscall.MS_RDONLY
		}
		if err := syscall.Mount("", dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
	})
}

// TestReadOnlyDirectory is TestReadOnlyFileSystem for everybody but root, whom no mode keeps from writing.
func TestReadOnlyDirectory(t *testing.T) {
	var attr syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: foreignUID, Gid: foreignUID}
	}
	if !child(t, attr) {
		return
	}
	dir := stateDir(t)
	readOnly(t, dir, func(on bool) {
		mode := os.FileMode(0o755)
		if on {
			mode = 0o555
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	})
}

func readOnly(t *testing.T, dir string, turn func(on bool)) {
	s, _ := open(t, dir)
	set(t, tableOf(t, s), nfsTCP)
	s.Close()
	// Damage as well: there is no place to set a file aside.
	path := filepath.Join(dir, rpcbFile)
	b := readFile(t, path)
	writeFile(t, path, b[:len(b)-4])
	turn(true)
	s, log := open(t, dir)
	table := tableOf(t, s)
	wantRegs(t, s.Restore(), nfsTCP)
	set(t, table, mountd)
	unset(t, table, nfsTCP.Program, nfsTCP.Version)
	if s.Err() == nil {
		t.Error("Err() = nil")
	}
	log.want(t, 1, "ERROR", "can't be written")
	log.want(t, 2, "ERROR", "can't be set aside") // Restore was called twice
	wantRestored(t, dir, nfsTCP)
	turn(false)
	table.Save()
	wantFiles(t, dir, table)
	log.want(t, 1, "INFO", "written again")
	wantRestored(t, dir, mountd)
}

// TestUnreadableFile has a file of ours that we may not read.
func TestUnreadableFile(t *testing.T) {
	var attr syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: foreignUID, Gid: foreignUID}
	}
	if !child(t, attr) {
		return
	}
	dir := stateDir(t)
	path := filepath.Join(dir, rpcbFile)
	writeFile(t, path, nil)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	s, log := open(t, dir)
	wantRegs(t, s.Restore())
	log.want(t, 1, "ERROR", "rpcbind.xdr.unreadable")
	missing(t, path)
	if _, err := os.Lstat(path + ".unreadable"); err != nil {
		t.Error(err)
	}
}
