package instance

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/gportmap/gportmap/internal/sys"
)

// An Endpoint is what couldn't be bound: an address for a netid "udp", "tcp", "udp6" or "tcp6"; a path, or "@name", for
// "local".
type Endpoint struct {
	Netid string
	Addr  netip.AddrPort
	Path  string
}

// String is the netid with the address or path.
func (e Endpoint) String() string {
	if e.Netid == "local" {
		return e.Netid + " " + e.Path
	}
	return e.Netid + " " + e.Addr.String()
}

// Unseen says why no process is known that has a socket.
type Unseen int

// The reasons, Seen being none.
const (
	Seen      Unseen = iota
	Denied           // it is another user's, and only root may look
	Elsewhere        // it isn't in our PID namespace, or the socket is the kernel's own
	Kernel           // no process of the host has it: the kernel itself, or one that is just handing it over
	Closed           // closed connections for which the kernel keeps the port a while
	NoProc           // /proc isn't there
)

// A Holder is who has sockets that we need. What processes share is told once, under the oldest that isn't systemd.
type Holder struct {
	// Sockets are those that it has, at least one.
	Sockets []sys.BoundSocket
	// Unseen says why Process isn't known; Seen if it is.
	Unseen Unseen
	// Process has them; its PID is 0 if it isn't known.
	Process sys.Process
	// More is how many other processes have them as well, systemd not counted.
	More int
	// User is its user's login name, or number; without a process that of who made the socket; empty if unknown.
	User string
	// Origin is the unit or the container that the process belongs to, if it isn't the container that we are in. The names
	// are those that root gave.
	Origin Origin
	// Systemd says that the service manager has the sockets, alone or besides Process.
	Systemd bool
	// SocketUnits are the units for which it may have them; several if it can't be told which one.
	SocketUnits []string
}

// Holders finds out who keeps us from binding each endpoint. It runs nothing and connects to nothing. The result is empty
// if everything is free by now. An error tells of endpoints about which the kernel can't say; the holders of the others are
// returned beside it.
func Holders(endpoints ...Endpoint) ([]Holder, error) {
	var sockets []sys.BoundSocket
	var failed error
	for _, e := range endpoints {
		var found []sys.BoundSocket
		var err error
		if e.Netid == "local" {
			found, err = sys.LocalSockets(e.Path)
		} else {
			found, err = sys.Conflicts(e.Netid, e.Addr)
		}
		if err != nil && failed == nil {
			failed = err
		}
		for _, s := range found {
			if !slices.Contains(sockets, s) { // one may be in the way of several
				sockets = append(sockets, s)
			}
		}
	}
	if len(sockets) == 0 {
		return nil, failed
	}
	inodes := make([]uint32, len(sockets))
	for i, s := range sockets {
		inodes[i] = s.Inode
	}
	found, err := sys.FindSocketProcesses(inodes)
	return group(sockets, found, err != nil), failed
}

// group makes one holder of the sockets that the same processes have.
func group(sockets []sys.BoundSocket, found sys.SocketSearch, noProc bool) []Holder {
	var holders []Holder
	at := make(map[string]int) // by who has them
	own := parseOrigin(readOwnCgroups())
	for _, s := range sockets {
		h := holderOf(found.Processes[s.Inode])
		if h.Process.PID == os.Getpid() && h.More == 0 && !h.Systemd {
			continue // what we bound before another one was refused
		}
		if h.Process.PID == 0 {
			h.Unseen = unseen(s, found, noProc)
			if s.HasUID {
				h.User = sys.UserName(s.UID)
			}
		} else if h.Origin.Container != "" && h.Origin.Container == own.Container {
			h.Origin.Runtime, h.Origin.Container = "", ""
		}
		key := fmt.Sprint(h.Process.PID, h.Unseen, h.User, h.Systemd)
		i, ok := at[key]
		if !ok {
			i = len(holders)
			at[key] = i
			holders = append(holders, h)
		}
		holders[i].Sockets = append(holders[i].Sockets, s)
		holders[i].More = max(holders[i].More, h.More)
		if h.Systemd {
			for _, unit := range socketUnits(unitDirectories(), s) {
				if !slices.Contains(holders[i].SocketUnits, unit) {
					holders[i].SocketUnits = append(holders[i].SocketUnits, unit)
				}
			}
		}
	}
	return holders
}

// holderOf tells of the processes that have one socket.
func holderOf(processes []sys.Process) Holder {
	var h Holder
	var services []sys.Process
	for _, p := range processes {
		if p.PID == 1 && p.Command == "systemd" {
			h.Systemd = true
			h.Process = p
			continue
		}
		services = append(services, p)
	}
	if len(services) > 0 {
		h.Process = slices.MinFunc(services, func(a, b sys.Process) int {
			return cmp.Or(cmp.Compare(a.StartTicks, b.StartTicks), cmp.Compare(a.PID, b.PID))
		})
		h.More = len(services) - 1
	}
	if h.Process.PID != 0 {
		h.User = sys.UserName(h.Process.UID)
		h.Origin = verifiedOrigin(h.Process.Cgroups)
	}
	return h
}

func unseen(s sys.BoundSocket, found sys.SocketSearch, noProc bool) Unseen {
	switch {
	case s.Inode == 0 && !s.Serving:
		return Closed
	case noProc:
		return NoProc
	case found.Denied:
		return Denied
	case !sys.InInitialPIDNamespace():
		return Elsewhere
	}
	return Kernel
}

func readOwnCgroups() string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	return string(b)
}
