package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// localMode is the mode of a local socket: every user may register and look up.
const localMode = 0o666

// inode is a file's identity as long as something keeps it alive.
type inode struct{ dev, ino uint64 }

// ListenLocal makes a listening stream socket at path, mode 0666 whatever the umask, or in the abstract namespace for
// "@name": the name then is exactly those octets, without a trailing NUL. A socket file that nobody serves any more
// (connect says ECONNREFUSED) is replaced. One that is served is an error for which errors.Is(err, syscall.EADDRINUSE)
// holds; anything but a socket is an error and stays. The caller holds the instance lock: between the look and the bind
// only that keeps another daemon of ours from doing the same.
func ListenLocal(path string) (*Socket, error) {
	if path == "" || path == "@" {
		// bind(2) would choose a name of its own.
		return nil, fmt.Errorf("listen on local socket %q: no name given", path)
	}
	var s *Socket
	var err error
	if strings.HasPrefix(path, "@") {
		s, err = listenAbstract(path)
	} else {
		s, err = listenPath(path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on local socket %s: %w", path, err)
	}
	return s, nil
}

func listenAbstract(name string) (*Socket, error) {
	fd, err := bindLocal(name)
	if err != nil {
		return nil, err
	}
	l, err := listen(fd, "local "+name)
	if err != nil {
		return nil, err
	}
	return &Socket{Netid: "local", Path: name, Listener: l}, nil
}

func listenPath(path string) (*Socket, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	_ = os.Remove(path + spareSuffix) // of a takeover that was killed
	fd, err := bindLocal(path)
	if err != nil {
		return nil, err
	}
	// The mode is set before listen: until then every connect is refused anyway, so nobody who could be served meets
	// the umask's mode. Binding under another name and renaming would hide that moment too, but rename takes the path
	// away from a daemon that got there first, where bind says EADDRINUSE, and ss would show the other name.
	bound, err := openToAll(path)
	if err != nil {
		unix.Close(fd)
		return nil, errors.Join(err, removeOurs(path, bound))
	}
	l, err := listen(fd, "local "+path)
	if err != nil {
		return nil, errors.Join(err, removeOurs(path, bound))
	}
	return &Socket{Netid: "local", Path: path, Listener: l, bound: bound}, nil
}

func bindLocal(path string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	switch err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err {
	case nil:
		return fd, nil
	case unix.EADDRINUSE:
		err = fmt.Errorf("already served by another process, stop it first: %w", err)
	case unix.EINVAL:
		err = fmt.Errorf("%d octets are more than a local socket's name may have (107): %w", len(path), err)
	}
	unix.Close(fd)
	return -1, os.NewSyscallError("bind", err)
}

// clearStale removes a socket file at path that nobody serves.
func clearStale(path string) error {
	if stale, err := StaleSocket(path); err != nil || !stale {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// StaleSocket tells whether path is a socket file that nobody serves (connect says ECONNREFUSED); false without an error
// if there is no file. For one that is served errors.Is(err, syscall.EADDRINUSE) holds, for what is not a socket
// errors.Is(err, syscall.EEXIST).
func StaleSocket(path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode().Type() != fs.ModeSocket:
		return false, fmt.Errorf("the path is taken by something that is not a socket (%v); remove it or choose another path: %w",
			info.Mode(), unix.EEXIST)
	}
	inUse := fmt.Errorf("already served by another process, stop it first: %w", unix.EADDRINUSE)
	// To connect is the last resort, because that starts the service for which systemd listens here.
	holders, err := LocalSockets(path)
	if err == nil && slices.ContainsFunc(holders, func(s BoundSocket) bool { return s.Serving }) {
		return false, inUse
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case unix.ECONNREFUSED:
		return true, nil
	case unix.ENOENT: // it went away by itself
		return false, nil
	case nil, unix.EAGAIN, unix.EPROTOTYPE: // served; its queue is full; served by another type of socket
		return false, inUse
	default:
		return false, fmt.Errorf("cannot tell whether the socket is in use: %w", os.NewSyscallError("connect", err))
	}
}

// openToAll gives the socket file just bound at path its mode and returns its identity.
func openToAll(path string) (inode, error) {
	fd, st, err := openSocketFile(path)
	if err != nil {
		return inode{}, err
	}
	defer unix.Close(fd)
	return inodeOf(&st), chmodSocketFile(fd, localMode)
}

// GiveSocket gives the socket file that this process just bound at path a mode and, unless gid is negative, a group.
// Whoever else can write in the directory may put another file at path: that one is left alone, and an error.
func GiveSocket(path string, mode uint32, gid int) error {
	fd, st, err := openSocketFile(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: another socket took the path of the one just bound; see who can write in its directory", path)
	}
	if gid >= 0 {
		if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
			return os.NewSyscallError("fchownat", err)
		}
	}
	return chmodSocketFile(fd, mode)
}

// openSocketFile opens a socket file for what follows: chmod(2) by name follows a symbolic link that somebody with write
// access to the directory put there.
func openSocketFile(path string) (fd int, st unix.Stat_t, err error) {
	fd, err = unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, os.NewSyscallError("open", err)
	}
	err = os.NewSyscallError("fstat", unix.Fstat(fd, &st))
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = errors.New("the path was taken by something else while it was bound")
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// chmodSocketFile sets the mode by an O_PATH descriptor, which takes no fchmod(2). Its name under /proc is the old way,
// fchmodat2(2) that of Linux 6.6, which needs no /proc.
func chmodSocketFile(fd int, mode uint32) error {
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode); err == nil {
		return nil
	}
	return os.NewSyscallError("fchmodat2", unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH))
}

// removeOurs unlinks path if it is still the inode given.
func removeOurs(path string, ours inode) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || inodeOf(&st) != ours {
		return nil // gone, or another's by now
	}
	return os.Remove(path)
}

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// Cred is who a local peer was when it connected.
type Cred struct {
	UID, GID uint32 // effective ids; 65534 for one without a name in our user namespace
	PID      int32  // 0 for a process outside our PID namespace
}

// PeerCred returns the credentials of the process that connected c, a local connection (SO_PEERCRED).
func PeerCred(c syscall.Conn) (Cred, error) {
	var u *unix.Ucred
	err := control(c, func(fd int) (err error) {
		u, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return os.NewSyscallError("getsockopt SO_PEERCRED", err)
	})
	if err != nil {
		return Cred{}, fmt.Errorf("credentials of a local peer: %w", err)
	}
	return Cred{UID: u.Uid, GID: u.Gid, PID: u.Pid}, nil
}
