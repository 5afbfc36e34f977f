package warmstart

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

var (
	nfsTCP   = rpcb(100003, 3, "tcp", "0.0.0.0.8.1", "superuser")
	nfsUDP   = rpcb(100003, 3, "udp", "0.0.0.0.8.1", "superuser")
	nfsTCP6  = rpcb(100003, 3, "tcp6", "::.8.1", "superuser")
	mountd   = rpcb(100005, 3, "tcp", "0.0.0.0.78.80", "superuser")
	ofAUser  = rpcb(300001, 1, "udp", "127.0.0.1.9.9", "1000")
	localOne = rpcb(300001, 1, "local", "/run/service.sock", "1000")
	unowned  = rpcb(300002, 1, "tcp", "0.0.0.0.9.10", "unknown")
	all      = []rpcbind.RPCB{nfsTCP, nfsUDP, nfsTCP6, mountd, ofAUser, localOne, unowned}
)

// TestFilesFollowTheTable looks at the files after each change: they are the table's own lists.
func TestFilesFollowTheTable(t *testing.T) {
	dir := stateDir(t)
	s, log := open(t, dir)
	table := tableOf(t, s)
	wantFiles(t, dir, table)
	for _, b := range all {
		set(t, table, b)
		wantFiles(t, dir, table)
	}
	set(t, table, nfsTCP) // again: nothing is written twice
	wantFiles(t, dir, table)
	wantRestored(t, dir, all...)

	unset(t, table, 100003, 3)
	wantFiles(t, dir, table)
	wantRestored(t, dir, mountd, ofAUser, localOne, unowned)
	set(t, table, nfsTCP)
	wantFiles(t, dir, table)

	moved := mountd
	moved.Addr = "0.0.0.0.78.81"
	if err := table.Replace(table.Lookup(100005, 3, "tcp"), moved); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, table)
	wantRestored(t, dir, ofAUser, localOne, unowned, nfsTCP, moved)
	table.Compact()
	wantPure(t, dir, table)
	wantRestored(t, dir, ofAUser, localOne, unowned, nfsTCP, moved)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	log.want(t, 0, "ERROR", "")
	log.want(t, 0, "WARN", "")
	for _, name := range []string{rpcbFile, pmapFile, bootFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info.Mode(), err)
		}
	}
	missing(t, filepath.Join(dir, rpcbFile+".new"))
}

