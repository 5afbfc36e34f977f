package warmstart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const (
	// maxFile bounds a state file in octets: no list that was written is longer.
	maxFile = registry.MaxJournal
	// maxBootID bounds the boot_id file in octets.
	maxBootID = 128
)

// Restore reads the registrations that an earlier daemon of this boot kept, gportmap or rpcbind, in their order. Those of
// program 100000 are left out: they follow from the sockets that are served now. What is wrong with a file is logged, the
// file set aside under a name that says so, and what came whole before the damage is returned.
//
// Restore takes nothing away that it returns: if the process dies before the next [Store.Rewrite], the next one reads
// the same.
func (s *Store) Restore() []rpcbind.RPCB {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBoot()
	regs, whole := s.read(rpcbFile, readRPCBs)
	if !whole {
		mapped, _ := s.read(pmapFile, readMappings)
		regs = append(regs, mapped...)
	}
	return s.clean(regs)
}

// keepsBoot reports whether the directory may outlive what boot_id names.
func (s *Store) keepsBoot() bool { return s.cfg.Container != "" || !s.volatile && s.cfg.BootID != "" }

// readBoot finds out whether the state has the name of this boot, and of this life of the container.
func (s *Store) readBoot() {
	if !s.keepsBoot() {
		return
	}
	b, info, err := s.load(bootFile)
	if info == nil {
		s.report(bootFile, err)
		return
	}
	boot, life, _ := strings.Cut(strings.TrimSpace(string(b[:min(len(b), maxBootID)])), " ")
	s.sameBoot = err == nil && s.cfg.BootID != "" && boot == s.cfg.BootID
	s.sameLife = err == nil && boot == s.cfg.BootID && life == s.cfg.Container
}

// noteBoot gives the state the name of this boot.
func (s *Store) noteBoot() error {
	if !s.keepsBoot() {
		return nil
	}
	if _, err := s.dir.Lstat(bootFile); s.sameLife && err == nil {
		return nil
	}
	text := s.cfg.BootID
	if s.cfg.Container != "" {
		text += " " + s.cfg.Container
	}
	f, err := s.replace(bootFile, []byte(text+"\n"))
	if err != nil {
		return err
	}
	s.sameBoot, s.sameLife = true, true
	return f.Close()
}

// ofThisBoot tells whether a file was written since the machine was started. The time of writing is asked last, because
// the clock may have been set since: then a file of this boot can look like an earlier one's.
func (s *Store) ofThisBoot(info fs.FileInfo) bool {
	return s.volatile || s.sameBoot || writtenSince(s.cfg.BootTime, info)
}

// writtenSince reports whether a file was written since a machine or container was started. A time to come is that of an
// earlier start as well, on a machine whose clock starts anew with each.
func writtenSince(start time.Time, info fs.FileInfo) bool {
	written := info.ModTime()
	return !written.Before(start) && !written.After(time.Now())
}

// ofThisLife returns those of a file's registrations that may be of processes that run: all of them, unless the container was
// started again since.
func (s *Store) ofThisLife(regs []rpcbind.RPCB, info fs.FileInfo) []rpcbind.RPCB {
	if s.cfg.Container == "" || s.sameLife || writtenSince(s.cfg.ContainerTime, info) {
		return regs
	}
	all := len(regs)
	regs = slices.DeleteFunc(regs, func(b rpcbind.RPCB) bool { return !s.cfg.Served(b) })
	if gone := all - len(regs); gone > 0 {
		s.cfg.Log.Info("the container was started again: registrations of servers that are gone are left out", "dir", s.cfg.Dir, "count", gone)
	}
	return regs
}

// read reads one file and tells whether all of it was there.
func (s *Store) read(name string, parse func(*xdr.Decoder) []rpcbind.RPCB) (regs []rpcbind.RPCB, whole bool) {
	b, info, err := s.load(name)
	if info == nil {
		s.report(name, err)
		return nil, false
	}
	if !s.ofThisBoot(info) {
		s.cfg.Log.Info("the state of an earlier boot is ignored", "dir", s.cfg.Dir, "file", name, "written", info.ModTime())
		return nil, false
	}
	d := xdr.NewDecoder(b)
	regs = s.ofThisLife(parse(&d), info)
	switch {
	case err != nil:
	case d.Err() != nil:
		err = d.Err()
	case len(d.Rest()) > 0:
		err = fmt.Errorf("%d octets or more behind the end of the list", len(d.Rest()))
	default:
		return regs, true
	}
	s.keepDamaged(name, err, len(regs))
	return regs, false
}

// loadAttempts is how often it is tried to read a file that is there and may be believed, and loadPause is between two of
// them: that a descriptor or memory is missing for a moment is no reason to lose what was registered.
const (
	loadAttempts = 3
	loadPause    = 20 * time.Millisecond
)

// load reads a file. Info is nil if it can't be opened; else the error says why b isn't all of it.
func (s *Store) load(name string) (b []byte, info fs.FileInfo, err error) {
	for attempt := 1; ; attempt++ {
		b, info, err = s.loadOnce(name)
		if err == nil || attempt == loadAttempts || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUntrusted) {
			return b, info, err
		}
		time.Sleep(loadPause)
	}
}

