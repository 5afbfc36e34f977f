package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/sys"
)

// ownFiles makes files of a running daemon anew that somebody removed, as the purge of rpcbind's package does. What lies in
// directories of root's takes root: that is logged, with the remedy.
type ownFiles struct {
	config Config
	lock   *instance.Lock
	desk   *adminDesk
	table  *registry.Table

	present map[string]bool // what there was when it served, and whether it is still there
	end     func()
	watched sync.WaitGroup
}

// start begins to watch, once everything is served.
func (o *ownFiles) start(ctx context.Context) {
	if o.config.stateless() {
		return
	}
	p := o.config.paths()
	o.present = make(map[string]bool)
	paths := []string{p.Lock, p.PIDFile, p.Socket, p.Admin, filepath.Join(o.config.stateDir(), stateFile), o.config.stateDir()}
	for _, path := range paths {
		if path != "" && !absent(path) {
			o.present[path] = true
		}
	}
	w, err := sys.WatchFiles(paths)
	if err != nil {
		o.config.Log.Warn("files that somebody removes aren't made anew; gportmap takeover does", "err", err)
		return
	}
	ctx, o.end = context.WithCancel(ctx)
	o.watched.Go(func() {
		defer w.Close()
		for o.check(); w.Wait(ctx) == nil; {
			o.check()
		}
	})
}

// stop ends the watch before the files are removed.
func (o *ownFiles) stop() {
	if o.end != nil {
		o.end()
		o.watched.Wait()
	}
}

// check looks which of the files is missing.
func (o *ownFiles) check() {
	for path, was := range o.present {
		gone := absent(path) || path == o.lock.Path() && o.lock.Lost()
		switch {
		case !gone:
			if !was {
				o.config.Log.Info("made anew by somebody", "file", path)
			}
			o.present[path] = true
		case was:
			o.present[path] = false
			if err := o.renew(path); err != nil {
				o.config.Log.Error("removed by somebody, and can't be made anew without root: as root, gportmap takeover does, and keeps every registration",
					"file", path, "err", err)
				continue
			}
			o.present[path] = true
			o.config.Log.Warn("removed by somebody, made anew", "file", path)
		}
	}
}

// renew makes a file anew, if this process may.
func (o *ownFiles) renew(path string) error {
	p := o.config.paths()
	switch path {
	case p.Lock:
		return o.lock.Renew()
	case p.PIDFile:
		_, err := instance.WritePIDFile(path)
		return err
	case p.Admin:
		return o.desk.renew()
	case p.Socket:
		return fmt.Errorf("the socket by this path is lost with its file: %w", fs.ErrNotExist)
	case o.config.stateDir():
		return errors.New("the state directory is lost, and registrations are in memory alone")
	}
	o.table.Save()
	_, err := os.Lstat(path)
	return err
}

// absent tells whether there certainly is no file.
func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
