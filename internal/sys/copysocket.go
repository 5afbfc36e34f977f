package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A CopiedSocket is a descriptor of our own for a socket that another process has: what comes in while that one ends waits
// in the socket's queue and isn't refused. Nothing of the socket is changed before [CopiedSocket.Serve], for until then
// the other process serves it.
type CopiedSocket struct {
	BoundSocket
	scope uint32 // index of the interface of a link-local address; else 0
	fd    int
	file  inode  // of a local socket's path when it was copied
	spare string // another name of that file, for the other process may remove its path; "" if there is none
}

// spareSuffix is what the spare name has behind the path.
const spareSuffix = ".takeover"

// CopySockets copies the descriptors of those of the wanted sockets that the process has and that can be served: they
// listen, or are UDP sockets without a peer. It needs Linux 5.6 and the right to trace the process (pidfd_getfd(2)); the
// error then is one for which errors.Is(err, syscall.ENOSYS) or errors.Is(err, syscall.EPERM) holds, and nothing is copied.
// The caller closes what it gets or lets it be served.
func (h *ProcessHandle) CopySockets(wanted []BoundSocket) ([]*CopiedSocket, error) {
	fail := func(err error) error { return fmt.Errorf("copy the sockets of process %d: %w", h.PID, err) }
	if h.fd < 0 {
		return nil, fail(unix.ENOSYS)
	}
	byInode := make(map[uint32]BoundSocket)
	for _, s := range wanted {
		if s.Serving && s.Inode != 0 {
			byInode[s.Inode] = s
		}
	}
	numbers, err := socketNumbers(h.PID)
	if err != nil {
		return nil, fail(err)
	}
	var copies []*CopiedSocket
	for number, inode := range numbers {
		s, ok := byInode[inode]
		if !ok {
			continue
		}
		delete(byInode, inode) // one copy will do of a socket that it has twice
		c, err := h.copySocket(s, number)
		if err != nil {
			for _, c := range copies {
				c.Close()
			}
			return nil, fail(err)
		}
		copies = append(copies, c)
	}
	return copies, nil
}

// socketNumbers returns the descriptors of a process that are sockets, with their inodes.
func socketNumbers(pid int) (map[int]uint32, error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	numbers := make(map[int]uint32)
	for _, name := range names {
		number, err := strconv.Atoi(name)
		if inode, ok, _ := socketInode(int(dir.Fd()), name); ok && err == nil {
			numbers[number] = inode
		}
	}
	return numbers, nil
}

// copySocket copies one descriptor. Its number could have been given away since /proc was read, and /proc could have been
// that of another process, so the copy is held against what was wanted.
func (h *ProcessHandle) copySocket(s BoundSocket, number int) (*CopiedSocket, error) {
	fd, err := unix.PidfdGetfd(h.fd, number, 0) // close-on-exec
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	c := &CopiedSocket{BoundSocket: s, fd: fd}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFSOCK || uint32(st.Ino) != s.Inode) {
		err = errors.New("descriptor " + strconv.Itoa(number) + " is another one by now")
	}
	if err == nil {
		_, err = classify(fd)
	}
	if err == nil {
		c.scope, err = scopeOf(fd)
	}
	if err == nil && s.Netid == "local" && s.Path[0] != '@' {
		if err = unix.Lstat(s.Path, &st); err == nil {
			c.file = inodeOf(&st)
			c.keepPath()
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%v: %w", s, err)
	}
	return c, nil
}

// scopeOf returns the index of the interface that a socket's address is one of, if it is link-local.
func scopeOf(fd int) (uint32, error) {
	sa, err := unix.Getsockname(fd)
	if six, ok := sa.(*unix.SockaddrInet6); ok {
		return six.ZoneId, err
	}
	return 0, os.NewSyscallError("getsockname", err)
}

// IsAt tells whether the socket is bound to that address, a link-local one with its zone.
func (c *CopiedSocket) IsAt(a netip.AddrPort) bool {
	scope, err := zoneIndex(a.Addr().Zone())
	return err == nil && c.Addr == unmap(a) && c.scope == scope
}

// keepPath gives the file of a local socket a second name. Without it, what was in the socket's queue when the other
// process removed its path would be lost, and nothing worse.
func (c *CopiedSocket) keepPath() {
	spare := c.Path + spareSuffix
	_ = os.Remove(spare) // of a takeover that was killed
	if err := os.Link(c.Path, spare); err == nil {
		c.spare = spare
	}
}

// path gives the file its name back if the other process removed it, and makes it a socket's like any other.
func (c *CopiedSocket) path() (inode, error) {
	if c.spare != "" {
		if err := os.Link(c.spare, c.Path); err != nil && !errors.Is(err, fs.ErrExist) {
			return inode{}, err
		}
	}
	bound, err := openToAll(c.Path)
	if err == nil && bound != c.file {
		err = errors.New("its path is another file by now")
	}
	return bound, err
}

func (c *CopiedSocket) removeSpare() {
	if c.spare != "" {
		_ = os.Remove(c.spare)
		c.spare = ""
	}
}

// Serve makes the copy a socket like those of ListenUDP, ListenTCP and ListenLocal, once the other process has ended. The
// copy is used up, also by an error: a socket that doesn't listen any more, or one whose path is another's by now, can't be
// served and has to be bound anew.
func (c *CopiedSocket) Serve() (*Socket, error) {
	if c.fd < 0 {
		return nil, fmt.Errorf("serve the copy of %v: %w", c.BoundSocket, unix.EBADF)
	}
	fd := c.fd
	c.fd = -1
	defer c.removeSpare()
	s, err := c.serve(fd)
	if err != nil {
		return nil, fmt.Errorf("serve the copy of %v: %w", c.BoundSocket, err)
	}
	return s, nil
}

// serve takes over fd.
func (c *CopiedSocket) serve(fd int) (*Socket, error) {
	var bound inode
	a, err := classify(fd)
	if err == nil {
		err = os.NewSyscallError("set O_NONBLOCK", unix.SetNonblock(fd, true))
	}
	if err == nil && !a.datagram {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog)) // the queue's length is all that it changes
	}
	if err == nil && c.file != (inode{}) {
		bound, err = c.path()
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s, err := a.socket(fd, c.BoundSocket.String())
	if err != nil {
		return nil, err
	}
	s.bound = bound
	return s, nil
}

// Share lets a process of the socket's user bind another socket to the same address, if that one allows it, too
// (SO_REUSEPORT): until the copy is closed, what comes in may go to either. It is for UDP and TCP.
func (c *CopiedSocket) Share() error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// Close gives the copy back. The socket isn't touched, nor is one that is served already.
func (c *CopiedSocket) Close() {
	c.removeSpare()
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}
