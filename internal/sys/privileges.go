package sys

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// DropPrivileges gives up the supplementary groups, then the group, then the user, of all threads, and verifies that none
// of it can come back. A process that already runs as uid and gid, as with User= in a unit, is only verified. After an
// error the process may be in between and must end.
func DropPrivileges(uid, gid uint32) error {
	if err := dropPrivileges(int(uid), int(gid)); err != nil {
		return fmt.Errorf("drop privileges to uid %d, gid %d: %w", uid, gid, err)
	}
	return nil
}

// noID is (uid_t) -1.
const noID = 1<<32 - 1

func dropPrivileges(uid, gid int) error {
	if err := become(uid, gid); err != nil {
		return err
	}
	return verifyDropped(uid, gid)
}

// become gives up the groups and becomes another user, in all threads of the process.
func become(uid, gid int) error {
	if uid == 0 {
		return errors.New("uid 0 keeps every privilege; name another user")
	}
	if uint32(uid) == noID || uint32(gid) == noID {
		return errors.New("4294967295 is no id: the kernel takes it for \"unchanged\"")
	}
	if verifyIDs(uid, gid) == nil {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return nil
}

// verifyDropped says whether we are that user and can't become root again.
func verifyDropped(uid, gid int) error {
	if err := verifyIDs(uid, gid); err != nil {
		return err
	}
	if syscall.Setuid(0) == nil {
		return errors.New("verification: setuid(0) succeeded afterwards; the process has CAP_SETUID")
	}
	if gid != 0 && syscall.Setgid(0) == nil {
		return errors.New("verification: setgid(0) succeeded afterwards; the process has CAP_SETGID")
	}
	return nil
}

// verifyIDs says whether the real, effective and saved ids are uid and gid.
func verifyIDs(uid, gid int) error {
	if r, e, s := unix.Getresuid(); r != uid || e != uid || s != uid {
		return fmt.Errorf("verification: user ids are %d, %d, %d", r, e, s)
	}
	if r, e, s := unix.Getresgid(); r != gid || e != gid || s != gid {
		return fmt.Errorf("verification: group ids are %d, %d, %d", r, e, s)
	}
	return nil
}

// DescriptorLimit returns how many descriptors this process may have, 0 if that can't be told.
func DescriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return int(min(l.Cur, 1<<30))
}
