package warmstart

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const recordedDir = "../../testdata/warmstart"

// recorded is what is to be restored from rpcbind's recorded files: all but its own and what is no address. rpcbind wrote
// the uid 4294967294 as -2.
var recorded = []rpcbind.RPCB{
	rpcb(100024, 1, "udp", "0.0.0.0.182.11", "superuser"),
	rpcb(100024, 1, "tcp", "0.0.0.0.172.43", "superuser"),
	rpcb(100024, 1, "udp6", "::.201.81", "superuser"),
	rpcb(100024, 1, "tcp6", "::.219.7", "superuser"),
	rpcb(100005, 3, "tcp", "192.0.2.7.78.80", "superuser"),
	rpcb(300001, 1, "tcp", "0.0.0.0.8.1", "1000"),
	rpcb(300001, 1, "local", "/run/service.sock", "1000"),
	rpcb(300001, 2, "udp", "127.0.0.1.8.2", "4294967294"),
	rpcb(300002, 1, "rdma", "0.0.0.0.78.80", "superuser"),
}

func recordedFile(t testing.TB, name string) []byte {
	t.Helper()
	return readFile(t, filepath.Join(recordedDir, name))
}

// TestRecordedFiles reads what a real rpcbind wrote.
func TestRecordedFiles(t *testing.T) {
	dir := stateDir(t)
	writeFile(t, filepath.Join(dir, rpcbFile), recordedFile(t, rpcbFile))
	writeFile(t, filepath.Join(dir, pmapFile), recordedFile(t, pmapFile))
	s, log := open(t, dir)
	wantRegs(t, s.Restore(), recorded...)
	log.want(t, 0, "ERROR", "")
	log.want(t, 1, "WARN", "0.0.0.0.300.1")

	// Without rpcbind.xdr the other file has what shows in version 2, but no owners and no addresses but the wildcard.
	if err := os.Remove(filepath.Join(dir, rpcbFile)); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, dir, recordedMappings()...)
}

// recordedMappings is what portmap.xdr alone tells.
func recordedMappings() []rpcbind.RPCB {
	var regs []rpcbind.RPCB
	for _, b := range recorded {
		if _, ok := b.Netid.Prot(); !ok {
			continue
		}
		a, _ := rpcbind.ParseUAddr(b.Addr)
		b.Addr = "0.0.0.0." + rpcbind.UAddr(a)[len(a.Addr().String())+1:]
		b.Owner = rpcbind.OwnerSuperuser
		regs = append(regs, b)
	}
	return regs
}

// TestFilesAreRpcbinds holds that what we write for rpcbind's table is what rpcbind wrote, to the octet.
func TestFilesAreRpcbinds(t *testing.T) {
	d := xdr.NewDecoder(recordedFile(t, rpcbFile))
	var rpcbs, mappings []byte
	for _, b := range rpcbind.ReadRPCBList(&d, registry.MaxString) {
		rpcbs = rpcbind.AppendRPCBElement(rpcbs, b)
	}
	m := xdr.NewDecoder(recordedFile(t, pmapFile))
	for _, b := range rpcbind.ReadMappingList(&m) {
		mappings = rpcbind.AppendMappingElement(mappings, b)
	}
	dir := stateDir(t)
	s, _ := open(t, dir)
	s.Rewrite(registry.ListOf(rpcbs), registry.ListOf(mappings))
	for _, name := range []string{rpcbFile, pmapFile} {
		if !bytes.Equal(readFile(t, filepath.Join(dir, name)), recordedFile(t, name)) {
			t.Errorf("%s differs from rpcbind's", name)
		}
	}
}

// ends returns where each element of a list ends.
func ends(t testing.TB, b []byte, read func(*xdr.Decoder)) []int {
	t.Helper()
	var list []int
	d := xdr.NewDecoder(b)
	for d.Bool() {
		read(&d)
		list = append(list, len(b)-len(d.Rest()))
	}
	if d.Err() != nil || len(d.Rest()) != 0 {
		t.Fatal(d.Err())
	}
	return list
}

