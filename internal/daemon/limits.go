package daemon

import (
	"cmp"
	"context"
	"net"
	"os"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/server"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// Limits bound what callers can use up. A zero field stands for a default that holds on a small machine.
type Limits struct {
	// AnswerRate is the number of datagrams from one network (/24 of IPv4, /56 of IPv6) that are answered in a second;
	// below zero there is no limit.
	AnswerRate int
	// Registrations is the number of registrations in all: an eighth of it for root and system users, half of that for root
	// alone.
	Registrations int
	// RegistrationsPerOwner is the number of registrations of each user other than root.
	RegistrationsPerOwner int
	// StringOctets is the length of a netid and that of an address in a registration.
	StringOctets int
	// Connections is the number of TCP connections.
	Connections int
	// ConnectionsEach is the number of connections of one address of another host, and by the local socket of one user but
	// root.
	ConnectionsEach int
	// RecordOctets is the length of a call on a stream.
	RecordOctets int
	// CallsInFlight is the number of calls made for others that wait for an answer.
	CallsInFlight int
	// LookupStats and RemoteStats are how many programs GETSTAT lists for each version.
	LookupStats, RemoteStats int
	// LogLines is the number of lines that are logged in a second; below zero there is no limit.
	LogLines int
	// IdleTimeout and RecordTimeout close a TCP connection that brought nothing, or no whole call, for so long.
	IdleTimeout, RecordTimeout time.Duration
}

// The defaults.
const (
	defaultRegistrations         = rpcbind.DefaultRegistrations // some 40 MiB, with the lists for DUMP
	defaultRegistrationsPerOwner = 4096
	defaultStringOctets          = rpcbind.DefaultStringOctets // a path has at most 108, an IP address 47
	defaultConnectionsEach       = 256
	defaultLogLines              = 1000
)

// reservedShare is which part of the registrations is kept for root and system users.
const reservedShare = 8

func (l Limits) complete() Limits {
	l.AnswerRate = cmp.Or(l.AnswerRate, access.DefaultAnswerRate)
	l.Registrations = cmp.Or(l.Registrations, defaultRegistrations)
	l.RegistrationsPerOwner = cmp.Or(l.RegistrationsPerOwner, defaultRegistrationsPerOwner)
	l.StringOctets = cmp.Or(l.StringOctets, defaultStringOctets)
	l.ConnectionsEach = cmp.Or(l.ConnectionsEach, defaultConnectionsEach)
	l.CallsInFlight = cmp.Or(l.CallsInFlight, server.DefaultMaxInFlight)
	l.LogLines = cmp.Or(l.LogLines, defaultLogLines)
	return l
}

// reservedDescriptors are kept for root's connections, and for files.
const reservedDescriptors = 10

// server puts the limits into the configuration of a server, which has its own defaults for zero fields.
func (l Limits) server(c server.Config) server.Config {
	c.MaxConnections, c.MaxConnectionsEach, c.MaxRecord = l.Connections, l.ConnectionsEach, l.RecordOctets
	c.IdleTimeout, c.RecordTimeout = l.IdleTimeout, l.RecordTimeout
	return c
}

// connectionDescriptors returns how many descriptors there are for connections, 0 if that can't be told.
func connectionDescriptors() int {
	limit := sys.DescriptorLimit()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil || limit == 0 {
		return 0
	}
	return max(1, limit-len(open)-reservedDescriptors)
}

// dialPortmapper opens a connection to a portmapper that has these limits, or the default ones: its longest list can be read.
func (l Limits) dialPortmapper(ctx context.Context, network, address string) (*rpcbind.Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return rpcbind.NewClient(conn, oncrpc.ClientConfig{MaxReply: l.longestList()}), nil
}

// longestList returns the size in octets of the longest DUMP, at least that of the default limits.
func (l Limits) longestList() int {
	longer := max(0, l.StringOctets-rpcbind.DefaultStringOctets)
	registrations := max(l.Registrations, rpcbind.DefaultRegistrations)
	each := (rpcbind.DefaultMaxReply+rpcbind.DefaultRegistrations-1)/rpcbind.DefaultRegistrations + 2*longer
	return registrations * each
}

// table returns the limits of the table.
func (l Limits) table() registry.Limits {
	return registry.Limits{
		Entries: l.Registrations, Reserve: l.Registrations / reservedShare, SystemUID: sys.LastSystemUID(),
		PerOwner: l.RegistrationsPerOwner, Octets: l.StringOctets,
	}
}

// warnOverfull logs that more was restored than may be registered: nobody but root can register until that changes.
func (c Config) warnOverfull(restored int) {
	if restored > c.Limits.Registrations {
		c.Log.Warn("more registrations were restored than may be registered: new ones are refused; raise max-registrations",
			"count", restored, "max-registrations", c.Limits.Registrations)
	}
}
