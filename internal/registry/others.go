package registry

import (
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// kind numbers the transports that callers are asked by, which the index has.
type kind uint8

const (
	kindUDP kind = iota
	kindTCP
	kindUDP6
	kindTCP6
	kindLocal
	noKind // any other netid: nobody looks it up
)

var netids = [...]rpcbind.Netid{rpcbind.UDP, rpcbind.TCP, rpcbind.UDP6, rpcbind.TCP6, rpcbind.Local}

func kindOf(n rpcbind.Netid) kind {
	switch n { // as nearly all are written
	case rpcbind.UDP:
		return kindUDP
	case rpcbind.TCP:
		return kindTCP
	case rpcbind.UDP6:
		return kindUDP6
	case rpcbind.TCP6:
		return kindTCP6
	case rpcbind.Local:
		return kindLocal
	}
	for k, known := range netids {
		if n.Is(known) {
			return kind(k)
		}
	}
	return noKind
}

// others are the registrations on other netids (rdma, sctp …). They are used with the table's lock held.
type others struct {
	named map[otherName]*other
	first map[programVersion]*other
}

type programVersion struct{ prog, vers uint32 }

type otherName struct {
	programVersion
	netid string // in lower case
}

// other is a registration in the list of those of its program and version.
type other struct {
	*Entry
	before, next *other
}

func nameOf(prog, vers uint32, netid rpcbind.Netid) otherName {
	return otherName{programVersion{prog, vers}, strings.ToLower(string(netid))}
}

func (o *others) find(prog, vers uint32, netid rpcbind.Netid) *Entry {
	if found := o.named[nameOf(prog, vers, netid)]; found != nil {
		return found.Entry
	}
	return nil
}

func (o *others) add(e *Entry) {
	if o.named == nil {
		o.named, o.first = make(map[otherName]*other), make(map[programVersion]*other)
	}
	name := nameOf(e.Program, e.Version, e.Netid)
	x := &other{Entry: e, next: o.first[name.programVersion]}
	if x.next != nil {
		x.next.before = x
	}
	o.first[name.programVersion], o.named[name] = x, x
}

func (o *others) remove(e *Entry) {
	name := nameOf(e.Program, e.Version, e.Netid)
	x := o.named[name]
	delete(o.named, name)
	if x.next != nil {
		x.next.before = x.before
	}
	switch {
	case x.before != nil:
		x.before.next = x.next
	case x.next != nil:
		o.first[name.programVersion] = x.next
	default:
		delete(o.first, name.programVersion)
	}
	if len(o.named) == 0 {
		*o = others{} // a map never shrinks
	}
}
