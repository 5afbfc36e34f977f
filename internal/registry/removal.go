package registry

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A removal of several registrations is kept as one element of the rpcblist, so that a daemon that dies meanwhile has
// removed all of them or none. It stands among the registrations of a journal, never in the table: its program is 0, which
// no registration has. No netids stand for all those of the program and version.
//
//	program 0 │ version │ netids, each behind a space, or "" │ "" │ "removed program" and the program in decimal

const (
	removedBy  = "removed program "
	beginNetid = " " // no netid has it: see Validate; rpcbind may print it
)

// removalRecord returns the record of the removal of entries of one program and version, encoded; all tells that there are no
// others. False says that there are too many netids for one record.
func removalRecord(gone []*Entry, all bool) ([]byte, bool) {
	var netids strings.Builder
	if !all {
		for _, e := range gone {
			netids.WriteString(beginNetid + string(e.Netid))
		}
	}
	return rpcbind.AppendRPCBElement(nil, rpcbind.RPCB{
		Version: gone[0].Version,
		Netid:   rpcbind.Netid(netids.String()),
		Owner:   removedBy + strconv.FormatUint(uint64(gone[0].Program), 10),
	}), netids.Len() <= MaxString
}

// Replay returns the registrations that a journal's rpcblist keeps, in their order. An element of program 0 is none: it was
// removed in its place, or it says that several before it are removed. One that was to be replaced may be there with the
// other: then nobody was told that it was.
func Replay(list []rpcbind.RPCB) []rpcbind.RPCB {
	type key struct {
		prog, vers uint32
		netid      string
	}
	keyOf := func(b rpcbind.RPCB) key { return key{b.Program, b.Version, strings.ToLower(string(b.Netid))} }
	if !slices.ContainsFunc(list, func(b rpcbind.RPCB) bool { return b.Program == 0 }) {
		return list // as most are
	}
	// What comes behind counts for what is before: so from the end to the front.
	gone := make(map[key]bool)
	regs := make([]rpcbind.RPCB, 0, len(list))
	for _, b := range slices.Backward(list) {
		switch {
		case b.Program == 0:
			number, ok := strings.CutPrefix(b.Owner, removedBy)
			prog, err := strconv.ParseUint(number, 10, 32)
			if !ok || err != nil {
				continue
			}
			// In front of the first space there is the empty netid, which only stands for something alone.
			for _, netid := range strings.Split(strings.TrimPrefix(string(b.Netid), beginNetid), beginNetid) {
				gone[keyOf(rpcbind.RPCB{Program: uint32(prog), Version: b.Version, Netid: rpcbind.Netid(netid)})] = true
			}
		case len(gone) == 0 || !gone[keyOf(b)] && !gone[keyOf(rpcbind.RPCB{Program: b.Program, Version: b.Version})]:
			regs = append(regs, b)
		}
	}
	slices.Reverse(regs)
	return regs
}
