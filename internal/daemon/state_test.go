package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/warmstart"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func TestStateDir(t *testing.T) {
	if got := (Config{}).stateDir(); got != "/run/rpcbind" {
		t.Errorf("the system's is %s", got)
	}
	if got := (Config{StateDir: "/x"}).stateDir(); got != "/x" {
		t.Errorf("an instance's is %s", got)
	}
}

// TestBadStateDirectory also holds that nothing is made where others could have chosen it.
func TestBadStateDirectory(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(dir string) error
		code int
	}{
		{"link", func(dir string) error { return errors.Join(os.Mkdir(dir+".real", 0o755), os.Symlink(dir+".real", dir)) }, ExitStateDir},
		{"writable for others", func(dir string) error { return errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777)) }, ExitStateDir},
		{"file", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, ExitCantCreate},
		{"no parent", func(dir string) error { return os.Remove(filepath.Dir(dir)) }, ExitCantCreate},
	} {
		dir := filepath.Join(t.TempDir(), "parent", "state")
		if err := errors.Join(os.Mkdir(filepath.Dir(dir), 0o755), c.make(dir)); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), Config{StateDir: dir, Port: 1})
		if ExitCode(err) != c.code || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: exit code %d, %v; want %d and one line with %s", c.name, ExitCode(err), err, c.code, dir)
		}
		if left, err := os.ReadDir(dir); err == nil && len(left) != 0 {
			t.Errorf("%s: left behind: %v", c.name, left)
		}
	}
}

func TestThisBoot(t *testing.T) {
	if id := bootID(slog.New(slog.DiscardHandler)); len(id) != 36 {
		t.Errorf("boot_id is %q", id)
	}
	// /proc was mounted in this boot, and this process is of it.
	if at := bootTime(); at.IsZero() || at.After(time.Now()) {
		t.Errorf("this boot began at %v", at)
	}
}

// TestStateIsSavedLater has a state directory that nobody can write in for a while: the state is written when that ends,
// by itself, or at the latest at the end of the daemon.
func TestStateIsSavedLater(t *testing.T) {
	for _, atTheEnd := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "rpcbind.xdr")
		// What keeps even root from writing: the place of the new file is taken.
		obstacle := path + ".new"
		if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		state, err := warmstart.Open(warmstart.Config{Dir: dir, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		table := registry.New()
		end := restore(log, table, state, nil)
		b := rpcbind.RPCB{Program: 300001, Version: 1, Netid: "tcp", Addr: "0.0.0.0.8.1", Owner: "1000"}
		if err := table.Set(b); err != nil {
			t.Fatal(err)
		}
		if state.Err() == nil {
			t.Fatal("the state could be written")
		}
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
		if !atTheEnd {
			again := time.NewTicker(10 * time.Millisecond)
			deadline := time.After(20 * time.Second)
			for state.Err() != nil {
				select {
				case <-again.C:
				case <-deadline:
					t.Fatalf("not written by itself: %v", state.Err())
				}
			}
			again.Stop()
		}
		end()
		if err := errors.Join(state.Err(), state.Close()); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != string(table.RPCBs().Append(nil))+"\x00\x00\x00\x00" {
			t.Errorf("at the end %v: the file is %q, %v", atTheEnd, got, err)
		}
	}
}
