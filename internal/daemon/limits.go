package daemon

import (
	"cmp"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/registry"
)

// Limits bound what callers can use up. A zero field stands for a default that holds on a small machine.
type Limits struct {
	// AnswerRate is the number of datagrams from one network (/24 of IPv4, /56 of IPv6) that are answered in a second;
	// below zero there is no limit.
	AnswerRate int
	// Registrations is the number of registrations in all, an eighth of it for root alone.
	Registrations int
	// RegistrationsPerOwner is the number of registrations of each user other than root.
	RegistrationsPerOwner int
	// StringOctets is the length of a netid and that of an address in a registration.
	StringOctets int
}

// The defaults.
const (
	defaultRegistrations         = 65536 // some 40 MiB, with the lists for DUMP
	defaultRegistrationsPerOwner = 4096
	defaultStringOctets          = 256 // a path has at most 108, an IP address 47
)

// rootShare is which part of the registrations is kept for root.
const rootShare = 8

func (l Limits) complete() Limits {
	l.AnswerRate = cmp.Or(l.AnswerRate, access.DefaultAnswerRate)
	l.Registrations = cmp.Or(l.Registrations, defaultRegistrations)
	l.RegistrationsPerOwner = cmp.Or(l.RegistrationsPerOwner, defaultRegistrationsPerOwner)
	l.StringOctets = cmp.Or(l.StringOctets, defaultStringOctets)
	return l
}

// table returns the limits of the table.
func (l Limits) table() registry.Limits {
	return registry.Limits{
		Entries: l.Registrations, Reserve: l.Registrations / rootShare, PerOwner: l.RegistrationsPerOwner, Octets: l.StringOctets,
	}
}
