package bed_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	accounts "os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
)

// What an administrator sees.
type seen struct {
	code           int
	stdout, stderr string
}

func (s seen) String() string { return fmt.Sprintf("exit code %d\n%s%s", s.code, s.stdout, s.stderr) }

// shell runs a command line as it would be typed, with gportmap in PATH.
func shell(t *testing.T, line string) seen { return shellAs(t, 0, line) }

func shellAs(t *testing.T, uid uint32, line string) seen {
	t.Helper()
	path, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = []string{"PATH=" + filepath.Dir(path) + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
		"GORACE=" + os.Getenv("GORACE")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Dir = "/"
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer hung.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", line, err)
	}
	s := seen{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	t.Logf("$ %s\n%s", line, s)
	return s
}

// want fails unless the exit code is as it should be and the output has every text.
func (s seen) want(t *testing.T, code int, texts ...string) seen {
	t.Helper()
	if s.code != code {
		t.Fatalf("exit code %d, want %d: %s", s.code, code, s)
	}
	for _, text := range texts {
		if !strings.Contains(s.stdout+s.stderr, text) {
			t.Fatalf("%q is missing: %s", text, s)
		}
	}
	return s
}

// oneLine fails unless what went wrong was said in one line.
func (s seen) oneLine(t *testing.T) seen {
	t.Helper()
	if strings.Count(s.stderr, "\n") != 1 {
		t.Fatalf("not one line: %s", s)
	}
	return s
}

// Files that say that gportmap runs.
const (
	pidFile    = "/run/gportmap.pid"
	subsysLock = "/var/lock/subsys/gportmap"
)

// subsysDirectory makes the directory that only systems with System V's init scripts have.
func subsysDirectory(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(subsysLock), 0o755); err != nil {
		t.Fatal(err)
	}
}

func present(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// marked fails unless pid file and subsys lock are there or not, as they should.
func marked(t *testing.T, want bool) {
	t.Helper()
	for _, path := range []string{pidFile, subsysLock} {
		if present(path) != want {
			t.Errorf("%s: exists is %v, want %v", path, !want, want)
		}
	}
}

// runningPID returns the pid that gportmap status tells.
func runningPID(t *testing.T) int {
	t.Helper()
	var s struct {
		State   string
		Process struct {
			PID      int
			Gportmap bool
		}
	}
	if err := json.Unmarshal([]byte(shell(t, "gportmap status --json").want(t, 0).stdout), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != "running" || !s.Process.Gportmap || s.Process.PID == 0 {
		t.Fatalf("%+v", s)
	}
	return s.Process.PID
}

// seedRegistrations are what ypbind registers, and one of another user.
func seedRegistrations(t *testing.T) {
	t.Helper()
	for _, r := range []string{"100007 1 udp 0.0.0.0.78.94", "100007 2 udp 0.0.0.0.78.94", "100007 3 udp 0.0.0.0.78.94",
		"100007 1 tcp 0.0.0.0.78.95", "100007 2 tcp 0.0.0.0.78.95", "100007 3 tcp 0.0.0.0.78.95"} {
		shell(t, "gportmap set "+r).want(t, 0)
	}
	shellAs(t, 1234, "gportmap set 300100 1 udp 0.0.0.0.200.1").want(t, 0)
}

// seedIntact fails unless all of them are there, with their owners.
func seedIntact(t *testing.T) {
	t.Helper()
	list := shell(t, "gportmap list").want(t, 0).stdout
	for _, want := range []string{
		`100007\s+1\s+udp\s+20062\s+0\.0\.0\.0\.78\.94\s+superuser\s+ypbind`,
		`100007\s+2\s+udp\s+20062`, `100007\s+3\s+udp\s+20062`,
		`100007\s+1\s+tcp\s+20063`, `100007\s+2\s+tcp\s+20063`, `100007\s+3\s+tcp\s+20063`,
		`300100\s+1\s+udp\s+51201\s+0\.0\.0\.0\.200\.1\s+1234`,
	} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("%s is lost:\n%s", want, list)
		}
	}
}

