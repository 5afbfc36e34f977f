// Package warmstart keeps the portmapper's table on disk, so that a registration that was answered TRUE survives
// the daemon: its crash, a SIGKILL, an upgrade.
//
// The state is rpcbind's own, and rpcbind -w reads it: rpcbind.xdr is an rpcblist, the very octets that version 4's
// DUMP answers, and portmap.xdr a pmaplist, those of version 2. An XDR list ends in a word of zero. A registration
// is appended by one write that begins on that word, before it is answered:
//
//	… element n │ 0                     the file before
//	… element n │ 1 element n+1 │ 0     after one pwrite at the old end
//
// so it costs the same in a table of any size, and a writer that dies in the middle leaves all earlier elements
// whole and at most a part of one that nobody was promised. So does a removal: it writes a word of zero over the program of
// the element. If it is one of several at once, an element that names them is appended before, to remove all of them or
// none. When as much is removed as is left, soon after a removal ([Store.Removed]) and when the daemon ends, the lists are
// written anew, each to a file beside, which then takes the name: so rpcbind finds nothing but registrations, unless the daemon
// was killed within a second of a removal, and then some of program 0, which nobody asks for.
//
// rpcbind.xdr comes first and has everything. portmap.xdr may be one change behind after a crash; it is there for rpcbind,
// and for us only where rpcbind.xdr is missing or damaged.
//
// Nothing is synced to the disk. What a process has written survives its death in any case; a power cut or a crash of
// the kernel ends the registered services as well, and their registrations are ignored in the next boot. A sync would
// only make everybody who registers wait for the disk.
package warmstart

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// The files in the state directory.
const (
	rpcbFile = "rpcbind.xdr"
	pmapFile = "portmap.xdr"
	// bootFile says which boot the lists are of and, in a container, which life of it. There is none on a file system in
	// memory, which doesn't outlive the boot, but in a container.
	bootFile = "boot_id"
)

// StateFailureID is the MESSAGE_ID of the journal's records that the state can't be written.
const StateFailureID = "73d460582a664f9c857ff44b13f3af0f"

// Account is a user and its group.
type Account struct{ UID, GID uint32 }

// Config tells a Store where it keeps the state and whose files it believes.
type Config struct {
	// Dir is the state directory. It is made, mode 0755, if it isn't there; its parent has to be.
	Dir string
	// Account, if not nil, is given the directory if that is made here: the account that rpcbind runs as, or that this
	// process is about to become. It counts as ours. Only root can give something away.
	Account *Account
	// Adopt gives Account the directory and the state in it also if it was there and is root's or another trusted user's:
	// for a directory that has no other use.
	Adopt bool
	// Trusted are the uids, beside root, our own and Account's, that the directory and the files may belong to.
	Trusted []uint32
	// BootID names this boot of the machine, and BootTime is when it began. State of another boot is ignored. Without a
	// boot_id in the directory, or with another, a file is of this boot if it was written since BootTime: so are
	// rpcbind's, which knows no boot_id.
	BootID   string
	BootTime time.Time
	// Container names the life of the container that the process is in, "" for none, and ContainerTime is when it began. A
	// container that is started again keeps its files and the boot, and none of its processes: of state of another life only
	// those registrations are restored for which Served says that a server is there.
	Container     string
	ContainerTime time.Time
	Served        func(rpcbind.RPCB) bool
	Log           *slog.Logger
}

// ErrUntrusted says that others than the portmapper could have written a file or the state directory.
var ErrUntrusted = errors.New("not trusted")

// Store is the state directory of one running daemon, which holds the instance lock. Its methods may be called by
// any goroutine.
type Store struct {
	cfg      Config
	dir      *os.Root
	owner    Account // of the directory; files are given to it, so that rpcbind can read them after us
	volatile bool    // the directory doesn't outlive the boot
	trouble  chan struct{}
	removed  chan struct{}

	mu       sync.Mutex
	rpcbs    list
	mappings list
	sameBoot bool  // boot_id names this boot
	sameLife bool  // and this life of the container
	failure  error // why the files are behind the table; nil if they aren't
	stats    Stats
}

// Stats counts what a Store did.
type Stats struct {
	Writes   uint64    // that succeeded: registrations appended, and tables written
	Failures uint64    // writes of a table that failed
	Written  time.Time // the last time that one succeeded
}

var _ registry.Journal = (*Store)(nil)