// TestTruncatedAtEveryOctet cuts rpcbind's own files everywhere: every element that is whole is kept, portmap.xdr gives
// what it has of the rest, and the damaged file is set aside as it was.
func TestTruncatedAtEveryOctet(t *testing.T) {
	rpcbs, mappings := recordedFile(t, rpcbFile), recordedFile(t, pmapFile)
	at := ends(t, rpcbs, func(d *xdr.Decoder) { rpcbind.ReadRPCB(d, registry.MaxString) })
	d := xdr.NewDecoder(rpcbs)
	elements := rpcbind.ReadRPCBList(&d, registry.MaxString)
	dir := stateDir(t)
	for n := range len(rpcbs) {
		writeFile(t, filepath.Join(dir, rpcbFile), rpcbs[:n])
		os.Remove(filepath.Join(dir, pmapFile))
		whole := 0
		for whole < len(at) && at[whole] <= n {
			whole++
		}
		var want []rpcbind.RPCB
		for _, b := range recorded {
			if slices.ContainsFunc(elements[:whole], func(e rpcbind.RPCB) bool {
				return e.Program == b.Program && e.Version == b.Version && e.Netid == b.Netid
			}) {
				want = append(want, b)
			}
		}
		s, log := open(t, dir)
		got := s.Restore()
		log.want(t, 1, "ERROR", "damaged")
		if !slices.Equal(got, want) {
			t.Fatalf("cut after %d octets: restored\n%v\nwant\n%v", n, got, want)
		}
		if !bytes.Equal(readFile(t, filepath.Join(dir, rpcbFile+".damaged")), rpcbs[:n]) {
			t.Fatalf("cut after %d octets: what was set aside isn't the file", n)
		}
		// What is in the other file and wasn't restored from the first comes behind.
		writeFile(t, filepath.Join(dir, pmapFile), mappings)
		for _, b := range recordedMappings() {
			if !slices.ContainsFunc(want, func(w rpcbind.RPCB) bool {
				return w.Program == b.Program && w.Version == b.Version && w.Netid == b.Netid
			}) {
				want = append(want, b)
			}
		}
		if got := s.Restore(); !slices.Equal(got, want) {
			t.Fatalf("cut after %d octets, with portmap.xdr: restored\n%v\nwant\n%v", n, got, want)
		}
		s.Close()
	}
}

func TestMappingsTruncatedAtEveryOctet(t *testing.T) {
	mappings := recordedFile(t, pmapFile)
	at := ends(t, mappings, func(d *xdr.Decoder) { rpcbind.ReadMapping(d) })
	const ownOnes = 6
	dir := stateDir(t)
	for n := range len(mappings) {
		writeFile(t, filepath.Join(dir, pmapFile), mappings[:n])
		whole := 0
		for whole < len(at) && at[whole] <= n {
			whole++
		}
		want := recordedMappings()
		want = want[:min(len(want), max(0, whole-ownOnes))]
		s, log := open(t, dir)
		if got := s.Restore(); !slices.Equal(got, want) {
			t.Fatalf("cut after %d octets: restored\n%v\nwant\n%v", n, got, want)
		}
		log.want(t, 1, "ERROR", "damaged")
		s.Close()
	}
}

// TestDamage has files that are no lists.
func TestDamage(t *testing.T) {
	noise := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	list := func(entries ...rpcbind.RPCB) (b []byte) {
		for _, e := range entries {
			b = rpcbind.AppendRPCBElement(b, e)
		}
		return b
	}
	for _, c := range []struct {
		name string
		file []byte
		want []rpcbind.RPCB
	}{
		{"0 octets", nil, nil},
		{"10 MB of noise", noise, nil},
		{"10 MB of zeros", make([]byte, 10<<20), nil},
		{"10 MB of ones", bytes.Repeat([]byte{0xff}, 10<<20), nil},
		{"noise behind two elements", append(list(nfsTCP, mountd), noise...), []rpcbind.RPCB{nfsTCP, mountd}},
		{"noise behind the end", append(list(nfsTCP, mountd), append(make([]byte, 4), noise...)...), []rpcbind.RPCB{nfsTCP, mountd}},
		{"a string of 4 GB", append(list(nfsTCP), 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 'a'), []rpcbind.RPCB{nfsTCP}},
		{"a string of 2 GB", append(list(nfsTCP), 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 'a'), []rpcbind.RPCB{nfsTCP}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := stateDir(t)
			path := filepath.Join(dir, rpcbFile)
			writeFile(t, path, c.file)
			s, log := open(t, dir)
			wantRegs(t, s.Restore(), c.want...)
			log.want(t, 1, "ERROR", "rpcbind.xdr.damaged")
			if !bytes.Equal(readFile(t, path+".damaged"), c.file) {
				t.Error("what was set aside isn't the file")
			}
			// A daemon that dies here leaves the same to the next; one that goes on leaves a good file.
			wantRestored(t, dir, c.want...)
			wantFiles(t, dir, tableOf(t, s))
			if !bytes.Equal(readFile(t, path+".damaged"), c.file) {
				t.Error("what was set aside was changed")
			}
			next, log := open(t, dir)
			wantRegs(t, next.Restore(), c.want...)
			log.want(t, 0, "ERROR", "")
		})
	}
}

