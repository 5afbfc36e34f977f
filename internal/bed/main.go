package bed

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The environment is how a test process talks to its children: it is the one
// thing that survives the second start of the test binary.
const (
	envTest       = "GPORTMAP_BED_TEST"        // name of the test that the child is to run inside its namespaces
	envRemote     = "GPORTMAP_BED_REMOTE"      // "1": make the remote host
	envNoIPv6     = "GPORTMAP_BED_NO_IPV6"     // "1": switch IPv6 off
	envBinary     = "GPORTMAP_BED_BINARY"      // path of the gportmap that was built
	envBuildError = "GPORTMAP_BED_BUILD_ERROR" // why there is none
)

// Main runs the tests of a package that uses the bed; call it from TestMain. In
// the first process it builds gportmap into a temporary directory that it
// removes at the end. In a child started by InNamespace it prepares the
// namespaces before the test runs.
func Main(m *testing.M) { run(m, RaceEnabled) }

// MainAsReleased is Main with gportmap built as it is released, also where the
// tests have the race detector: for tests that let system calls fail, which the
// detector doesn't survive.
func MainAsReleased(m *testing.M) { run(m, false) }

func run(m *testing.M, race bool) {
	if os.Getenv(envTest) != "" {
		if err := prepareNamespaces(); err != nil {
			fmt.Fprintf(os.Stderr, "bed: prepare namespaces: %v\n", err)
			os.Exit(2)
		}
		m.Run()
		return
	}
	// Without root no test gets as far as starting a daemon.
	if os.Geteuid() != 0 {
		m.Run()
		return
	}
	dir, err := os.MkdirTemp("", "gportmap-bed-")
	if err != nil {
		fmt.Fprintf(os.Stderr, "bed: %v\n", err)
		os.Exit(2)
	}
	defer os.RemoveAll(dir)
	// The daemon may give up root and tests call as other users: both must
	// be able to reach the binary.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintf(os.Stderr, "bed: %v\n", err)
		os.Exit(2)
	}
	binary := filepath.Join(dir, "gportmap")
	if err := build(binary, race); err != nil {
		os.Setenv(envBuildError, err.Error())
	} else {
		os.Setenv(envBinary, binary)
	}
	m.Run()
}

// build compiles cmd/gportmap into path. It does so in the directory of
// gportmap's module: the tests may be those of another one, as the example of
// an NFS server, which lacks what the daemon needs.
func build(path string, race bool) error {
	const module = "github.com/gportmap/gportmap"
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("go list -m %s: %w", module, err)
	}
	args := []string{"build", "-o", path}
	static := []string{"CGO_ENABLED=0"} // as it is released; only so it can confine itself
	if race {
		args, static = append(args, "-race"), nil
	} else {
		args = append(args, "-trimpath", "-ldflags=-s -w")
	}
	cmd := exec.Command("go", append(args, module+"/cmd/gportmap")...)
	cmd.Env = append(os.Environ(), static...)
	cmd.Dir = strings.TrimSpace(string(root))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build ./cmd/gportmap: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

// prepareNamespaces makes the fresh namespaces of this process usable.
func prepareNamespaces() error {
	// Nothing that is mounted here may show outside.
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/rpcbind", "/run/lock", "/run/netns"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := overlayUnlessLink("/var/run", "/var/lock"); err != nil {
		return err
	}
	if err := replaceFile("/etc/hosts", "127.0.0.1 localhost\n"); err != nil {
		return err
	}
	if os.Getenv(envNoIPv6) != "" {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
			return fmt.Errorf("switch IPv6 off: %w", err)
		}
	}
	steps := [][]string{{"ip", "link", "set", "lo", "up"}}
	if os.Getenv(envRemote) != "" {
		steps = append(steps, remoteSteps()...)
	}
	return runSteps(steps)
}

// overlayUnlessLink mounts a tmpfs on each directory that is not, as in most
// distributions, a link into /run.
func overlayUnlessLink(dirs ...string) error {
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

// replaceFile puts other content over a file of the machine's.
func replaceFile(path, content string) error {
	over := filepath.Join("/run", filepath.Base(path))
	if err := os.WriteFile(over, []byte(content), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(over, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", path, err)
	}
	return nil // the file stays: over one that is removed a test couldn't mount its own
}

func runSteps(steps [][]string) error {
	for _, step := range steps {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(step, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
