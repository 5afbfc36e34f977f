// Package clients_test holds the portmapper against the programs that live on
// one: rpcinfo, everything built on libtirpc, nfs-ganesha, NIS, a Go NFS client
// and the registration calls of glibc's old sunrpc. Linux's rpcbind and gportmap
// serve them in turn, each in namespaces of its own, and the programs must not
// notice which of the two it is, except where section 8 of the protocol document
// says so.
//
// The tests need root and the programs; what is missing is skipped with the name
// of the Debian package that has it. GPORTMAP_REQUIRE_ALL=1, as in continuous
// integration, turns such a skip into a failure.
package clients_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// envDir names the directory that the first test process shares with the ones
// in namespaces: the compiled tirpc lies there.
const envDir = "GPORTMAP_CLIENTS_DIR"

func TestMain(m *testing.M) {
	if os.Getenv(envDir) == "" {
		dir, err := os.MkdirTemp("", "gportmap-clients-")
		if err != nil {
			fmt.Fprintf(os.Stderr, "clients: %v\n", err)
			os.Exit(2)
		}
		defer os.RemoveAll(dir)
		// Other users than root run tirpc from there.
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintf(os.Stderr, "clients: %v\n", err)
			os.Exit(2)
		}
		os.Setenv(envDir, dir)
	}
	bed.Main(m)
}

// An ordinary user who registers services, and another one.
const (
	owner    = 4242
	stranger = 4243
)

// program is a command that a test needs and the Debian package that has it.
type program struct{ name, pkg string }

// requires ends the test with the reason when it is not run by root or one of
// the programs is missing, rpcbind, the oracle, among them.
func requires(t *testing.T, programs ...program) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "needs root: makes network, mount and process namespaces")
	}
	programs = append([]program{{"rpcbind", "rpcbind"}, {"ip", "iproute2"}}, programs...)
	for _, p := range programs {
		if _, err := look(p.name); err != nil {
			missing(t, fmt.Sprintf("needs %s: apt-get install %s (%v)", p.name, p.pkg, err))
		}
	}
}

// missing skips the test, or fails it where nothing may be skipped.
func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
		t.Fatalf("GPORTMAP_REQUIRE_ALL=1, but the test %s", reason)
	}
	t.Skip(reason)
}

// look finds a program, also where PATH is a user's, without the directories of
// daemons.
func look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if found, dirErr := exec.LookPath(filepath.Join(dir, name)); dirErr == nil {
			return found, nil
		}
	}
	return "", err
}

// scenario is what clients do to one subject. It runs in the namespaces, starts
// the subject itself and records what the clients said.
type scenario func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript)

// each runs the scenario for rpcbind and gportmap at the same time, in
// namespaces of their own, and fails the test where their transcripts differ.
func each(t *testing.T, opts bed.Options, run scenario) {
	t.Helper()
	subjects := [2]bed.Subject{bed.Rpcbind, bed.Gportmap}
	var entries [2][]entry
	for i, s := range subjects {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			entries[i] = bed.Collect(t, opts, func(t *testing.T, ns *bed.NS) []entry {
				record := &transcript{subject: s}
				run(t, ns, s, record)
				return record.entries
			})
		})
	}
	// Cleanups run when the parallel subtests have ended.
	t.Cleanup(func() {
		if !bed.Inside() && entries[0] != nil && entries[1] != nil {
			compare(t, entries[0], entries[1])
		}
	})
}

// entry is one thing that a client did and what came of it.
type entry struct{ What, Output string }

// transcript is what the clients of one subject did, in order.
type transcript struct {
	subject bed.Subject
	entries []entry
}

// add records an output that must be the same for both subjects.
func (r *transcript) add(what, output string) {
	r.entries = append(r.entries, entry{what, output})
}

// addDeviant records an output that differs on purpose. Of rpcbind's output it
// records what ours makes of it, so that the rest of it is still compared; ours
// must change it, because a difference that has gone must not stay excused.
func (r *transcript) addDeviant(t *testing.T, row int, what, output string, ours func(string) string) {
	t.Helper()
	if r.subject == bed.Rpcbind {
		changed := ours(output)
		if changed == output {
			t.Errorf("%s: rpcbind shows nothing of row %d of section 8:\n%s", what, row, output)
		}
		output = changed
	}
	r.add(fmt.Sprintf("%s (section 8, row %d)", what, row), output)
}

// compare fails the test for each entry in which the subjects differ.
func compare(t *testing.T, base, ours []entry) {
	t.Helper()
	if len(base) != len(ours) {
		t.Errorf("rpcbind's transcript has %d entries, gportmap's %d", len(base), len(ours))
	}
	for i := range min(len(base), len(ours)) {
		if base[i].What != ours[i].What {
			t.Fatalf("entry %d: with rpcbind %q, with gportmap %q", i, base[i].What, ours[i].What)
		}
		if base[i].Output != ours[i].Output {
			t.Errorf("%s\nwith rpcbind:\n%s\nwith gportmap:\n%s", base[i].What, indent(base[i].Output), indent(ours[i].Output))
		}
	}
	t.Logf("%d outputs compared", len(base))
}

func indent(s string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n\t")
}