// TestWhatIsLeftOut has whole elements that the table can't have.
func TestWhatIsLeftOut(t *testing.T) {
	dir := stateDir(t)
	var b []byte
	other := nfsTCP
	other.Netid, other.Addr = "TCP", "0.0.0.0.8.2"
	for _, e := range []rpcbind.RPCB{own[0], nfsTCP, rpcb(0, 1, "tcp", "0.0.0.0.8.1", ""), other, rpcb(1, 1, "", "x", ""),
		rpcb(1, 1, "tcp\x1b", "x", ""), rpcb(1, 1, "tcp", "0.0.0.0.256.1", ""), rpcb(100000, 7, "udp", "0.0.0.0.8.1", "1000"), mountd} {
		b = rpcbind.AppendRPCBElement(b, e)
	}
	writeFile(t, filepath.Join(dir, rpcbFile), append(b, 0, 0, 0, 0))
	s, log := open(t, dir)
	wantRegs(t, s.Restore(), nfsTCP, mountd)
	log.want(t, 1, "WARN", "")
	log.want(t, 0, "ERROR", "")
}

func TestOwners(t *testing.T) {
	for owner, want := range map[string]string{
		"superuser": "superuser", "unknown": "unknown", "1000": "1000", "4294967295": "4294967295", "-1": "4294967295",
		"-2": "4294967294", "-2147483648": "2147483648", "2147483647": "2147483647",
		"0": "superuser", "": "superuser", "root": "superuser", "1000 ": "superuser", "4294967296": "superuser",
		"-2147483649": "superuser", "99999999999999999999": "superuser", "\x1b[2J": "superuser",
	} {
		if got := ownerOf(owner); got != want {
			t.Errorf("%q: %q, want %q", owner, got, want)
		}
	}
}

// TestCVE_2010_2061 puts what is no state file of ours in a file's place: it is reported and set aside, what it leads to isn't
// touched, and the other file still counts.
func TestCVE_2010_2061(t *testing.T) {
	for _, c := range []struct {
		name string
		root bool
		make func(path, elsewhere string) error
		why  string
	}{
		{"link to a good file", false, func(path, elsewhere string) error { return os.Symlink(elsewhere, path) }, "symbolic link"},
		{"link inside the directory", false, func(path, elsewhere string) error {
			return errors.Join(os.Rename(elsewhere, path+".good"), os.Symlink(filepath.Base(path)+".good", path), os.WriteFile(elsewhere, nil, 0o600))
		}, "symbolic link"},
		{"link to nothing", false, func(path, _ string) error { return os.Symlink("/nonexistent", path) }, "symbolic link"},
		{"link to a device", false, func(path, _ string) error { return os.Symlink("/dev/zero", path) }, "symbolic link"},
		{"named pipe", false, func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }, "named pipe"},
		{"directory", false, func(path, _ string) error { return os.Mkdir(path, 0o700) }, "directory"},
		{"socket", false, func(path, _ string) error { return syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0) }, "socket"},
		{"writable for its group", false, func(path, elsewhere string) error {
			return errors.Join(os.Rename(elsewhere, path), os.Chmod(path, 0o620), os.WriteFile(elsewhere, nil, 0o600))
		}, "lets others write"},
		{"foreign", true, func(path, elsewhere string) error {
			return errors.Join(os.Rename(elsewhere, path), os.Chown(path, foreignUID, 0), os.WriteFile(elsewhere, nil, 0o600))
		}, "belongs to uid"},
		{"device", true, func(path, _ string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|5) }, "device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root {
				needRoot(t, "makes files of other users and devices")
			}
			dir := stateDir(t)
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			good := append(rpcbind.AppendRPCBElement(nil, nfsTCP), 0, 0, 0, 0)
			writeFile(t, elsewhere, good)
			path := filepath.Join(dir, rpcbFile)
			if err := c.make(path, elsewhere); err != nil {
				if errors.Is(err, syscall.EPERM) && c.root {
					t.Skipf("this root may not: %v", err)
				}
				t.Fatal(err)
			}
			before := readFile(t, elsewhere)
			writeFile(t, filepath.Join(dir, pmapFile), append(rpcbind.AppendMappingElement(nil, rpcbind.Mapping{Program: 100005, Version: 3, Prot: 6, Port: 20048}), 0, 0, 0, 0))
			s, log := open(t, dir)
			wantRegs(t, s.Restore(), mountd)
			log.want(t, 1, "ERROR", c.why)
			log.want(t, 1, "ERROR", "rpcbind.xdr.untrusted")
			missing(t, path)
			if _, err := os.Lstat(path + ".untrusted"); err != nil {
				t.Error(err)
			}
			table := tableOf(t, s)
			set(t, table, ofAUser)
			wantFiles(t, dir, table)
			if !bytes.Equal(readFile(t, elsewhere), before) {
				t.Error("the file elsewhere was written")
			}
		})
	}
}