func (s *Store) loadOnce(name string) ([]byte, fs.FileInfo, error) {
	f, err := s.openTrusted(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	content := bytes.NewBuffer(make([]byte, 0, min(info.Size(), maxFile)+bytes.MinRead))
	_, err = content.ReadFrom(io.LimitReader(f, maxFile))
	return content.Bytes(), info, err
}

// report logs why a file can't be read, unless it isn't there, and gets it out of the way.
func (s *Store) report(name string, err error) {
	why := "unreadable"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case errors.Is(err, ErrUntrusted):
		why = "untrusted"
	}
	aside := name + "." + why
	if renameErr := s.dir.Rename(name, aside); renameErr != nil {
		s.cfg.Log.Error("a state file is "+why+": it is ignored, but can't be set aside", "dir", s.cfg.Dir, "file", name,
			"error", err, "rename", renameErr)
		return
	}
	s.cfg.Log.Error("a state file is "+why+": it is ignored and was set aside", "dir", s.cfg.Dir, "file", name, "as", aside, "error", err)
}

// keepDamaged keeps a damaged file under a second name. It keeps its first one, too, until the next state takes that:
// if this process dies before, the next one finds the same.
func (s *Store) keepDamaged(name string, err error, whole int) {
	aside := name + ".damaged"
	linkErr := s.dir.Remove(aside)
	if linkErr == nil || errors.Is(linkErr, fs.ErrNotExist) {
		linkErr = s.dir.Link(name, aside)
	}
	if linkErr != nil {
		s.cfg.Log.Error("a state file is damaged, and can't be set aside", "dir", s.cfg.Dir, "file", name, "kept", whole,
			"error", err, "link", linkErr)
		return
	}
	s.cfg.Log.Error("a state file is damaged and was set aside; the registrations before the damage are kept",
		"dir", s.cfg.Dir, "file", name, "as", aside, "kept", whole, "error", err)
}

// openTrusted opens a file that nobody but the portmapper can have written. It opens nothing but regular files: no
// device, and no named pipe, which could hold us up for ever.
func (s *Store) openTrusted(name string) (*os.File, error) {
	named, err := s.dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if err := s.checkFile(named); err != nil {
		return nil, err
	}
	f, err := s.dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(named, opened) {
		err = fmt.Errorf("%w: it was replaced while it was opened", ErrUntrusted)
	}
	if err == nil {
		err = s.checkFile(opened)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) checkFile(info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: it is a %s", ErrUntrusted, kind(info.Mode()))
	case !s.cfg.trusts(info):
		return fmt.Errorf("%w: it belongs to uid %d", ErrUntrusted, owner(info).UID)
	case info.Mode()&othersMayWrite != 0:
		return fmt.Errorf("%w: its mode %v lets others write it", ErrUntrusted, info.Mode().Perm())
	}
	return nil
}

func readRPCBs(d *xdr.Decoder) []rpcbind.RPCB {
	return registry.Replay(rpcbind.ReadRPCBList(d, registry.MaxString))
}

// readMappings turns a pmaplist into registrations. It has no owners, so only the superuser may remove them.
func readMappings(d *xdr.Decoder) []rpcbind.RPCB {
	var regs []rpcbind.RPCB
	for _, m := range rpcbind.ReadMappingList(d) {
		netid, ok := rpcbind.NetidOfProt(m.Prot)
		if !ok || m.Port > 0xffff || m.Program == 0 { // 0: removed
			continue
		}
		addr := rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
		regs = append(regs, rpcbind.RPCB{Program: m.Program, Version: m.Version, Netid: netid, Addr: addr,
			Owner: rpcbind.OwnerSuperuser})
	}
	return regs
}

// clean leaves out our own program, what is there twice, and what the table wouldn't take, because rpcbind keeps what is
// no address at all.
func (s *Store) clean(regs []rpcbind.RPCB) []rpcbind.RPCB {
	type key struct {
		prog, vers uint32
		netid      string
	}
	seen := make(map[key]bool, len(regs))
	invalid := 0
	kept := regs[:0]
	for _, b := range regs {
		k := key{b.Program, b.Version, strings.ToLower(string(b.Netid))}
		if b.Program == rpcbind.Program || seen[k] {
			continue
		}
		if _, err := registry.Validate(b); err != nil {
			if invalid++; invalid == 1 {
				s.cfg.Log.Warn("registrations in the state that can't be valid are left out; this is the first", "program", b.Program,
					"version", b.Version, "netid", string(b.Netid), "address", b.Addr, "error", err)
			}
			continue
		}
		seen[k] = true
		b.Owner = ownerOf(b.Owner)
		kept = append(kept, b)
	}
	return kept
}

// ownerOf returns an owner as this portmapper writes it. rpcbind writes uids from 2³¹ on as negative numbers; who is none
// of an owner's three forms can't come and remove anything, so root has to.
func ownerOf(owner string) string {
	if owner == rpcbind.OwnerUnknown || owner == rpcbind.OwnerSuperuser {
		return owner
	}
	uid, err := strconv.ParseInt(owner, 10, 64)
	switch {
	case err != nil || uid == 0 || uid < -1<<31 || uid >= 1<<32:
		return rpcbind.OwnerSuperuser
	default:
		return strconv.FormatUint(uint64(uint32(uid)), 10)
	}
}