// TestASecondDaemonGoesOn lets stores follow each other as daemons do, one of which was killed.
func TestASecondDaemonGoesOn(t *testing.T) {
	dir := stateDir(t)
	for i := range 4 {
		s, _ := open(t, dir)
		table := tableOf(t, s)
		wantRegs(t, s.Restore(), all[:i]...)
		set(t, table, all[i])
		wantFiles(t, dir, table)
		if i%2 == 0 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestConcurrentChanges lets many goroutines register and unregister; afterwards the files are the table's lists.
func TestConcurrentChanges(t *testing.T) {
	dir := stateDir(t)
	s, _ := open(t, dir)
	table := tableOf(t, s)
	var writers sync.WaitGroup
	for w := range uint32(4) {
		writers.Go(func() {
			for i := range uint32(50) {
				for _, n := range []rpcbind.Netid{"tcp", "udp", "tcp6"} {
					addr := "0.0.0.0.8.1"
					if n == "tcp6" {
						addr = "::.8.1"
					}
					if err := table.Set(rpcb(400000+w, i, n, addr, "superuser")); err != nil {
						t.Error(err)
					}
				}
				if _, err := table.Unset(400000+w, i/2, func(rpcbind.Netid) bool { return true }, "superuser"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	wantFiles(t, dir, table)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

// TestFileTakenAway has somebody remove, replace or change a file under the daemon: the next registration is not written
// where nobody finds it, but everything is written anew.
func TestFileTakenAway(t *testing.T) {
	for _, name := range []string{rpcbFile, pmapFile} {
		for what, spoil := range map[string]func(path string) error{
			"removed":   os.Remove,
			"truncated": func(path string) error { return os.Truncate(path, 0) },
			"longer":    func(path string) error { return os.Truncate(path, 1<<20) },
			"replaced": func(path string) error {
				return errors.Join(os.WriteFile(path+".x", nil, 0o600), os.Rename(path+".x", path))
			},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				dir := stateDir(t)
				s, log := open(t, dir)
				table := tableOf(t, s)
				set(t, table, nfsTCP)
				if err := spoil(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				set(t, table, mountd)
				wantFiles(t, dir, table)
				if err := s.Err(); err != nil {
					t.Error(err)
				}
				log.want(t, 0, "ERROR", "")
			})
		}
	}
}

// TestDirectories has state directories of every kind: those that won't do are refused, and nothing is made in them.
func TestDirectories(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(dir string) error
		want error // nil: it will do
		text string
	}{
		{"missing", func(string) error { return nil }, nil, ""},
		{"ours", func(dir string) error { return os.Mkdir(dir, 0o700) }, nil, ""},
		{"readable for all", func(dir string) error { return os.Mkdir(dir, 0o755) }, nil, ""},
		{"without its parent", func(dir string) error { return os.Remove(filepath.Dir(dir)) }, os.ErrNotExist, "can't be made"},
		{"a file", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, syscall.ENOTDIR, "it is a file"},
		{"a named pipe", func(dir string) error { return syscall.Mkfifo(dir, 0o600) }, syscall.ENOTDIR, "named pipe"},
		{"a link to a directory of ours", func(dir string) error {
			return errors.Join(os.Mkdir(dir+".real", 0o700), os.Symlink(dir+".real", dir))
		}, ErrUntrusted, "symbolic link"},
		{"a link to nothing", func(dir string) error { return os.Symlink("nothing", dir) }, ErrUntrusted, "symbolic link"},
		{"writable for its group", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o770), os.Chmod(dir, 0o770))
		}, ErrUntrusted, "chmod -R go-w"},
		{"writable for all, sticky", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777|os.ModeSticky))
		}, ErrUntrusted, "chmod -R go-w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "state")
			if err := errors.Join(os.Mkdir(filepath.Dir(dir), 0o755), c.make(dir)); err != nil {
				t.Fatal(err)
			}
			cfg, _ := config(dir)
			s, err := Open(cfg)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Fatalf("Open: %v, want %v", err, c.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q: want one line with %s and %q", err, dir, c.text)
				}
				return
			}
			defer s.Close()
			table := tableOf(t, s)
			set(t, table, nfsTCP)
			wantFiles(t, dir, table)
			if info, err := os.Stat(dir); err != nil || info.Mode()&0o022 != 0 {
				t.Errorf("the directory: %v, %v", info.Mode(), err)
			}
		})
	}
}

const (
	serviceUID = 64103 // of nobody here, like _rpc's
	foreignUID = 64999
)

func TestOwnersOfTheDirectory(t *testing.T) {
	needRoot(t, "gives files to other users")
	service := &Account{serviceUID, 64100}
	for _, c := range []struct {
		name    string
		uid     int // of the directory; -1: it isn't there
		account *Account
		adopt   bool
		trusted []uint32
		want    uint32 // owner of the directory and of the files; 0 is root
		refused bool
	}{
		{"root's", 0, nil, false, nil, 0, false},
		{"made", -1, nil, false, nil, 0, false},
		{"made for the service", -1, service, false, nil, serviceUID, false},
		{"root's, of the service from now on", 0, service, true, nil, serviceUID, false},
		{"root's, which may have another use", 0, service, false, nil, 0, false},
		{"the service's", serviceUID, nil, false, []uint32{serviceUID}, serviceUID, false},
		{"the service's own", serviceUID, service, true, nil, serviceUID, false},
		{"another service's, of ours from now on", foreignUID, service, true, []uint32{foreignUID}, serviceUID, false},
		{"foreign", foreignUID, service, true, []uint32{serviceUID}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if c.uid >= 0 {
				if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, c.uid, 0)); err != nil {
					t.Fatal(err)
				}
			}
			if c.uid == 0 { // there is state already
				s, _ := open(t, dir)
				set(t, tableOf(t, s), nfsTCP)
				s.Close()
			}
			cfg, log := config(dir)
			cfg.Account, cfg.Adopt, cfg.Trusted = c.account, c.adopt, c.trusted
			s, err := Open(cfg)
			if c.refused {
				if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), fmt.Sprint(foreignUID)) {
					t.Errorf("Open: %v, want an error that names uid %d", err, foreignUID)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if c.uid == 0 {
				wantOwner(t, filepath.Join(dir, rpcbFile), c.want) // before it is written anew: the daemon becomes that user
				wantRegs(t, s.Restore(), nfsTCP)
			}
			table := tableOf(t, s)
			set(t, table, mountd)
			wantFiles(t, dir, table)
			wantOwner(t, dir, c.want)
			wantOwner(t, filepath.Join(dir, rpcbFile), c.want)
			wantOwner(t, filepath.Join(dir, pmapFile), c.want)
			log.want(t, 0, "ERROR", "")
			log.want(t, 0, "WARN", "")
		})
	}
}

