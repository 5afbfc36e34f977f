package admin

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

const (
	// clientSlots is how many clients are remembered.
	clientSlots = 256
	// clientWays is how many slots a client may be in.
	clientWays = 4
	// clientStay is how long a client keeps its slot: forged sources can't make us allocate with every datagram.
	clientStay = time.Second
)

// clients remembers who called lately. Any caller can make up sources, so it has a fixed size, and a slot is taken from
// the client that was silent longest, but not within a second.
type clients struct {
	slots [clientSlots]atomic.Pointer[client]
	seed  maphash.Seed
}

// clientKey tells clients apart: an address, or the uid of a process that called by the local socket.
type clientKey struct {
	addr   netip.Addr
	uid    uint32
	hasUID bool
}

type client struct {
	clientKey
	since   int64 // nanoseconds since 1970
	last    atomic.Int64
	calls   atomic.Uint64
	refused atomic.Uint64
}

func keyOf(from *portmap.Caller) clientKey {
	if from.Transport == portmap.Local {
		return clientKey{uid: from.UID, hasUID: from.HasUID}
	}
	return clientKey{addr: from.Remote.Addr()}
}

func (k clientKey) String() string {
	switch {
	case k.addr.IsValid():
		return k.addr.String()
	case k.hasUID:
		return "uid " + strconv.FormatUint(uint64(k.uid), 10)
	}
	return "local"
}

// seen counts calls of a client, which came at that time.
func (c *clients) seen(k clientKey, calls int, at time.Time) {
	now := at.UnixNano()
	if e := c.find(k, now, true); e != nil {
		e.calls.Add(uint64(calls))
		e.last.Store(now)
	}
}

// refused counts a call that was refused, if the client is known.
func (c *clients) refused(k clientKey) {
	if e := c.find(k, 0, false); e != nil {
		e.refused.Add(1)
	}
}

func (c *clients) find(k clientKey, now int64, add bool) *client {
	first := c.hash(k)
	var longest *atomic.Pointer[client]
	var silent int64
	for i := range uint64(clientWays) {
		slot := &c.slots[(first+i)%clientSlots]
		e := slot.Load()
		switch {
		case e == nil:
			if silent = -1; longest == nil || longest.Load() != nil {
				longest = slot
			}
		case e.clientKey == k:
			return e
		case silent >= 0 && now-e.since >= int64(clientStay) && (longest == nil || e.last.Load() < silent):
			longest, silent = slot, e.last.Load()
		}
	}
	if !add || longest == nil {
		return nil
	}
	e := &client{clientKey: k, since: now}
	longest.Store(e)
	return e
}

// hash spreads the keys so that nobody can choose addresses that push one client out.
func (c *clients) hash(k clientKey) uint64 {
	var b [16 + 4]byte
	if k.addr.IsValid() {
		a := k.addr.As16()
		copy(b[:], a[:])
	}
	binary.NativeEndian.PutUint32(b[16:], k.uid)
	return maphash.Bytes(c.seed, b[:])
}

// list returns who is remembered, those who called last first.
func (c *clients) list() []Client {
	var all []Client
	for i := range c.slots {
		if e := c.slots[i].Load(); e != nil {
			all = append(all, Client{
				Peer: e.String(), Calls: e.calls.Load(), Refused: e.refused.Load(), Last: time.Unix(0, e.last.Load()),
			})
		}
	}
	slices.SortFunc(all, func(a, b Client) int { return b.Last.Compare(a.Last) })
	return all
}
