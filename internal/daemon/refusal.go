package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

// refused is a socket that couldn't be bound.
type refused struct {
	at  instance.Endpoint
	err error
}

// refusal makes one error of one line: who holds what is in use, and what else kept sockets from being bound. It has the
// exit code of the first.
func refusal(c Config, all []refused) error {
	var taken []instance.Endpoint
	var texts []string
	denied := false
	for _, r := range all {
		if errors.Is(r.err, syscall.EADDRINUSE) {
			taken = append(taken, r.at)
			continue
		}
		texts = append(texts, r.err.Error())
		denied = denied || r.at.Netid != "local" && (errors.Is(r.err, syscall.EACCES) || errors.Is(r.err, syscall.EPERM))
	}
	if taken != nil {
		texts = append([]string{inUse(taken)}, texts...)
	}
	text := strings.Join(texts, "; ")
	if denied && c.Port < 1024 {
		text += fmt.Sprintf(" (port %d needs root or CAP_NET_BIND_SERVICE; others can run an instance of their own with --port and --state-dir)", c.Port)
	}
	code := ExitSystem
	if all[0].at.Netid == "local" {
		code = ExitCantCreate
	}
	return byCause(code, &rephrased{text, all[0].err})
}

// inUse tells who has what we need. What we need is named as well where that isn't the very same address.
func inUse(taken []instance.Endpoint) string {
	held := instance.WhoHolds(taken...)
	var named []string
	for _, e := range taken {
		same := func(s sys.BoundSocket) bool { return s.String() == e.String() }
		if !slices.ContainsFunc(held.Holders, func(h instance.Holder) bool { return slices.ContainsFunc(h.Sockets, same) }) {
			named = append(named, e.String())
		}
	}
	if named == nil || len(held.Holders) == 0 {
		return "listen: " + held.Error()
	}
	return "listen on " + strings.Join(named, ", ") + ": " + held.Error()
}

// endpoints returns what a daemon needs that binds UDP and TCP sockets to these addresses.
func (c Config) endpoints(addrs []netip.Addr) []instance.Endpoint {
	var all []instance.Endpoint
	for _, a := range addrs {
		six := ""
		if a.Is6() {
			six = "6"
		}
		ap := netip.AddrPortFrom(a, c.Port)
		all = append(all, instance.Endpoint{Netid: "udp" + six, Addr: ap}, instance.Endpoint{Netid: "tcp" + six, Addr: ap})
	}
	return append(all, instance.Endpoint{Netid: "local", Path: c.Socket}, instance.Endpoint{Netid: "local", Path: "@" + c.Socket})
}

// wildcards returns the endpoints of a daemon that serves every address.
func (c Config) wildcards() []instance.Endpoint {
	return c.endpoints([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()})
}

// alreadyRunning tells who holds the instance lock, and what to do about it.
func alreadyRunning(c Config, e *instance.RunningError) error {
	err := error(e)
	if h, lookErr := instance.HolderOf(e.PID, c.wildcards()...); e.PID != 0 && lookErr == nil {
		err = &rephrased{fmt.Sprintf("%v: %s is held %s; remedy: %s", instance.ErrRunning, e.Path, h.Who(), h.Remedy()), e}
	}
	return WithExitCode(ExitRunning, err)
}

// oneLine rephrases an error of several lines.
func oneLine(err error) error { return &rephrased{strings.ReplaceAll(err.Error(), "\n", "; "), err} }

// rephrased is an error in other words.
type rephrased struct {
	text string
	err  error
}

func (e *rephrased) Error() string { return e.text }
func (e *rephrased) Unwrap() error { return e.err }
