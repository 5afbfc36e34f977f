package instance

import (
	"fmt"

	"github.com/gportmap/gportmap/internal/sys"
)

// HolderOf tells of a process what [Holders] tells of one that has sockets, and those that it has among the endpoints:
// they tell whether systemd holds them as well. For a process that has ended errors.Is(err, syscall.ESRCH) holds.
func HolderOf(pid int, endpoints ...Endpoint) (Holder, error) {
	// What can't be told about sockets is left out: the process is the question.
	holders, _ := Holders(endpoints...)
	for _, h := range holders {
		if pid != 0 && h.Process.PID == pid {
			return h, nil
		}
	}
	p, err := sys.LookupProcess(pid)
	if err != nil {
		return Holder{}, fmt.Errorf("tell of a process: %w", err)
	}
	h := holderOf([]sys.Process{p})
	if h.Origin.Container != "" && h.Origin.Container == parseOrigin(readOwnCgroups()).Container {
		h.Origin.Runtime, h.Origin.Container = "", ""
	}
	return h, nil
}

// Who says in a few words who it is, as in "by rpcbind (pid 4568, user _rpc, unit rpcbind.service, …)".
func (h Holder) Who() string { return h.who() }
