package daemon

import (
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

// The abstract socket is served if it can be had: every user can take an abstract name, and clients that are refused there, or
// find nobody, go on to the path.

// optional tells whether a portmapper serves without an endpoint.
func (c Config) optional(e instance.Endpoint) bool {
	return strings.HasPrefix(e.Path, "@") || e.Path != "" && c.stateless()
}

// warnUnserved logs that an optional endpoint isn't served, and who has it.
func (c Config) warnUnserved(e instance.Endpoint, err error) {
	if errors.Is(err, syscall.EADDRINUSE) {
		err = instance.WhoHolds(e)
	}
	if !strings.HasPrefix(e.Path, "@") {
		c.Log.Warn("the local socket isn't served: servers register over loopback or by the abstract socket", "socket", e.Path, "err", err)
		return
	}
	c.Log.Warn("the abstract socket isn't served; clients that try it first ask whoever holds it", "socket", e.Path, "err", err)
}

// lookAtAbstract notes that another process than the portmapper has the abstract socket.
func (c Config) lookAtAbstract(st *Status, pid int) {
	holders, err := instance.Holders(instance.Endpoint{Netid: "local", Path: "@" + c.Socket})
	if err != nil {
		return // ask and Report tell of what can't be seen
	}
	// A datagram socket of that name is in nobody's way: ours is there beside it.
	if slices.ContainsFunc(holders, func(h instance.Holder) bool { return h.Process.PID == pid || h.Systemd }) {
		return
	}
	for _, h := range holders {
		if h.Unseen == instance.Seen {
			st.Notes = append(st.Notes, h.String()+"; clients that try it first ask that process: end it, then restart gportmap")
		}
	}
}

// onlyOptional tells whether somebody has nothing but what a portmapper serves without.
func onlyOptional(h instance.Holder) bool {
	return !slices.ContainsFunc(h.Sockets, func(s sys.BoundSocket) bool { return !strings.HasPrefix(s.Path, "@") })
}
