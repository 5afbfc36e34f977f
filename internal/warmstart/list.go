package warmstart

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/gportmap/gportmap/internal/registry"
)

// listEnd is the word that ends an XDR list.
var listEnd = [4]byte{}

// noProgram is the word in the place of a removed element's program.
var noProgram = [4]byte{}

// list is a state file with an XDR list in it.
type list struct {
	name   string
	file   *os.File // nil before the first rewrite
	size   int64    // octets of the elements, without the word that ends the list
	record []byte   // reused: an element with the end of the list
}

// append writes an element over the end of the list and a new end behind it, by one call.
func (l *list) append(element []byte) error {
	if err := l.check(); err != nil {
		return err
	}
	l.record = append(append(l.record[:0], element...), listEnd[:]...)
	if _, err := l.file.WriteAt(l.record, l.size); err != nil {
		// Whatever number WriteAt tells: what was written before the error isn't in it.
		l.undo()
		return err
	}
	l.size += int64(len(element))
	return nil
}

// forget makes the elements at these offsets ones of program 0, which is none. Each takes one word in its place, which no
// signal can cut in two.
func (l *list) forget(offsets []int64) error {
	if len(offsets) == 0 {
		return nil
	}
	if err := l.check(); err != nil {
		return err
	}
	for _, offset := range offsets {
		// The program comes behind the word that says that there is an element.
		if _, err := l.file.WriteAt(noProgram[:], offset+int64(len(listEnd))); err != nil {
			return err
		}
	}
	return nil
}

// check finds out whether the file is still the one that was written: what is appended to a file without a name is kept
// nowhere, and an rpcbind that ends late, after it has given up its lock, truncates it.
func (l *list) check() error {
	if l.file == nil {
		return fmt.Errorf("%s was not written yet", l.name)
	}
	var st syscall.Stat_t // os.File.Stat would make five objects of it
	switch err := syscall.Fstat(int(l.file.Fd()), &st); {
	case err != nil:
		return os.NewSyscallError("fstat", err)
	case st.Nlink == 0:
		return fmt.Errorf("%s was removed or replaced by somebody else", l.name)
	case st.Size != l.size+int64(len(listEnd)):
		return fmt.Errorf("%s was changed by somebody else", l.name)
	}
	return nil
}

// undo ends the list where it ended before an element of which only a part could be written.
func (l *list) undo() {
	// In this order: where nothing can be written the old end is still there, and must not be cut off. If both fail,
	// who reads the file keeps the whole elements.
	_, _ = l.file.WriteAt(listEnd[:], l.size)
	_ = l.file.Truncate(l.size + int64(len(listEnd)))
}

// rewrite puts a new file in the place of the old one: a reader, or the next daemon, sees the one or the other.
func (l *list) rewrite(s *Store, elements registry.List) error {
	f, err := s.replace(l.name, append(slices.Clip(elements.Parts), listEnd[:])...)
	if err != nil {
		return err
	}
	old := l.file
	l.file, l.size = f, int64(elements.Octets)
	if old != nil {
		old.Close() // the name is gone, and with it everything that could be lost
	}
	return nil
}

func (l *list) close() error {
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}

// replace makes a file of mode 0600 with the given content under another name and renames it; it returns the open file.
// If that fails the file that had the name keeps it.
func (s *Store) replace(name string, content ...[]byte) (*os.File, error) {
	temp := name + ".new"
	// A daemon that died may have left one. A symbolic link there is removed, not followed.
	if err := s.dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := s.dir.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	for _, b := range content {
		if err == nil {
			_, err = f.Write(b)
		}
	}
	if err == nil {
		s.give(f)
		err = s.dir.Rename(temp, name)
	}
	if err != nil {
		f.Close()
		_ = s.dir.Remove(temp) // gives room back; the next attempt does it otherwise
		return nil, err
	}
	return f, nil
}

// give lets the owner of the directory own a file in it as well: rpcbind reads its state after it has become _rpc or rpc.
func (s *Store) give(f *os.File) {
	if os.Geteuid() != 0 || s.owner.UID == 0 {
		return
	}
	if err := f.Chown(int(s.owner.UID), int(s.owner.GID)); err != nil {
		// We can read it all the same.
		s.cfg.Log.Debug("a state file can't be given to the directory's owner", "file", f.Name(), "uid", s.owner.UID, "error", err)
	}
}
