package instance

import (
	"github.com/gportmap/gportmap/internal/sys"
)

// ServersOf tells for each endpoint of an IP transport who serves there: who is bound to its address or to the wildcard.
// Where that can't be told, or nobody is, Process has the PID 0 and Unseen says why: Seen if nobody is bound at all. The
// result has as many elements as there are endpoints. The error means that the kernel doesn't tell what is bound.
func ServersOf(endpoints []Endpoint) ([]Holder, error) {
	all := make([]Holder, len(endpoints))
	table, err := sys.BoundSockets()
	if err != nil {
		return all, err
	}
	var inodes []uint32
	for i, e := range endpoints {
		all[i].Sockets = table.At(e.Netid, e.Addr)
		for _, s := range all[i].Sockets {
			inodes = append(inodes, s.Inode)
		}
	}
	found, err := sys.FindSocketProcesses(inodes)
	noProc := err != nil
	own := parseOrigin(readOwnCgroups())
	for i := range all {
		sockets := all[i].Sockets
		if len(sockets) == 0 {
			continue
		}
		// Several share a port with SO_REUSEPORT, or are bound to one address each: the first that can be seen will do.
		for _, s := range sockets {
			if h := holderOf(found.Processes[s.Inode]); h.Process.PID != 0 {
				h.Sockets = sockets
				all[i] = h
				break
			}
		}
		switch s := sockets[0]; {
		case all[i].Process.PID == 0:
			all[i].Unseen = unseen(s, found, noProc)
			if s.Inode == 0 && s.Serving {
				all[i].Unseen = Kernel
			}
			if s.HasUID {
				all[i].User = sys.UserName(s.UID)
			}
		case all[i].Origin.Container != "" && all[i].Origin.Container == own.Container:
			all[i].Origin.Runtime, all[i].Origin.Container = "", ""
		}
	}
	return all, nil
}
