// Neighbour is a hostile user of the host: it holds, again and again until it is killed, every lock, name, path and socket of
// a portmapper that an unprivileged user can hold. It prints a line whenever it got another one.
//
//	neighbour    as the user that it is started as, never root
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pause between two rounds: short, so that nothing is free for long.
const pause = 5 * time.Millisecond

// The files and sockets of a portmapper.
const (
	socketPath   = "/run/rpcbind.sock"
	socketName   = "@/run/rpcbind.sock"
	mountsOption = "in-a-mount-namespace"
)

func main() {
	if os.Geteuid() == 0 && os.Getenv("GPORTMAP_NEIGHBOUR") == "" {
		fmt.Fprintln(os.Stderr, "neighbour: root may everything; start it as another user")
		os.Exit(1)
	}
	// Who goes by the name alone takes this for a portmapper.
	if err := os.WriteFile("/proc/self/comm", []byte("rpcbind"), 0); err != nil {
		fmt.Fprintln(os.Stderr, "neighbour:", err)
	}
	if len(os.Args) > 1 && os.Args[1] == mountsOption {
		bindElsewhere()
		return
	}
	startElsewhere()
	n := neighbour{got: make(map[string]bool), open: make(map[string][]int)}
	for {
		n.round()
		time.Sleep(pause)
	}
}

// startElsewhere binds the portmapper's socket in a mount namespace of its own, where users may make one.
func startElsewhere() {
	cmd := exec.Command("/proc/self/exe", mountsOption)
	cmd.Env = append(os.Environ(), "GPORTMAP_NEIGHBOUR=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fmt.Println("no user namespace:", err)
	}
}

func bindElsewhere() {
	fail := func(err error) {
		fmt.Println("no mount namespace:", err)
		os.Exit(1)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fail(err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		fail(err)
	}
	if _, err := bind(unix.SOCK_STREAM, socketPath); err != nil {
		fail(err)
	}
	fmt.Println("got", socketPath, "in a mount namespace")
	if err := unix.Pause(); err != nil { // it has been killed, then
		return
	}
}

// bind makes a socket of the Unix domain and listens where that can be done.
func bind(kind int, name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if kind == unix.SOCK_STREAM {
		return fd, unix.Listen(fd, 1)
	}
	return fd, nil
}

// A neighbour knows what it has.
type neighbour struct {
	got  map[string]bool
	open map[string][]int // descriptors of a lock file, also of those that have no name any more
}

func (n *neighbour) have(what string, err error) {
	if err == nil && !n.got[what] {
		n.got[what] = true
		fmt.Println("got", what)
	}
}

// round tries to get whatever it hasn't yet.
func (n *neighbour) round() {
	for what, kind := range map[string]int{socketName: unix.SOCK_STREAM, socketName + " for datagrams": unix.SOCK_DGRAM} {
		if !n.got[what] {
			_, err := bind(kind, socketName)
			n.have(what, err)
		}
	}
	locks, _ := filepath.Glob("/run/rpcbind/*")
	for _, path := range append(locks, "/run/rpcbind.lock", "/run/gportmap.lock", "/run/gportmap.pid") {
		n.lock(path)
	}
	for _, dir := range []string{"/run/lock/subsys", "/var/lock/subsys"} {
		n.have(dir, os.Mkdir(dir, 0o777))
	}
	// Where the directory is ours, what is in it can be anything.
	for _, path := range []string{"/var/lock/subsys/gportmap", "/var/lock/subsys/rpcbind", "/run/gportmap.pid", "/run/gportmap.pid.new",
		"/run/rpcbind.pid", "/run/rpcbind", "/run/rpcbind.lock", "/run/rpcbind/gportmap.lock", "/run/rpcbind/gportmap.sock", "/run/rpcbind.sock"} {
		n.have(path, os.Mkdir(path, 0o777))
	}
	if !n.got[socketPath] {
		_, err := bind(unix.SOCK_STREAM, socketPath)
		n.have(socketPath, err)
	}
}

// lock locks a file by every descriptor of it that it ever got: one outlives chmod and unlink.
func (n *neighbour) lock(path string) {
	const most = 16
	if len(n.open[path]) < most {
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
			n.open[path] = append(n.open[path], fd)
		}
	}
	for _, fd := range n.open[path] {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		n.have("lock "+path, err)
	}
}