// Open makes the state directory, if need be, and checks it. The error says what is wrong with it and what to do;
// errors.Is(err, [ErrUntrusted]) holds if somebody else could write there or chose where it is.
func Open(cfg Config) (*Store, error) {
	if cfg.Account != nil {
		cfg.Trusted = append(slices.Clone(cfg.Trusted), cfg.Account.UID)
	}
	s := &Store{cfg: cfg, trouble: make(chan struct{}, 1), removed: make(chan struct{}, 1), rpcbs: list{name: rpcbFile}, mappings: list{name: pmapFile}}
	if err := s.openDir(); err != nil {
		return nil, fmt.Errorf("state directory %s: %w", cfg.Dir, err)
	}
	return s, nil
}

// Nowhere returns a Store that keeps nothing and isn't to be a table's journal.
func Nowhere() *Store { return &Store{} }

// IsNowhere tells whether [Nowhere] made the Store.
func (s *Store) IsNowhere() bool { return s.dir == nil }

// Append keeps a registration that was added behind all others: element and, if it shows in version 2's list,
// mapping are their encoded list elements. It returns when the files have it, or false if they can't take it or miss
// something earlier already; then everything has to be given to [Store.Rewrite].
func (s *Store) Append(element, mapping []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return false
	}
	if err := s.append(element, mapping); err != nil {
		// Rewrite, which is next, tells whether that can be helped.
		s.cfg.Log.Debug("a registration can't be appended to the state", "dir", s.cfg.Dir, "error", err)
		return false
	}
	s.stats.note(nil)
	return true
}

func (s *Store) append(element, mapping []byte) error {
	if err := s.rpcbs.append(element); err != nil {
		return err
	}
	if len(mapping) == 0 {
		return nil
	}
	return s.mappings.append(mapping)
}

// Remove keeps that registrations are gone; else it is as [Store.Append].
func (s *Store) Remove(r registry.Removal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return false
	}
	if err := s.remove(r); err != nil {
		s.cfg.Log.Debug("a registration can't be removed from the state", "dir", s.cfg.Dir, "error", err)
		return false
	}
	s.stats.note(nil)
	select {
	case s.removed <- struct{}{}:
	default:
	}
	return true
}

func (s *Store) remove(r registry.Removal) error {
	if r.Record != nil {
		if err := s.rpcbs.append(r.Record); err != nil {
			return err
		}
	}
	if err := s.rpcbs.forget(r.RPCBs); err != nil {
		return err
	}
	return s.mappings.forget(r.Mappings)
}

// Rewrite replaces the state by the encoded elements of the two lists. If that can't be done, which is no reason to
// refuse a registration, it is logged once, [Store.Err] tells it, and [Store.Trouble] wakes who tries again.
func (s *Store) Rewrite(rpcbs, mappings registry.List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(s.rewrite(rpcbs, mappings))
}

func (s *Store) rewrite(rpcbs, mappings registry.List) error {
	if err := s.rpcbs.rewrite(s, rpcbs); err != nil {
		return err
	}
	if err := s.mappings.rewrite(s, mappings); err != nil {
		return err
	}
	// Last, or it would make lists of this boot of those that an earlier one left. Lists without it tell their boot by
	// the time at which they were written.
	return s.noteBoot()
}

// note logs the change from well to failed and back.
func (s *Store) note(err error) {
	s.stats.note(err)
	switch {
	case err != nil && s.failure == nil:
		s.cfg.Log.Error("the state can't be written: registrations are served, but those not written are lost when this "+
			"process ends; see that there is room and that the directory may be written, it is tried again all the time",
			"dir", s.cfg.Dir, "error", err, "MESSAGE_ID", StateFailureID)
		select {
		case s.trouble <- struct{}{}:
		default:
		}
	case err == nil && s.failure != nil:
		s.cfg.Log.Info("the state is written again, with everything that was missing", "dir", s.cfg.Dir)
	}
	s.failure = err
}

// Err returns why the files are behind the table, or nil if they have all of it.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		return nil
	}
	return fmt.Errorf("state directory %s: %w", s.cfg.Dir, s.failure)
}

// Stats returns what was counted so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Stats) note(err error) {
	if err != nil {
		s.Failures++
		return
	}
	s.Writes++
	s.Written = time.Now()
}

// Trouble has a value whenever the files have fallen behind the table: then everything has to be given to
// [Store.Rewrite] now and then, until [Store.Err] is nil.
func (s *Store) Trouble() <-chan struct{} { return s.trouble }

// Removed has a value when registrations were removed in their place since the last [Store.Rewrite]: rpcbind would list them as
// some of program 0 until the lists are written anew.
func (s *Store) Removed() <-chan struct{} { return s.removed }

// Close closes the files. What could be written is in them already.
func (s *Store) Close() error {
	if s.IsNowhere() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.rpcbs.close(), s.mappings.close(), s.dir.Close())
}