// TestSeedScenario is what the project was asked for first: an administrator lost days to "portmap dead but subsys locked"
// and "cannot bind udp: Address already in use", because rpcbind silently held port 111.
func TestSeedScenario(t *testing.T) {
	for _, way := range []string{"the remedy", "takeover"} {
		t.Run(way, func(t *testing.T) {
			bed.NeedRpcbind(t)
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
				subsysDirectory(t)

				// rpcbind has port 111, a state directory that it may write to, and ypbind is registered there.
				rpcbind := ns.StartBare(t, bed.Rpcbind)
				if !eventually(func() bool { return rpcbindAnswers() }) {
					t.Fatal("rpcbind doesn't answer")
				}
				name, uid := userOf(t, rpcbind.PID())
				if err := os.Chown("/run/rpcbind", uid, -1); err != nil {
					t.Fatal(err)
				}
				seedRegistrations(t)
				seedIntact(t)

				// The administrator starts gportmap, who knows nothing of rpcbind. It fails, and says in one line who is in the
				// way, with pid and user, and what to do.
				kill := fmt.Sprintf("kill %d", rpcbind.PID())
				failed := shell(t, "gportmap").oneLine(t).want(t, 75, "already running", "by rpcbind (pid "+strconv.Itoa(rpcbind.PID()),
					"user "+name, "remedy: "+kill+", or gportmap takeover")
				if failed.stdout != "" {
					t.Errorf("it talks on standard output: %q", failed.stdout)
				}

				// Nothing says that gportmap runs, and status tells what does.
				marked(t, false)
				status := shell(t, "gportmap status").want(t, 3, "rpcbind (pid "+strconv.Itoa(rpcbind.PID()), "is serving, not gportmap")
				if strings.Contains(status.String(), "dead") || strings.Contains(status.String(), "locked") {
					t.Errorf("status is a mystery: %s", status)
				}
				// The doctor says the same, and to stop gportmap doesn't stop rpcbind.
				shell(t, "gportmap doctor").want(t, 1, "rpcbind (pid "+strconv.Itoa(rpcbind.PID()), kill)
				shell(t, "gportmap stop").want(t, 0, "not running")
				seedIntact(t)

				// The administrator does what the line says. (A portmapper answers all the time in the other way.)
				if way == "takeover" {
					shell(t, "gportmap --takeover").want(t, 0)
				} else {
					shell(t, kill).want(t, 0)
					rpcbind.Wait()
					shell(t, "gportmap").want(t, 0)
				}

				// gportmap runs, with everything that was registered, and says so.
				shell(t, "gportmap status").want(t, 0, "running (pid ", "udp 0.0.0.0:111", "registrations: 7")
				seedIntact(t)
				marked(t, true)
				shell(t, "gportmap doctor").want(t, 0, "nothing is wrong")

				// And back: gportmap stops, leaves nothing behind, and rpcbind -w has it all.
				shell(t, "gportmap stop").want(t, 0)
				marked(t, false)
				shell(t, "gportmap status").want(t, 3, "stopped\n")
				ns.Start(t, bed.Rpcbind)
				seedIntact(t)
			})
		})
	}
}

// userOf returns the login name and the id of a process's user: distributions have rpcbind become a user of its own.
func userOf(t *testing.T, pid int) (string, int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	uid := regexp.MustCompile(`\nUid:\s+\d+\s+(\d+)`).FindSubmatch(status)
	if uid == nil {
		t.Fatalf("no Uid: in %s", status)
	}
	u, err := accounts.LookupId(string(uid[1]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return u.Username, id
}

func rpcbindAnswers() bool {
	path, err := bed.Gportmap.Path()
	return err == nil && exec.Command(path, "list").Run() == nil
}

// TestKilledIsNoMystery kills gportmap. System V's files stay behind, and nobody is misled by them.
func TestKilledIsNoMystery(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		subsysDirectory(t)
		shell(t, "gportmap").want(t, 0)
		seedRegistrations(t)
		marked(t, true)
		crash(t)
		marked(t, true)

		// Others than root may not remove the files. They are told that nothing runs, and by whom it is put right.
		shellAs(t, 1234, "gportmap status").want(t, 1, "stopped", pidFile, "as root")
		// Root's status puts it right.
		shell(t, "gportmap status").want(t, 3, "stopped (stale lock removed: ", subsysLock, pidFile)
		marked(t, false)
		shell(t, "gportmap status").want(t, 3, "stopped\n")

		// A start does as well, at once, and has every registration.
		shell(t, "gportmap").want(t, 0)
		seedIntact(t)
		crash(t)
		shell(t, "gportmap").want(t, 0)
		seedIntact(t)
		marked(t, true)

		// The doctor tells, and repairs when asked to.
		crash(t)
		shell(t, "gportmap doctor").want(t, 1, subsysLock+" is stale", pidFile+" is stale", "doctor --fix")
		marked(t, true)
		shell(t, "gportmap doctor --fix").want(t, 0, "fixed", "nothing is wrong")
		marked(t, false)
		shell(t, "gportmap doctor").want(t, 0, "nothing is wrong")

		// With -s it may remove neither lock nor pid file at its end. Stop, which is root's, does.
		shell(t, "gportmap -s").want(t, 0)
		if present(subsysLock) {
			t.Errorf("%s was made, which can't be removed at the end", subsysLock)
		}
		shellAs(t, 1234, "gportmap status").want(t, 0, "running (pid ")
		shell(t, "gportmap stop").want(t, 0)
		marked(t, false)
		shell(t, "gportmap status").want(t, 3, "stopped\n")
	})
}

