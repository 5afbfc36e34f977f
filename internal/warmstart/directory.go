package warmstart

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// othersMayWrite are the permissions that neither the directory nor a file in it may give.
const othersMayWrite fs.FileMode = 0o022

// openDir opens the state directory, makes it if it isn't there, and checks that nobody but the portmapper can write in
// it. What is checked is what stays open: whoever may rename the directory can't put another in its place.
func (s *Store) openDir() error {
	made, err := s.makeDir()
	if err != nil {
		return err
	}
	named, err := os.Lstat(s.cfg.Dir)
	switch {
	case err != nil:
		return plain(err)
	case named.Mode().Type() == fs.ModeSymlink:
		return fmt.Errorf("%w: it is a symbolic link, which is not followed; remedy: %s", ErrUntrusted, DirectoryRemedy(s.cfg.Dir, true))
	case !named.IsDir():
		return fmt.Errorf("%w (it is a %s); remedy: %s", syscall.ENOTDIR, kind(named.Mode()), DirectoryRemedy(s.cfg.Dir, true))
	}
	dir, err := os.OpenRoot(s.cfg.Dir)
	if err != nil {
		return plain(err)
	}
	if s.dir, err = dir, s.takeDir(dir, named, made); err != nil {
		dir.Close()
	}
	return err
}

// makeDir tells whether it had to make the directory. Its mode lets others in, because the local socket of an instance
// of its own is there, but write nothing.
func (s *Store) makeDir() (made bool, err error) {
	const mode = 0o755
	switch err := os.Mkdir(s.cfg.Dir, mode); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrExist):
		return false, nil
	default:
		return false, fmt.Errorf("it can't be made: %w", plain(err))
	}
}

// takeDir checks the open directory and, if it is to be somebody else's, gives it away.
func (s *Store) takeDir(dir *os.Root, named fs.FileInfo, made bool) error {
	info, err := dir.Stat(".")
	switch {
	case err != nil:
		return plain(err)
	case !os.SameFile(named, info):
		return fmt.Errorf("%w: it was replaced while it was opened; start again", ErrUntrusted)
	case !s.cfg.trusts(info):
		return fmt.Errorf("%w: it belongs to uid %d; remedy: %s", ErrUntrusted, owner(info).UID, DirectoryRemedy(s.cfg.Dir, false))
	case info.Mode()&othersMayWrite != 0:
		return fmt.Errorf("%w: its mode %v lets others write there; remedy: %s", ErrUntrusted, info.Mode().Perm(), DirectoryRemedy(s.cfg.Dir, true))
	}
	s.owner = owner(info)
	if s.volatile, err = inMemory(s.cfg.Dir); err != nil {
		return err
	}
	if a := s.cfg.Account; a != nil && os.Geteuid() == 0 && s.owner.UID != a.UID && a.UID != 0 && (made || s.cfg.Adopt) {
		if err := giveAway(dir, *a); err != nil {
			// Root without CAP_CHOWN, or a file system without owners: the state can be kept all the same.
			s.cfg.Log.Warn("the state directory can't be given to the account that it is for", "dir", s.cfg.Dir, "uid", a.UID, "error", err)
			return nil
		}
		s.owner = *a
	}
	return nil
}

// giveAway changes the owner of the directory and of the state in it. The directory comes last: as soon as it has its
// new owner, its names are the owner's to change.
func giveAway(dir *os.Root, to Account) error {
	for _, name := range []string{rpcbFile, pmapFile, bootFile} {
		if err := dir.Lchown(name, int(to.UID), int(to.GID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	// The directory keeps its group, root's: Debian's init script of rpcbind starts nothing where it is another.
	return f.Chown(int(to.UID), -1)
}

// trusts tells whether who owns a file may be believed. What root owns may be, whoever we are.
func (c *Config) trusts(info fs.FileInfo) bool {
	uid := owner(info).UID
	return uid == 0 || uid == uint32(os.Geteuid()) || slices.Contains(c.Trusted, uid)
}

func owner(info fs.FileInfo) Account {
	st := info.Sys().(*syscall.Stat_t)
	return Account{st.Uid, st.Gid}
}

// inMemory tells whether a directory is on a file system that ends with the boot, as /run is everywhere.
func inMemory(dir string) (bool, error) {
	const tmpfs, ramfs = 0x01021994, 0x858458f6 // <linux/magic.h>
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("its file system can't be told: %w", err)
	}
	// The type is signed or unsigned, of 32 or 64 bits, by architecture.
	magic := uint32(st.Type)
	return magic == tmpfs || magic == ramfs, nil
}

// kind names what a file is.
func kind(m fs.FileMode) string {
	switch m.Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "named pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}

// plain leaves the path out of an error whose reader knows it.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
