package daemon

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/internal/sys"
)

// The kernel may take a moment to give up the sockets of a process that has ended.
const (
	bindPatience = time.Second
	bindPause    = 2 * time.Millisecond
)

// listen is [listen] with the sockets inherited as far as they are those that are wanted.
func (t *takeover) listen(c Config, k *keeper) ([]*sys.Socket, error) {
	if t == nil {
		return listen(c, k)
	}
	// What isn't wanted may stand in the way of what is.
	t.copies = slices.DeleteFunc(t.copies, func(s *sys.CopiedSocket) bool {
		if slices.ContainsFunc(t.endpoints, func(e instance.Endpoint) bool { return isCopy(s, e) }) {
			return false
		}
		s.Close()
		return true
	})
	t.inherited = true
	var sockets []*sys.Socket
	var failed []refused
	for _, e := range t.endpoints {
		s, err := t.open(e)
		if errors.Is(err, syscall.EADDRINUSE) && strings.HasPrefix(e.Path, "@") {
			c.Log.Warn("the abstract socket is another's, which any user may have: serving without it", "err", refusal(c, []refused{{e, err}}))
			continue
		}
		if err != nil {
			failed = append(failed, refused{e, err})
			continue
		}
		sockets = append(sockets, s)
	}
	if failed == nil {
		k.keepListeners(sockets)
		k.adopt(t.connections, t.config.Limits.ConnectionsEach)
		t.connections = nil
		return sockets, nil
	}
	closeAll(sockets)
	return nil, refusal(c, failed)
}

// isCopy tells whether a socket is just what we would bind.
func isCopy(s *sys.CopiedSocket, e instance.Endpoint) bool {
	return s.Netid == e.Netid && s.Path == e.Path && !s.DualStack && s.IsAt(e.Addr)
}

func (t *takeover) open(e instance.Endpoint) (*sys.Socket, error) {
	for _, s := range t.copies {
		if !isCopy(s, e) {
			continue
		}
		socket, err := s.Serve()
		if err == nil {
			return socket, nil
		}
		t.config.Log.Debug("takeover: a socket can't be inherited", "err", err)
	}
	// rpcbind has no abstract socket: who tries that one is refused before, too, and goes on to the path.
	t.inherited = t.inherited && strings.HasPrefix(e.Path, "@")
	for until := time.Now().Add(bindPatience); ; time.Sleep(bindPause) {
		s, err := t.config.open(e)
		if !errors.Is(err, syscall.EADDRINUSE) || strings.HasPrefix(e.Path, "@") || time.Now().After(until) {
			return s, err
		}
	}
}
