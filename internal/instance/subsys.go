package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A SubsysLock is the file in /var/lock/subsys by which System V init scripts remember that a service was started. It
// says nothing about whether it runs: the kernel lock does.
type SubsysLock struct{ path string }

// CreateSubsys makes the empty file at path, mode 0644, or takes over the one that is there. It returns nil without an
// error if the directory doesn't exist, which is never made, or path is empty. The directory must be one that only root
// or we may write to: /var/lock is everybody's on some systems, and what another user prepared there isn't used. The
// caller holds the instance lock, serves, and can still remove the file at its end.
func CreateSubsys(path string) (*SubsysLock, error) {
	if path == "" {
		return nil, nil
	}
	dir, err := openSubsys(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("subsys lock %s: %w", path, err)
	}
	defer dir.Close()
	name := filepath.Base(path)
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	switch {
	case err == nil:
		f.Close()
	case errors.Is(err, fs.ErrExist):
		info, err := dir.Lstat(name)
		if err != nil {
			return nil, fmt.Errorf("subsys lock %s: %w", path, err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("subsys lock %s: is not a regular file (%v); remove it", path, info.Mode())
		}
	default:
		return nil, fmt.Errorf("subsys lock %s: %w", path, err)
	}
	return &SubsysLock{path: path}, nil
}

// Remove removes the file, whoever made it, because it is about us as long as we hold the instance lock. Errors are as
// those of [PIDFile.Remove]. A nil SubsysLock does nothing.
func (s *SubsysLock) Remove() error {
	if s == nil {
		return nil
	}
	_, err := removeSubsys(s.path)
	return err
}

// removeSubsys removes the file at path if it is a regular one in a directory that may be used.
func removeSubsys(path string) (removed bool, err error) {
	dir, err := openSubsys(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("subsys lock %s: %w", path, err)
	}
	defer dir.Close()
	name := filepath.Base(path)
	info, err := dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("subsys lock %s: %w", path, err)
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("subsys lock %s: is not a regular file (%v); remove it", path, info.Mode())
	}
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("subsys lock %s: %w", path, err)
	}
	return true, nil
}

// openSubsys opens the directory of path. Through it a name means the same file whatever happens to the path, and links
// lead nowhere but below the directory's parent.
func openSubsys(path string) (*os.Root, error) {
	parent, err := os.OpenRoot(filepath.Dir(filepath.Dir(path)))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	dir, err := parent.OpenRoot(filepath.Base(filepath.Dir(path)))
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat(".")
	if err == nil {
		err = trusted(info)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// trusted tells what is wrong with a directory that others than root and we may write to.
func trusted(dir os.FileInfo) error {
	st, ok := dir.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("its directory's owner can't be told")
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("its directory belongs to another user (uid %d) and isn't used; remove the directory", st.Uid)
	case dir.Mode()&0o022 != 0:
		return fmt.Errorf("its directory may be written to by others (%v) and isn't used; chmod go-w the directory", dir.Mode())
	}
	return nil
}
