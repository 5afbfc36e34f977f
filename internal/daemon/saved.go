package daemon

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

const (
	// stateFile is the one that has every registration, see package warmstart.
	stateFile = "rpcbind.xdr"
	// stateOctets bounds what is read of it.
	stateOctets = registry.MaxJournal
	// stateString bounds a string in it, octets.
	stateString = registry.MaxString
)

func (c Config) statePath() string { return filepath.Join(c.stateDir(), stateFile) }

// writeState writes registrations to the state files, for the portmapper that starts next. No portmapper may be running.
func (c Config) writeState(regs []rpcbind.RPCB) error {
	state, err := openState(c)
	if err != nil {
		return err
	}
	defer state.Close()
	var rpcbs, mappings []byte
	for _, b := range regs {
		rpcbs = rpcbind.AppendRPCBElement(rpcbs, b)
		prot, ok := b.Netid.Prot()
		if at, valid := rpcbind.ParseUAddr(b.Addr); ok && valid {
			mappings = rpcbind.AppendMappingElement(mappings,
				rpcbind.Mapping{Program: b.Program, Version: b.Version, Prot: prot, Port: uint32(at.Port())})
		}
	}
	state.Rewrite(registry.ListOf(rpcbs), registry.ListOf(mappings))
	return state.Err()
}

// lookAtSaved compares the table with the state on disk, if that may be read.
func (c Config) lookAtSaved(ctx context.Context, st *Status, table []rpcbind.RPCB) {
	path := c.statePath()
	saved, missing := compare(path, table)
	if saved != nil && missing > 0 {
		// A registration may have come between the two looks. One that is still missing isn't written.
		if again, err := c.ask(ctx); err == nil {
			saved, missing = compare(path, again)
		}
	}
	if saved == nil {
		if absent(path) {
			st.Notes = append(st.Notes, path+" was removed: registrations are in memory alone")
			st.Remedy = "gportmap takeover, as root, writes it again; gportmap stop does as well"
		}
		return
	}
	saved.Missing = missing
	st.Saved = saved
	if missing > 0 {
		st.Notes = append(st.Notes, "registrations are missing in "+path+", which can't be written: see the log, and whether its disk is full")
	}
}

// compare tells how many registrations of the table a state file lacks, or nil if it can't be read.
func compare(path string, table []rpcbind.RPCB) (*Saved, int) {
	b, info, err := readState(path)
	if err != nil {
		return nil, 0
	}
	d := xdr.NewDecoder(b)
	kept := make(map[string]bool)
	for _, r := range rpcbind.ReadRPCBList(&d, stateString) {
		kept[string(rpcbind.AppendRPCB(nil, lowered(r)))] = true
	}
	missing := 0
	for _, r := range table {
		if r.Program != rpcbind.Program && r.Owner != rpcbind.OwnerStatic && !kept[string(rpcbind.AppendRPCB(nil, lowered(r)))] {
			missing++
		}
	}
	return &Saved{File: path, Written: info.ModTime()}, missing
}

// lowered returns r as it is compared: netids without case.
func lowered(r rpcbind.RPCB) rpcbind.RPCB {
	r.Netid = rpcbind.Netid(strings.ToLower(string(r.Netid)))
	return r
}

// readState reads a state file, following no link and waiting for no FIFO.
func readState(path string) ([]byte, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "read", Path: path, Err: os.ErrInvalid}
	}
	if err != nil {
		return nil, info, err
	}
	b, err := io.ReadAll(io.LimitReader(f, stateOctets))
	return b, info, err
}
