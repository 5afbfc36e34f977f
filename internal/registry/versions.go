package registry

import (
	"slices"
	"sync"
)

// fewVersions is how many registrations of a program on a transport are searched one by one.
const fewVersions = 8

// versions are the registrations of a program on one transport, two or more. A few never change: the writer puts others in
// their place. Many have a map, with a lock that nobody holds for longer than a look takes.
type versions struct {
	few  []*Entry // by arrival; nil if there are many
	many *manyVersions
}

type manyVersions struct {
	order []*Entry // by arrival, with some that are gone; the last one isn't. For the writer alone

	mu        sync.RWMutex
	byVersion map[uint32]*Entry
	low, high uint32 // the range, if ranged is true
	ranged    bool
}

func (v *versions) find(vers uint32) *Entry {
	if m := v.many; m != nil {
		m.mu.RLock()
		defer m.mu.RUnlock()
		return m.byVersion[vers]
	}
	for _, e := range v.few {
		if e.Version == vers {
			return e
		}
	}
	return nil
}

// span returns the lowest and the highest version.
func (v *versions) span() (low, high uint32) {
	m := v.many
	if m == nil {
		low, high = v.few[0].Version, v.few[0].Version
		for _, e := range v.few {
			low, high = min(low, e.Version), max(high, e.Version)
		}
		return low, high
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ranged {
		m.low, m.high, m.ranged = ^uint32(0), 0, true
		for vers := range m.byVersion {
			m.low, m.high = min(m.low, vers), max(m.high, vers)
		}
	}
	return m.low, m.high
}

// with returns v with e behind all others; v is nil if last is the only one so far.
func (v *versions) with(last, e *Entry) *versions {
	switch {
	case v == nil:
		return &versions{few: []*Entry{last, e}}
	case v.many != nil:
		v.many.add(e)
		return v
	case len(v.few) < fewVersions:
		return &versions{few: append(slices.Clone(v.few), e)}
	}
	m := &manyVersions{byVersion: make(map[uint32]*Entry, 2*fewVersions)}
	for _, old := range v.few {
		m.add(old)
	}
	m.add(e)
	return &versions{many: m}
}

// without returns v without e, or nil if one is left, and the one that came last. Unless next is nil, which has e's version, it
// comes behind all others.
func (v *versions) without(e, next *Entry) (left *versions, last *Entry) {
	if m := v.many; m != nil {
		m.remove(e, next)
		if len(m.byVersion) > fewVersions {
			return v, m.order[len(m.order)-1]
		}
		v = &versions{few: slices.DeleteFunc(slices.Clone(m.order), func(x *Entry) bool { return x.gone })}
	} else {
		few := make([]*Entry, 0, len(v.few))
		for _, x := range v.few {
			if x != e {
				few = append(few, x)
			}
		}
		if next != nil {
			few = append(few, next)
		}
		v = &versions{few: few}
	}
	last = v.few[len(v.few)-1]
	if len(v.few) == 1 {
		return nil, last
	}
	return v, last
}

func (m *manyVersions) add(e *Entry) {
	m.order = append(m.order, e)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byVersion[e.Version] = e
	m.low, m.high = min(m.low, e.Version), max(m.high, e.Version)
}

func (m *manyVersions) remove(e, next *Entry) {
	m.mu.Lock()
	if next != nil {
		m.byVersion[e.Version] = next
	} else {
		delete(m.byVersion, e.Version)
		m.ranged = m.ranged && e.Version != m.low && e.Version != m.high
	}
	m.mu.Unlock()
	if next != nil {
		m.order = append(m.order, next)
	}
	gone := func(x *Entry) bool { return x.gone }
	if len(m.order) > 2*len(m.byVersion) {
		m.order = slices.Clone(slices.DeleteFunc(m.order, gone))
	}
	for n := len(m.order); n > 0 && gone(m.order[n-1]); n-- {
		m.order = m.order[:n-1]
	}
}