func wantOwner(t *testing.T, path string, uid uint32) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := owner(info).UID; got != uid {
		t.Errorf("%s belongs to uid %d, want %d", path, got, uid)
	}
}

// BenchmarkChanges registers and keeps, and unregisters, in a table of few and of many registrations.
func BenchmarkChanges(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			s, _ := open(b, stateDir(b))
			table := registry.New()
			for i := range n {
				set(b, table, rpcb(1_000_000+uint32(i), 1, "tcp", "0.0.0.0.8.1", "superuser"))
			}
			table.SetJournal(s)
			b.ReportAllocs()
			for b.Loop() {
				set(b, table, rpcb(2_000_000, 1, "tcp", "0.0.0.0.8.1", "superuser"))
				unset(b, table, 2_000_000, 1)
			}
			if err := s.Err(); err != nil {
				b.Error(err)
			}
		})
	}
}

// TestRemovalOfSeveralIsOne cuts the file off wherever a daemon that is killed may have left it while it removed three
// registrations: all are there or none.
func TestRemovalOfSeveralIsOne(t *testing.T) {
	dir := stateDir(t)
	s, _ := open(t, dir)
	table := tableOf(t, s)
	set(t, table, nfsTCP, mountd, nfsUDP, nfsTCP6)
	path := filepath.Join(dir, rpcbFile)
	before := readFile(t, path)
	unset(t, table, 100003, 3)
	after := readFile(t, path)
	record := after[len(before)-4:] // its element and the end
	erased := append(slices.Clone(after[:len(before)-4]), 0, 0, 0, 0)
	for n := range len(record) + 1 {
		torn := append(slices.Clone(before[:len(before)-4]), record[:n]...)
		writeFile(t, path, torn)
		want := []rpcbind.RPCB{nfsTCP, mountd, nfsUDP, nfsTCP6}
		if n >= len(record)-4 {
			want = []rpcbind.RPCB{mountd} // whole
		}
		d := xdr.NewDecoder(torn)
		wantRegs(t, slices.DeleteFunc(readRPCBs(&d), func(b rpcbind.RPCB) bool { return b.Program == rpcbind.Program }), want...)
	}
	d := xdr.NewDecoder(erased)
	if got := readRPCBs(&d); len(got) != len(own)+1 {
		t.Errorf("without the record %v are there", got)
	}
}

// TestTheFileStaysInProportion registers and unregisters many times what is never there for long.
func TestTheFileStaysInProportion(t *testing.T) {
	dir := stateDir(t)
	s, _ := open(t, dir)
	table := tableOf(t, s)
	set(t, table, mountd)
	largest := int64(0)
	for range 5000 {
		set(t, table, nfsTCP, nfsUDP, nfsTCP6)
		unset(t, table, 100003, 3)
		info, err := os.Stat(filepath.Join(dir, rpcbFile))
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
	}
	if largest > 70<<10 {
		t.Errorf("the file had %d octets for a table of %d", largest, len(table.RPCBs().Append(nil)))
	}
	wantRestored(t, dir, mountd)
}
