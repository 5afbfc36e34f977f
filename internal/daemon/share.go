package daemon

import (
	"maps"
	"sync"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Parts of the time that questions which walk all sockets of the host may take. They are asked by whoever registers, in the
// goroutine that answers everybody.
const (
	allPart    = 5  // a fifth for all owners but root together
	ownerPart  = 20 // a twentieth for each of them
	allBurst   = 100 * time.Millisecond
	ownerBurst = 20 * time.Millisecond // a hundred questions on a host with few sockets
	ownersKept = 64                    // owners who asked last
)

// A share bounds how much time such questions take. Root's are free.
type share struct {
	now func() time.Time

	mu     sync.Mutex
	all    budget
	owners map[string]budget
}

func newShare() *share { return &share{now: time.Now, owners: make(map[string]budget)} }

// A budget is time that was spent and isn't earned back yet, at a moment.
type budget struct {
	spent time.Duration
	at    time.Time
}

// until earns back a part of the time since the last moment.
func (b budget) until(now time.Time, part time.Duration) budget {
	return budget{max(0, b.spent-now.Sub(b.at)/part), now}
}

// spend runs a question for an owner, or returns false: that is too much at present.
func (s *share) spend(owner string, question func()) bool {
	if owner == rpcbind.OwnerSuperuser {
		question()
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	began := s.now()
	all, own := s.all.until(began, allPart), s.owners[owner].until(began, ownerPart)
	if all.spent >= allBurst || own.spent >= ownerBurst {
		return false
	}
	if len(s.owners) >= ownersKept {
		maps.DeleteFunc(s.owners, func(_ string, b budget) bool { return b.until(began, ownerPart).spent == 0 })
		if _, known := s.owners[owner]; !known && len(s.owners) >= ownersKept {
			return false
		}
	}
	question()
	took := s.now().Sub(began)
	all.spent += took
	own.spent += took
	s.all, s.owners[owner] = all, own
	return true
}
