package daemon

import (
	"log/slog"
	"os"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func (t *takeover) statePath() string { return t.config.statePath() }

// merge returns what is to be registered, given what the state files have: the files alone if the other portmapper wrote
// them after it was asked, for then they are the later; else what it answered, for then they are older than that. The
// owners are told by both.
func (t *takeover) merge(files []rpcbind.RPCB) []rpcbind.RPCB {
	if t == nil {
		return files
	}
	regs := files
	if _, ok := t.written(); !ok || len(files) == 0 {
		regs = t.valid()
	}
	t.journaled = true // the caller writes them next
	t.restored = len(regs)
	return regs
}

// valid returns what was answered and can be registered; the portmapper's own entries follow from our sockets.
func (t *takeover) valid() []rpcbind.RPCB {
	var regs []rpcbind.RPCB
	for _, b := range t.dump {
		if b.Program == rpcbind.Program {
			continue
		}
		if _, err := registry.Validate(b); err != nil {
			t.config.Log.Warn("takeover: a registration is left out", slog.Uint64("program", uint64(b.Program)), "version", b.Version,
				"netid", string(b.Netid), "address", b.Addr, "err", err)
			continue
		}
		regs = append(regs, b)
	}
	return regs
}

// written returns the other portmapper's state file if it was written since it was asked, and whole.
func (t *takeover) written() ([]rpcbind.RPCB, bool) {
	b, info, err := readState(t.statePath())
	if err != nil || t.saved != nil && os.SameFile(t.saved, info) && t.saved.ModTime().Equal(info.ModTime()) && t.saved.Size() == info.Size() {
		return nil, false
	}
	d := xdr.NewDecoder(b)
	regs := rpcbind.ReadRPCBList(&d, stateString)
	return regs, d.Err() == nil && len(d.Rest()) == 0
}