// TestCVE_2010_2064 has symbolic links wherever else the daemon writes.
func TestCVE_2010_2064(t *testing.T) {
	dir := stateDir(t)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	writeFile(t, elsewhere, []byte("precious"))
	for _, name := range []string{rpcbFile + ".new", pmapFile + ".new", bootFile, bootFile + ".new", rpcbFile + ".damaged"} {
		if err := os.Symlink(elsewhere, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, rpcbFile), rpcbind.AppendRPCBElement(nil, nfsTCP)) // without its end
	s, log := open(t, dir)
	table := tableOf(t, s)
	set(t, table, mountd)
	wantFiles(t, dir, table)
	wantRestored(t, dir, nfsTCP, mountd)
	log.want(t, 1, "ERROR", "damaged")
	log.want(t, 1, "ERROR", "boot_id.untrusted")
	if got := string(readFile(t, elsewhere)); got != "precious" {
		t.Errorf("the file elsewhere is %q", got)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

// TestBoots has state of this boot and of earlier ones, by gportmap, which notes the boot, and by rpcbind, which doesn't.
func TestBoots(t *testing.T) {
	const earlier = "00000000-0000-0000-0000-000000000000"
	now := time.Now()
	for _, c := range []struct {
		name    string
		noted   string // boot_id; "" is none
		written time.Time
		bootID  string // of the kernel
		memory  bool   // the file system ends with the boot
		want    bool   // restored
	}{
		{"gportmap's of this boot", thisBoot, now, thisBoot, false, true},
		{"gportmap's of an earlier boot", earlier, now.Add(-2 * time.Hour), thisBoot, false, false},
		{"of this boot, and then the clock was set forward", thisBoot, now.Add(-48 * time.Hour), thisBoot, false, true},
		{"of this boot, and then the clock was set back", thisBoot, now.Add(48 * time.Hour), thisBoot, false, true},
		{"of an earlier boot, and this clock began anew", earlier, now.Add(48 * time.Hour), thisBoot, false, false},
		{"rpcbind's of this boot", "", now.Add(-time.Minute), thisBoot, false, true},
		{"rpcbind's of an earlier boot", "", now.Add(-2 * time.Hour), thisBoot, false, false},
		{"rpcbind's of this boot, where gportmap ran in an earlier one", earlier, now.Add(-time.Minute), thisBoot, false, true},
		{"a kernel that doesn't tell, this boot", "", now.Add(-time.Minute), "", false, true},
		{"a kernel that doesn't tell, earlier boot", thisBoot, now.Add(-2 * time.Hour), "", false, false},
		{"in memory, whatever the clock", "", now.Add(-48 * time.Hour), thisBoot, true, true},
		{"boot_id is noise", "\xff\x00", now.Add(-2 * time.Hour), thisBoot, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := stateDir(t)
			if c.noted != "" {
				writeFile(t, filepath.Join(dir, bootFile), []byte(c.noted+"\n"))
			}
			path := filepath.Join(dir, rpcbFile)
			writeFile(t, path, append(rpcbind.AppendRPCBElement(nil, nfsTCP), 0, 0, 0, 0))
			if err := os.Chtimes(path, c.written, c.written); err != nil {
				t.Fatal(err)
			}
			cfg, log := config(dir)
			cfg.BootID = c.bootID
			reopen := func() *Store {
				s := openWith(t, cfg)
				s.volatile = c.memory
				return s
			}
			var want []rpcbind.RPCB
			if c.want {
				want = []rpcbind.RPCB{nfsTCP}
			}
			// A daemon that dies before it has written anything changes nothing.
			for range 2 {
				wantRegs(t, reopen().Restore(), want...)
			}
			log.want(t, 0, "ERROR", "")
			n := 2
			if c.want {
				n = 0
			}
			log.want(t, n, "INFO", "earlier boot")
			// From the first change on the state is of this boot.
			s := reopen()
			table := tableOf(t, s)
			set(t, table, mountd)
			wantFiles(t, dir, table)
			wantRegs(t, reopen().Restore(), append(slices.Clone(want), mountd)...)
			if b, err := os.ReadFile(filepath.Join(dir, bootFile)); !c.memory && c.bootID != "" && string(b) != thisBoot+"\n" {
				t.Errorf("boot_id is %q, %v", b, err)
			}
		})
	}
}

// TestCrashes restores from what a daemon leaves that is killed at each of its steps.
func TestCrashes(t *testing.T) {
	before := []rpcbind.RPCB{nfsTCP, nfsUDP, nfsTCP6}
	lists := func(entries ...rpcbind.RPCB) (rpcbs, mappings []byte) {
		dir := stateDir(t)
		s, _ := open(t, dir)
		set(t, tableOf(t, s), entries...)
		return readFile(t, filepath.Join(dir, rpcbFile)), readFile(t, filepath.Join(dir, pmapFile))
	}
	oldRPCBs, oldMappings := lists(before...)
	setRPCBs, setMappings := lists(append(slices.Clone(before), mountd)...)
	unsetRPCBs, unsetMappings := lists()

	check := func(what string, files map[string][]byte, want ...rpcbind.RPCB) {
		t.Helper()
		dir := stateDir(t)
		writeFile(t, filepath.Join(dir, bootFile), []byte(thisBoot+"\n"))
		for name, b := range files {
			writeFile(t, filepath.Join(dir, name), b)
		}
		s, _ := open(t, dir)
		if got := s.Restore(); !slices.Equal(got, want) {
			t.Errorf("%s: restored\n%v\nwant\n%v", what, got, want)
		}
		wantFiles(t, dir, tableOf(t, s))
		s.Close()
	}
	// Within the one write of an append each prefix of it may have got into the file.
	after := append(slices.Clone(before), mountd)
	for n := len(oldRPCBs) - 4; n < len(setRPCBs); n++ {
		torn := append(slices.Clone(setRPCBs[:n]), oldRPCBs[min(n, len(oldRPCBs)):]...)
		want := before
		if n >= len(setRPCBs)-4 {
			want = after
		}
		check("a part of the element", map[string][]byte{rpcbFile: torn, pmapFile: oldMappings}, want...)
	}
	check("rpcbind.xdr has the element", map[string][]byte{rpcbFile: setRPCBs, pmapFile: oldMappings}, after...)
	for n := len(oldMappings) - 4; n < len(setMappings); n++ {
		torn := append(slices.Clone(setMappings[:n]), oldMappings[min(n, len(oldMappings)):]...)
		check("portmap.xdr has a part", map[string][]byte{rpcbFile: setRPCBs, pmapFile: torn}, after...)
	}
	// A removal of three netids: all of it or nothing.
	for n := range len(unsetRPCBs) + 1 {
		check("a part of the new file", map[string][]byte{rpcbFile: oldRPCBs, pmapFile: oldMappings, rpcbFile + ".new": unsetRPCBs[:n]}, before...)
	}
	check("rpcbind.xdr is renamed", map[string][]byte{rpcbFile: unsetRPCBs, pmapFile: oldMappings})
	for n := range len(unsetMappings) + 1 {
		check("a part of the second new file", map[string][]byte{rpcbFile: unsetRPCBs, pmapFile: oldMappings, pmapFile + ".new": unsetMappings[:n]})
	}
	// The first write of all.
	check("the first file", map[string][]byte{rpcbFile: setRPCBs}, after...)
	check("a part of the first file", map[string][]byte{rpcbFile + ".new": setRPCBs[:len(setRPCBs)/2]})
}

// FuzzRestore reads anything as the two lists: what is restored the table can have, and written and read again it is the
// same.
func FuzzRestore(f *testing.F) {
	f.Add(recordedFile(f, rpcbFile), recordedFile(f, pmapFile))
	f.Add([]byte{}, []byte{0, 0, 0, 1})
	s := &Store{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	f.Fuzz(func(t *testing.T, rpcbs, mappings []byte) {
		d, m := xdr.NewDecoder(rpcbs), xdr.NewDecoder(mappings)
		regs := s.clean(append(readRPCBs(&d), readMappings(&m)...))
		var list []byte
		for _, b := range regs {
			if _, err := registry.Validate(b); err != nil || b.Program == rpcbind.Program {
				t.Errorf("%+v is restored: %v", b, err)
			}
			list = rpcbind.AppendRPCBElement(list, b)
		}
		again := xdr.NewDecoder(append(list, 0, 0, 0, 0))
		wantRegs(t, s.clean(readRPCBs(&again)), regs...)
	})
}

// TestLivesOfAContainer restores in a container what was kept in this life of it or in another, on a file system that is new
// with each boot.
func TestLivesOfAContainer(t *testing.T) {
	now := time.Now()
	start := now.Add(-time.Minute)
	for _, c := range []struct {
		name      string
		noted     string // "" for no file
		written   time.Time
		here      string // which life this is
		want      []rpcbind.RPCB
		rewritten string
	}{
		{"this life", thisBoot + " 7", now.Add(-time.Second), "7", []rpcbind.RPCB{nfsTCP, nfsUDP}, thisBoot + " 7\n"},
		{"this life, and then the clock was set", thisBoot + " 7", now.Add(-time.Hour), "7", []rpcbind.RPCB{nfsTCP, nfsUDP}, thisBoot + " 7\n"},
		{"an earlier life", thisBoot + " 5", now.Add(-time.Hour), "7", []rpcbind.RPCB{nfsUDP}, thisBoot + " 7\n"},
		{"rpcbind's of this life", "", now.Add(-time.Second), "7", []rpcbind.RPCB{nfsTCP, nfsUDP}, thisBoot + " 7\n"},
		{"rpcbind's of an earlier life", "", now.Add(-time.Hour), "7", []rpcbind.RPCB{nfsUDP}, thisBoot + " 7\n"},
		{"from outside", thisBoot, now.Add(-time.Hour), "7", []rpcbind.RPCB{nfsUDP}, thisBoot + " 7\n"},
		{"no container", thisBoot + " 5", now.Add(-time.Hour), "", []rpcbind.RPCB{nfsTCP, nfsUDP}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := stateDir(t)
			if c.noted != "" {
				writeFile(t, filepath.Join(dir, bootFile), []byte(c.noted+"\n"))
			}
			path := filepath.Join(dir, rpcbFile)
			list := rpcbind.AppendRPCBElement(rpcbind.AppendRPCBElement(nil, nfsTCP), nfsUDP)
			writeFile(t, path, append(list, 0, 0, 0, 0))
			if err := os.Chtimes(path, c.written, c.written); err != nil {
				t.Fatal(err)
			}
			cfg, _ := config(dir)
			cfg.Container, cfg.ContainerTime = c.here, start
			cfg.Served = func(b rpcbind.RPCB) bool { return b.Netid == nfsUDP.Netid }
			for range 2 { // one that dies before it has written anything changes nothing
				s := openWith(t, cfg)
				s.volatile = true
				wantRegs(t, s.Restore(), c.want...)
			}
			s := openWith(t, cfg)
			s.volatile = true
			s.Restore()
			tableOf(t, s)
			b, err := os.ReadFile(filepath.Join(dir, bootFile))
			if c.rewritten != "" && string(b) != c.rewritten {
				t.Errorf("boot_id is %q, %v; want %q", b, err, c.rewritten)
			}
		})
	}
}