// crash kills gportmap and returns when it is gone.
func crash(t *testing.T) {
	t.Helper()
	pid := runningPID(t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Its parent has ended, so it is process 1's, which in here is this test's.
	if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
}

// TestInitScript runs init/sysv/gportmap as Debian's service(8) does and with a stand-in of Red Hat's functions.
func TestInitScript(t *testing.T) {
	script, err := filepath.Abs("../../init/sysv/gportmap")
	if err != nil {
		t.Fatal(err)
	}
	functions, err := filepath.Abs("testdata/functions")
	if err != nil {
		t.Fatal(err)
	}
	for _, style := range []struct{ name, functions, started string }{
		{"debian", "", "Starting RPC portmapper: gportmap."},
		{"redhat", functions, "[  OK  ]"},
	} {
		t.Run(style.name, func(t *testing.T) {
			if _, err := os.Stat("/lib/lsb/init-functions"); err != nil && style.functions == "" {
				t.Skipf("needs the functions of the LSB: apt-get install sysvinit-utils or lsb-base (%v)", err)
			}
			bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
				subsysDirectory(t)
				installScript(t, script, style.functions)
				service := func(action string) seen {
					t.Helper()
					s := shell(t, "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin GORACE=$GORACE /etc/init.d/gportmap "+action)
					if strings.Contains(s.String(), "subsys locked") || strings.Contains(s.String(), "dead") {
						t.Errorf("%s: a mystery: %s", action, s)
					}
					return s
				}
				service("status").want(t, 3, "stopped")
				service("condrestart").want(t, 0)
				service("status").want(t, 3, "stopped")
				service("reload").want(t, 7, "not running")
				service("stop").want(t, 0)
				service("start").want(t, 0, style.started)
				marked(t, true)
				service("start").want(t, 0, "Already running")
				service("status").want(t, 0, "running (pid ")
				seedRegistrations(t)
				before := runningPID(t)
				for _, action := range []string{"restart", "force-reload", "condrestart", "try-restart"} {
					service(action).want(t, 0)
					after := runningPID(t)
					if after == before {
						t.Errorf("%s: pid %d still runs", action, before)
					}
					before = after
					seedIntact(t)
				}
				service("reload").want(t, 0)
				if pid := runningPID(t); pid != before {
					t.Errorf("reload: pid %d, was %d", pid, before)
				}
				// The options that the script found reach the daemon.
				if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", before)); err != nil || !strings.Contains(string(args), "\x00-w\x00-l") {
					t.Errorf("command line %q, %v", args, err)
				}

				// With a wrong configuration the daemon that runs stays, and who asked hears why.
				wrongConfiguration(t, true)
				for _, action := range []string{"restart", "force-reload", "condrestart"} {
					service(action).want(t, 6, "expsure", "it runs on")
				}
				if pid := runningPID(t); pid != before {
					t.Errorf("restart with a wrong configuration: pid %d, was %d", pid, before)
				}
				wrongConfiguration(t, false)
				service("restart").want(t, 0)
				seedIntact(t)
				before = runningPID(t)
				crash(t)
				service("status").want(t, 3, "stopped (stale lock removed: ", subsysLock)
				service("start").want(t, 0)
				crash(t)
				service("start").want(t, 0)
				seedIntact(t)
				service("stop").want(t, 0)
				marked(t, false)
				service("status").want(t, 3, "stopped\n")
				service("nonsense").want(t, 2, "Usage")
			})
		})
	}
}

// installScript puts the script into /etc/init.d with its options, and beside it Red Hat's functions if given.
func installScript(t *testing.T, script, functions string) {
	t.Helper()
	binary, err := bed.Gportmap.Path()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/etc/init.d", "/etc/default"} {
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("needs a mount point for the init script: %v", err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
	}
	install := func(path, content string, mode os.FileMode) {
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	install("/etc/init.d/gportmap", read(script), 0o755)
	install("/etc/default/rpcbind", "OPTIONS=\"-w -l\"\n", 0o644)
	install("/etc/default/gportmap", "DAEMON="+binary+"\n", 0o644)
	if functions != "" {
		install("/etc/init.d/functions", read(functions), 0o644)
	}
}

// wrongConfiguration has the script's options name a configuration file with a key that isn't one, or ends that.
func wrongConfiguration(t *testing.T, wrong bool) {
	t.Helper()
	const defaults, file = "/etc/default/gportmap", "/etc/default/gportmap.toml"
	b, err := os.ReadFile(defaults)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), "OPTIONS=")
	if wrong {
		text += fmt.Sprintf("OPTIONS=\"$OPTIONS --config %s\"\n", file)
	}
	if err := errors.Join(os.WriteFile(file, []byte("expsure = \"lan\"\n"), 0o644), os.WriteFile(defaults, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
