package sys

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrThreads says that system calls can't be made by all threads of this program, because it was linked with C libraries.
var ErrThreads = fmt.Errorf("not in a program linked with cgo: %w", errors.ErrUnsupported)

// onAllThreads makes a system call by every thread.
func onAllThreads(name string, trap, a1, a2, a3 uintptr) error {
	switch _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return fmt.Errorf("%s: %w", name, ErrThreads)
	default:
		return os.NewSyscallError(name, errno)
	}
}

// NoNewPrivileges lets no program that this process runs have more privileges than it has itself, for good.
func NoNewPrivileges() error {
	return onAllThreads("prctl", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
}

// DropCapabilities gives up every capability, of all threads and for good, and verifies it. The user stays what it is: without
// capabilities root owns its files and no more.
func DropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none, now [2]unix.CapUserData
	if err := unix.Capget(&header, &now[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if now == none {
		return nil
	}
	err := onAllThreads("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if err != nil {
		return err
	}
	if err := unix.Capget(&header, &now[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if now != none {
		return fmt.Errorf("capset: verification: capabilities are %x", now)
	}
	return nil
}

// What a confined process may do nowhere but beneath its directories, change files, and what it may do there. It runs programs
// nowhere. Rights of later versions of Landlock are asked for where the kernel knows them (landlock(7)).
const (
	landlockChange = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	landlockFiles = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
	landlockRefer    = unix.LANDLOCK_ACCESS_FS_REFER    // since version 2
	landlockTruncate = unix.LANDLOCK_ACCESS_FS_TRUNCATE // since version 3
)

// ConfineWrites lets this process change files in these directories alone, and in files given themselves, and run no
// program any more, for good (Landlock). Paths that aren't there are left out. It takes NoNewPrivileges before.
func ConfineWrites(paths ...string) error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("landlock: %w", os.NewSyscallError("landlock_create_ruleset", errno))
	}
	change := uint64(landlockChange)
	if version >= 2 {
		change |= landlockRefer
	}
	if version >= 3 {
		change |= landlockTruncate
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: change | unix.LANDLOCK_ACCESS_FS_EXECUTE}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return fmt.Errorf("landlock: %w", os.NewSyscallError("landlock_create_ruleset", errno))
	}
	ruleset := int(fd)
	defer unix.Close(ruleset)
	for _, p := range paths {
		if err := allowBeneath(ruleset, p, change&(landlockFiles|landlockTruncate)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("landlock: %s: %w", p, err)
		}
	}
	return onAllThreads("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
}

func allowBeneath(ruleset int, path string, access uint64) error {
	dir, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= unix.LANDLOCK_ACCESS_FS_WRITE_FILE | landlockTruncate
	}
	// The kernel's struct is packed: 12 octets.
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(dir)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_add_rule", errno)
	}
	return nil
}
