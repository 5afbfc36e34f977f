package daemon

import (
	"os"
	"syscall"

	"github.com/gportmap/gportmap/internal/sys"
)

// mostConnections is how many local connections of another portmapper are taken over: as many as our
// unit keeps of users other than root, see [keeper].
const mostConnections = 128

// offerName is where a takeover by our unit leaves them for that. Which process the unit's is, systemd knows alone, and its
// descriptor store takes nothing from others.
const offerName = "@/run/rpcbind/takeover"

// offerConnections offers the connections to the unit until the function that it returns is called.
func (t *takeover) offerConnections() (withdraw func()) {
	if len(t.connections) == 0 {
		return func() {}
	}
	offer, err := sys.OfferConnections(offerName, t.connections, t.isUnits)
	if err != nil {
		t.config.Log.Warn("takeover: connections end with the other portmapper", "err", err)
		return t.closeConnections
	}
	return func() {
		if err := offer.Close(); err != nil {
			t.config.Log.Warn("takeover: connections end with the other portmapper", "err", err)
		}
		t.closeConnections()
	}
}

// isUnits tells whether the unit runs as that user: root, or to whom systemd gave the state directory.
func (t *takeover) isUnits(uid uint32) bool {
	if uid == 0 {
		return true
	}
	info, err := os.Stat(t.config.stateDir())
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == uid
}

// takeOffered returns what a takeover offers to us, and nothing in any other start.
func takeOffered(c Config) []*sys.Connection {
	if c.StateDir != "" {
		return nil
	}
	conns, err := sys.HandedOver(offerName)
	if err != nil {
		c.Log.Warn("connections of the other portmapper are lost", "err", err)
	}
	return conns
}
