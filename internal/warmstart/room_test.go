package warmstart

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// thisBoot is the name of the boot that tests take place in.
const thisBoot = "11111111-2222-3333-4444-555555555555"

// logged collects what a Store logs.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns how many lines have the level and contain the text.
func (l *logged) lines(level, text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range strings.Split(l.b.String(), "\n") {
		if strings.Contains(line, "level="+level) && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (l *logged) want(t *testing.T, n int, level, text string) {
	t.Helper()
	if got := l.lines(level, text); got != n {
		t.Errorf("%d %s lines with %q, want %d; the log:\n%s", got, level, text, n, l.b.String())
	}
}

func config(dir string) (Config, *logged) {
	log := new(logged)
	return Config{Dir: dir, BootID: thisBoot, BootTime: time.Now().Add(-time.Hour),
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, log
}

// open opens the store as it is on a file system that outlives a boot.
func open(t testing.TB, dir string) (*Store, *logged) {
	t.Helper()
	c, log := config(dir)
	return openWith(t, c), log
}

func openWith(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	s.volatile = false
	t.Cleanup(func() { s.Close() })
	return s
}

// stateDir returns a directory as the daemon has one.
func stateDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rpcbind")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func rpcb(prog, vers uint32, netid rpcbind.Netid, addr, owner string) rpcbind.RPCB {
	return rpcbind.RPCB{Program: prog, Version: vers, Netid: netid, Addr: addr, Owner: owner}
}

// own are registrations of the portmapper itself, on two transports.
var own = []rpcbind.RPCB{
	rpcb(100000, 4, "tcp", "0.0.0.0.0.111", "superuser"),
	rpcb(100000, 4, "local", "/run/rpcbind.sock", "superuser"),
}

// tableOf returns a table with own and what was restored, kept by s.
func tableOf(t testing.TB, s *Store) *registry.Table {
	t.Helper()
	table := registry.New()
	for _, b := range own {
		if err := table.SetOwn(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range s.Restore() {
		if err := table.Set(b); err != nil {
			t.Fatal(err)
		}
	}
	table.SetJournal(s)
	return table
}

func set(t testing.TB, table *registry.Table, entries ...rpcbind.RPCB) {
	t.Helper()
	for _, b := range entries {
		if err := table.Set(b); err != nil {
			t.Fatalf("Set(%+v): %v", b, err)
		}
	}
}

// unset removes all netids of a program and version, as root.
func unset(t testing.TB, table *registry.Table, prog, vers uint32) {
	t.Helper()
	if _, err := table.Unset(prog, vers, func(rpcbind.Netid) bool { return true }, rpcbind.OwnerSuperuser); err != nil {
		t.Fatal(err)
	}
}

// wantFiles checks that the files have the lists of the table, beside what was removed.
func wantFiles(t testing.TB, dir string, table *registry.Table) {
	t.Helper()
	wantFile(t, filepath.Join(dir, rpcbFile), table.RPCBs().Append(nil), func(d *xdr.Decoder) (live []byte) {
		for _, b := range registry.Replay(rpcbind.ReadRPCBList(d, registry.MaxString)) {
			live = rpcbind.AppendRPCBElement(live, b)
		}
		return live
	})
	wantFile(t, filepath.Join(dir, pmapFile), table.Mappings().Append(nil), func(d *xdr.Decoder) (live []byte) {
		for _, m := range rpcbind.ReadMappingList(d) {
			if m.Program != 0 {
				live = rpcbind.AppendMappingElement(live, m)
			}
		}
		return live
	})
}

func wantFile(t testing.TB, path string, elements []byte, live func(*xdr.Decoder) []byte) {
	t.Helper()
	b := readFile(t, path)
	d := xdr.NewDecoder(b)
	if got := live(&d); !bytes.Equal(got, elements) || d.Err() != nil || len(d.Rest()) > 0 {
		t.Errorf("%s is\n%.2000q\n%v; without what was removed\n%.2000q\nwant\n%.2000q", path, b, d.Err(), got, elements)
	}
}

// wantPure checks that the files have nothing but the lists of the table: rpcbind reads them next.
func wantPure(t testing.TB, dir string, table *registry.Table) {
	t.Helper()
	for name, elements := range map[string][]byte{rpcbFile: table.RPCBs().Append(nil), pmapFile: table.Mappings().Append(nil)} {
		if got, want := readFile(t, filepath.Join(dir, name)), append(slices.Clone(elements), 0, 0, 0, 0); !bytes.Equal(got, want) {
			t.Errorf("%s is\n%.2000q\nwant\n%.2000q", name, got, want)
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantRegs(t testing.TB, got []rpcbind.RPCB, want ...rpcbind.RPCB) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("restored\n%v\nwant\n%v", got, want)
	}
}

// wantRestored checks what the next daemon restores from the directory.
func wantRestored(t testing.TB, dir string, want ...rpcbind.RPCB) {
	t.Helper()
	s, _ := open(t, dir)
	wantRegs(t, s.Restore(), want...)
}

// missing fails unless there is no file of that name.
func missing(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}
