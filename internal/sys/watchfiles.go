package sys

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fileSettle is how long to wait for more after a file changed: editors write in several steps.
const fileSettle = 100 * time.Millisecond

// A FileWatch waits for changes of files (inotify(7)).
type FileWatch struct {
	f     *os.File
	names map[int32]map[string]bool // of a watched directory
}

// WatchFiles returns a watch of files, which may be missing. It watches their directories, because a file is changed most
// often by another one in its place; where a path is a symbolic link, both directories.
func WatchFiles(paths []string) (*FileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", os.NewSyscallError("inotify_init1", err))
	}
	w := &FileWatch{f: os.NewFile(uintptr(fd), "inotify"), names: make(map[int32]map[string]bool)}
	for _, p := range paths {
		w.add(fd, p)
		if target, err := filepath.EvalSymlinks(p); err == nil && target != p {
			w.add(fd, target)
		}
	}
	return w, nil
}

// add ignores directories that can't be watched: what isn't there can't be waited for.
func (w *FileWatch) add(fd int, path string) {
	const changes = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ATTRIB
	wd, err := unix.InotifyAddWatch(fd, filepath.Dir(path), changes)
	if err != nil {
		return
	}
	if w.names[int32(wd)] == nil {
		w.names[int32(wd)] = make(map[string]bool)
	}
	w.names[int32(wd)][filepath.Base(path)] = true
}

// Close ends the watch.
func (w *FileWatch) Close() { _ = w.f.Close() }

// Wait returns nil when a file has changed since the watch was made or since the last Wait, and the error of ctx when that
// ends.
func (w *FileWatch) Wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })()
	var buf [4096]byte
	for seen := false; ; {
		n, err := w.f.Read(buf[:])
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded) && seen:
			return w.f.SetReadDeadline(time.Time{})
		case err != nil:
			return fmt.Errorf("watch files: %w", err)
		}
		if w.concerns(buf[:n]) && !seen {
			seen = true
			if err := w.f.SetReadDeadline(time.Now().Add(fileSettle)); err != nil {
				return fmt.Errorf("watch files: %w", err)
			}
			if ctx.Err() != nil { // its deadline was replaced just now
				return ctx.Err()
			}
		}
	}
}

// concerns tells whether one of the events is about a file of the watch, or that events were lost.
func (w *FileWatch) concerns(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := int(binary.NativeEndian.Uint32(events[12:]))
		name := events[unix.SizeofInotifyEvent:]
		if size > len(name) {
			return true
		}
		if mask&unix.IN_Q_OVERFLOW != 0 || w.names[wd][strings.TrimRight(string(name[:size]), "\x00")] {
			return true
		}
		events = name[size:]
	}
	return false
}
