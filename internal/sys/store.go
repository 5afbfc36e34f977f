package sys

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keptPrefix begins the names of what is given to a [Store].
const keptPrefix = "kept-"

// A Store keeps sockets open with the service manager beyond the end of this process, also a sudden one: systemd's file
// descriptor store (FDSTORE=1 in sd_notify(3)). [Activation] has them in the next process. Systemd forgets by itself what
// it sees hung up, and everything when the service is stopped and not started again. A nil *Store keeps nothing.
type Store struct {
	manager managerSocket
	limit   int
}

// NewStore returns nil if the service manager keeps nothing for us: NOTIFY_SOCKET or FDSTORE isn't set. The latter says how
// many descriptors it keeps; systemd sets it since version 254, a unit may for earlier ones.
func NewStore() (*Store, error) {
	path, limit := os.Getenv("NOTIFY_SOCKET"), os.Getenv("FDSTORE")
	if path == "" || limit == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(limit, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("descriptor store: FDSTORE=%q is no number", limit)
	}
	if n == 0 {
		return nil, nil
	}
	// The service manager judges by the process that sends, so no other may have the socket.
	store := &Store{manager: managerSocket{path: path}, limit: int(n)}
	if err := store.manager.dial(); err != nil {
		return nil, fmt.Errorf("descriptor store: %w", err)
	}
	return store, nil
}

// Limit is how many descriptors are kept at most.
func (s *Store) Limit() int {
	if s == nil {
		return 0
	}
	return s.limit
}

// Keep has the service manager keep the socket. To be kept already is no error.
func (s *Store) Keep(c syscall.Conn) error {
	if s == nil {
		return errors.ErrUnsupported
	}
	return control(c, func(fd int) error {
		name, err := keptName(fd)
		if err != nil {
			return err
		}
		// Whether a socket is hung up systemd looks by itself unless it is told not to.
		return s.send("FDSTORE=1\nFDNAME="+name, fd)
	})
}

// Forget has the service manager close the socket, if it has it.
func (s *Store) Forget(c syscall.Conn) error {
	if s == nil {
		return nil
	}
	return control(c, func(fd int) error {
		name, err := keptName(fd)
		if err != nil {
			return err
		}
		return s.ForgetName(name)
	})
}

// ForgetName is Forget for one of [Activated.Lost].
func (s *Store) ForgetName(name string) error {
	if s == nil {
		return nil
	}
	return s.send("FDSTOREREMOVE=1\nFDNAME="+name, -1)
}

// Settle returns when the service manager has done everything that it was told before, or after the limit (BARRIER=1, which
// versions before 246 answer as well, by closing the descriptor that they don't expect).
func (s *Store) Settle(limit time.Duration) error {
	if s == nil {
		return nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("descriptor store: %w", err)
	}
	defer ours.Close()
	err = s.send("BARRIER=1", int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		return err
	}
	if err := ours.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("descriptor store: %w", err)
	}
	if _, err := ours.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("descriptor store: the service manager hasn't read everything within %v: %w", limit, err)
	}
	return nil
}

func (s *Store) send(message string, fd int) error {
	if err := s.manager.send(message, fd); err != nil {
		return fmt.Errorf("descriptor store: %s: %w", strings.ReplaceAll(message, "\n", " "), err)
	}
	return nil
}

// keptName names a socket for good: the kernel's cookie for it is no other's until the next boot, and the same in each
// process that has it.
func keptName(fd int) (string, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return "", os.NewSyscallError("getsockopt SO_COOKIE", err)
	}
	return keptPrefix + strconv.FormatUint(cookie, 16), nil
}

// takeBack makes of f, and closes it, what it was when it was given to the store.
func (a *Activated) takeBack(f *os.File) {
	number := int(f.Fd())
	k, err := kindOf(number)
	if err == nil && !k.listening && k.typ == unix.SOCK_STREAM {
		defer f.Close()
		if conn, err := NewConnection(f); err == nil {
			a.Connections = append(a.Connections, conn)
			return
		}
		a.Lost = append(a.Lost, f.Name())
		return
	}
	s, err := activate(f)
	if err != nil {
		a.Lost = append(a.Lost, f.Name())
		return
	}
	s.Kept = true
	a.Kept = append(a.Kept, s)
}

// SyscallConn gives a Store the descriptor.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if s.Packet != nil {
		return s.Packet.raw, nil
	}
	if c, ok := s.Listener.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, os.ErrInvalid
}
