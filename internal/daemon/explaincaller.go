package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// explainedPort is the caller's port, one that any user may have, and explainedHops what no router took from.
const (
	explainedPort = 40000
	explainedHops = 64
)

// caller describes the one who asks, as the kernel would.
func (e *explainer) caller() (portmap.Caller, error) {
	text := e.question.Caller
	if rest, ok := strings.CutPrefix(text, "local"); ok {
		return localCaller(rest)
	}
	netid, addr := "", text
	if before, after, ok := strings.Cut(text, ":"); ok {
		if _, known := portmap.TransportOf(rpcbind.Netid(before)); known {
			netid, addr = before, after
		}
	}
	a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		return portmap.Caller{}, fmt.Errorf("caller %q: give an address, as 192.0.2.7 or tcp:192.0.2.7, or local, or local:UID", text)
	}
	a = a.Unmap()
	if netid == "" {
		netid = "udp"
	}
	if base := strings.TrimSuffix(netid, "6"); a.Is6() {
		netid = base + "6"
	} else {
		netid = base
	}
	transport, ok := portmap.TransportOf(rpcbind.Netid(netid))
	if !ok {
		return portmap.Caller{}, fmt.Errorf("caller %q: %s is none of udp, tcp, udp6 and tcp6", text, netid)
	}
	from := portmap.Caller{Transport: transport, Remote: netip.AddrPortFrom(a.WithZone(""), explainedPort), Hops: explainedHops}
	on, to, err := e.arrival(a)
	if err != nil {
		return portmap.Caller{}, err
	}
	from.Ifindex, from.Loopback = on.Index, on.Loopback
	if from.Loopback && !transport.Datagram() { // the user who asks
		from.UID, from.HasUID = uint32(os.Getuid()), true
	}
	from.Local = netip.AddrPortFrom(to, e.config.Port)
	return from, nil
}

// localCaller is a caller by the local socket: of the user who asks, unless ":UID" follows.
func localCaller(rest string) (portmap.Caller, error) {
	uid := uint64(os.Getuid())
	if rest != "" {
		var err error
		if uid, err = strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 32); err != nil || rest[0] != ':' {
			return portmap.Caller{}, fmt.Errorf("caller \"local%s\": write local or local:UID", rest)
		}
	}
	return portmap.Caller{Transport: portmap.Local, Loopback: true, UID: uint32(uid), HasUID: true}, nil
}

// arrival returns the interface by which a call from an address comes, and the address that it is sent to: those that were
// given, else those of its network, else the first ones that aren't of loopback.
func (e *explainer) arrival(a netip.Addr) (on sys.Interface, to netip.Addr, err error) {
	rank := 0
	for _, f := range e.interfaces {
		if e.question.On != "" && f.Name != e.question.On {
			continue
		}
		if e.question.On != "" {
			on = f
		}
		for _, p := range f.Addrs {
			r := 0
			switch {
			case !f.Up || p.Addr().Is4() != a.Is4():
			case p.Addr() == a:
				r = 4
			case p.Contains(a):
				r = 3
			case !f.Loopback:
				r = 2
			default:
				r = 1
			}
			if r > rank {
				on, to, rank = f, p.Addr(), r
			}
		}
	}
	switch {
	case e.question.On != "" && on.Name == "":
		return on, to, fmt.Errorf("there is no interface %q", e.question.On)
	case e.question.To.IsValid():
		to = e.question.To.Unmap()
	case a.IsLoopback():
		to = a
	}
	return on, to, nil
}

func (e *explainer) describeCaller() string {
	text := callerName(e.from)
	if e.from.Transport == portmap.Local {
		return text + " on the local socket"
	}
	for _, f := range e.interfaces {
		if f.Index == e.from.Ifindex {
			text += " by " + f.Name
		}
	}
	if e.from.Local.Addr().IsValid() {
		text += " to " + e.from.Local.Addr().String()
	}
	return text
}
