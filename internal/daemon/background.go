package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// backgroundEnv tells the process in the background by which descriptor to say that it serves.
const backgroundEnv = "GPORTMAP_BACKGROUND"

// readyFD is that descriptor: the first behind the standard three, where os/exec puts it.
const readyFD = 3

// panicked is the exit code of a Go program that crashed; ours are larger.
const panicked = 2

// readyMark is what is written there.
const readyMark = "r"

// ActivationPending tells whether systemd handed sockets over to this process. They are this process's alone (LISTEN_PID),
// so it stays in the foreground.
func ActivationPending() bool {
	return os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) && os.Getenv("LISTEN_FDS") != ""
}

// EnterBackground tells whether this process is one that [StartInBackground] started. Then it is to call [Detach] when it
// serves. It keeps what it was told from programs that this process starts.
func EnterBackground() bool {
	mark := os.Getenv(backgroundEnv)
	os.Unsetenv(backgroundEnv)
	var st syscall.Stat_t
	if mark != strconv.Itoa(readyFD) || syscall.Fstat(readyFD, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return false
	}
	syscall.CloseOnExec(readyFD)
	return true
}

// StartInBackground starts this program again in a session of its own, with these arguments, of which the first is its
// name, and returns the exit code for this process: [ExitOK] once the other one serves every socket, else the other's own.
// The other one shares our standard error until then, so it tells itself why it failed.
//
// A Go program can't fork: it has threads. What it starts has the name that we have, because scripts look for it by name
// (pidof rpcbind).
func StartInBackground(args []string) (int, error) {
	path, err := program(args[0])
	if err != nil {
		return ExitSystem, err
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return ExitSystem, err
	}
	defer ready.Close()
	cmd := &exec.Cmd{
		Path:        path,
		Args:        args,
		Env:         append(withoutActivation(os.Environ()), fmt.Sprintf("%s=%d", backgroundEnv, readyFD)),
		Stderr:      os.Stderr,
		ExtraFiles:  []*os.File{tell},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	keepFromChildren()
	// A signal for us is meant for the start as a whole.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		tell.Close()
		return ExitSystem, fmt.Errorf("start in the background: %w; --foreground needs no second process", err)
	}
	tell.Close()
	go func() {
		for range signals {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}()
	var mark [1]byte
	n, err := ready.Read(mark[:])
	if n == 1 && string(mark[:]) == readyMark {
		return ExitOK, nil
	}
	if err != nil && err != io.EOF { // it may serve by now, and would for ever
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		return ExitSystem, fmt.Errorf("whether the process in the background serves can't be told, so it was ended: %w; --foreground needs no second process", err)
	}
	return endOf(cmd.Wait())
}

// endOf returns the exit code for a process in the background that ended before it served.
func endOf(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil: // it was told to end
		return ExitSystem, errors.New("the process in the background ended before it served")
	case errors.As(err, &exit) && exit.ExitCode() > panicked:
		return exit.ExitCode(), nil
	}
	return ExitInternal, fmt.Errorf("the process in the background ended before it served: %w", err)
}

// program returns the path by which to start this program again: the one that name resolves to, because the last element
// of the path becomes the process's name, if it is really this program; else what the kernel knows.
func program(name string) (string, error) {
	const self = "/proc/self/exe"
	us, statErr := os.Stat(self)
	ours := func(path string) bool {
		them, err := os.Stat(path)
		return err == nil && (statErr != nil || os.SameFile(us, them))
	}
	if path, err := exec.LookPath(name); err == nil {
		if path, err = filepath.Abs(path); err == nil && ours(path) {
			return path, nil
		}
	}
	path, err := os.Executable()
	if err == nil && ours(path) {
		return path, nil
	}
	if statErr == nil { // the file was replaced or removed since we were started
		return self, nil
	}
	return "", fmt.Errorf("find the program %q to start it in the background: %w; --foreground needs no second process", name, statErr)
}

// withoutActivation removes what systemd said to this process alone.
func withoutActivation(env []string) []string {
	var kept []string
	for _, v := range env {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", backgroundEnv:
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// keepFromChildren makes descriptors that whoever started us left open end here: a daemon that holds the lock file of a
// script, or its pipe, keeps others waiting for ever.
func keepFromChildren() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// Detach is the other half of [StartInBackground], for the process in the background once it serves: it leaves the
// directory, the standard streams and the parent.
func Detach() error {
	if err := os.Chdir("/"); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	tell := os.NewFile(readyFD, "ready")
	defer tell.Close()
	// Whoever started us may have been killed meanwhile, and nobody waits any more. Everything is served, and in a takeover
	// the other portmapper has ended: to give up now would leave the host without any.
	if _, err := tell.WriteString(readyMark); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("tell the starting process that we serve: %w", err)
	}
	return nil
}
