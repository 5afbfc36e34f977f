package main

import (
	"bytes"
	"slices"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// transport is a line of netconfig(5).
type transport struct {
	netid   string
	stream  bool // tpi_cots or tpi_cots_ord
	packets bool // tpi_clts
	visible bool // may be chosen where the user names no transport
	family  string
	proto   string
}

// known tells whether there are sockets for it: libtirpc knows these by the netid, not by what the line says.
func (t transport) known() bool {
	_, ok := rpcbind.Netid(t.netid).Transport()
	return ok || t.netid == "unix"
}

// local tells whether its addresses are those of local sockets.
func (t transport) local() bool { return t.netid == "local" || t.netid == "unix" }

// ipv6 tells the version of IP of one that has IP addresses.
func (t transport) ipv6() bool { return strings.HasSuffix(t.netid, "6") }

// transports are those of netconfig(5) in their order, or those of Debian's file if there is none. Netpath is what
// the environment variable NETPATH says.
type transports struct {
	all        []transport
	netpath    string
	hasNetpath bool
}

const knownTransports = `
udp   tpi_clts     v inet     udp - -
tcp   tpi_cots_ord v inet     tcp - -
udp6  tpi_clts     v inet6    udp - -
tcp6  tpi_cots_ord v inet6    tcp - -
rawip tpi_raw      - inet     -   - -
local tpi_cots_ord - loopback -   - -
unix  tpi_cots_ord - loopback -   - -
`

func readTransports(path string) transports {
	text := []byte(knownTransports)
	if b, err := readAtMost(path, maxNamesFile); err == nil {
		text = b
	}
	return transports{all: parseTransports(text)}
}

func parseTransports(text []byte) []transport {
	var all []transport
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) < 7 || strings.HasPrefix(words[0], "#") {
			continue
		}
		all = append(all, transport{
			netid:   words[0],
			packets: words[1] == "tpi_clts", stream: words[1] == "tpi_cots" || words[1] == "tpi_cots_ord",
			visible: strings.Contains(words[2], "v"), family: words[3], proto: words[4],
		})
	}
	return all
}

func (s transports) find(netid string) (transport, bool) {
	i := slices.IndexFunc(s.all, func(t transport) bool { return t.netid == netid })
	if i < 0 {
		return transport{}, false
	}
	return s.all[i], true
}

// path returns those of NETPATH, or the visible ones if that isn't set.
func (s transports) path() []transport {
	var list []transport
	if !s.hasNetpath {
		return s.pick(func(t transport) bool { return t.visible })
	}
	for _, netid := range strings.Split(s.netpath, ":") {
		if t, ok := s.find(netid); ok {
			list = append(list, t)
		}
	}
	return list
}

func (s transports) pick(wanted func(transport) bool) []transport {
	var list []transport
	for _, t := range s.all {
		if wanted(t) {
			list = append(list, t)
		}
	}
	return list
}

// toPortmapper returns those over which a portmapper is asked if the user names none, in the order in which they are
// tried: connections of NETPATH, visible connections, visible datagrams. None is tried twice.
func (s transports) toPortmapper() []transport {
	var list []transport
	add := func(more []transport, wanted func(transport) bool) {
		for _, t := range more {
			if wanted(t) && !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	add(s.path(), func(t transport) bool { return t.stream })
	add(s.all, func(t transport) bool { return t.stream && t.visible })
	add(s.all, func(t transport) bool { return t.packets && t.visible })
	return list
}
