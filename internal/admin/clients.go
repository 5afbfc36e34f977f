package admin

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gportmap/gportmap/internal/portmap"
)

const (
	// clientSlots is how many clients are remembered.
	clientSlots = 256
	// clientWays is how many slots a client may be in.
	clientWays = 4
	// clientStay is how long a client keeps its slot: forged sources can't push everybody else out at once.
	clientStay = time.Second
)

// clients remembers who called lately. Any caller can make up sources, so it has a fixed size, and a slot is taken from
// the client that was silent longest, but not within a second.
type clients struct {
	mu    sync.Mutex
	slots [clientSlots]client
	seed  maphash.Seed
}

// clientKey tells clients apart: an address, or the uid of a process that called by the local socket.
type clientKey struct {
	addr   netip.Addr
	uid    uint32
	hasUID bool
}

// client is a slot; its since is 0 if it is free.
type client struct {
	clientKey
	since          int64 // nanoseconds since 1970
	last           int64
	calls, refused uint64
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
	c.mu.Lock()
	defer c.mu.Unlock()
	now := at.UnixNano()
	if e := c.find(k, now, true); e != nil {
		e.calls += uint64(calls)
		e.last = now
	}
}

// refused counts a call that was refused, if the client is known.
func (c *clients) refused(k clientKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.find(k, 0, false); e != nil {
		e.refused++
	}
}

// find returns the slot of a client, or nil. If add is true it may be one that was another's.
func (c *clients) find(k clientKey, now int64, add bool) *client {
	first := c.hash(k)
	var longest *client
	for i := range uint64(clientWays) {
		e := &c.slots[(first+i)%clientSlots]
		switch {
		case e.since != 0 && e.clientKey == k:
			return e
		case e.since != 0 && now-e.since < int64(clientStay):
		case longest == nil || e.last < longest.last: // a free one has the time 0
			longest = e
		}
	}
	if !add || longest == nil {
		return nil
	}
	*longest = client{clientKey: k, since: now}
	return longest
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
	c.mu.Lock()
	slots := c.slots
	c.mu.Unlock()
	for _, e := range slots {
		if e.since != 0 {
			all = append(all, Client{Peer: e.String(), Calls: e.calls, Refused: e.refused, Last: time.Unix(0, e.last)})
		}
	}
	slices.SortFunc(all, func(a, b Client) int { return b.Last.Compare(a.Last) })
	return all
}
