package instance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// maxShown is how many octets of a command line are shown.
const maxShown = 200

// A PortHeldError says who has what couldn't be bound. errors.Is(err, syscall.EADDRINUSE) holds for it.
type PortHeldError struct {
	// Holders are who has it; none if they are gone by now, or can't be told.
	Holders []Holder
	// Endpoints are what was refused.
	Endpoints []Endpoint
	// Err, if not nil, is why not everything is told.
	Err error
}

// WhoHolds returns the [*PortHeldError] for endpoints that were refused with EADDRINUSE.
func WhoHolds(endpoints ...Endpoint) *PortHeldError {
	holders, err := Holders(endpoints...)
	return &PortHeldError{Holders: holders, Endpoints: endpoints, Err: err}
}

// Error is one line: who has what, and what to do about each.
func (e *PortHeldError) Error() string {
	var parts []string
	for _, h := range e.Holders {
		parts = append(parts, h.String()+"; remedy: "+h.Remedy())
	}
	switch {
	case e.Err != nil:
		parts = append(parts, fmt.Sprintf("by whom can't be told: %v; look with ss -lxnp", e.Err))
	case len(parts) == 0:
		names := make([]string, len(e.Endpoints))
		for i, endpoint := range e.Endpoints {
			names[i] = printable(endpoint.String())
		}
		parts = append(parts, "whoever had "+strings.Join(names, ", ")+" is gone by now; try again")
	}
	return syscall.EADDRINUSE.Error() + ": " + strings.Join(parts, "; ")
}

// Unwrap returns EADDRINUSE.
func (e *PortHeldError) Unwrap() error { return syscall.EADDRINUSE }

// String says in one line who has what, as in
//
//	udp 0.0.0.0:111 is held by rpcbind (pid 4568, user _rpc, unit rpcbind.service, since 2026-01-02 03:04:05, `/sbin/rpcbind -f -w`)
func (h Holder) String() string {
	verb := " is held "
	if len(h.Sockets) > 1 {
		verb = " are held "
	}
	return h.endpoints() + verb + h.who()
}

// endpoints names the sockets, as in "udp 0.0.0.0:111, tcp 0.0.0.0:111".
func (h Holder) endpoints() string {
	names := make([]string, len(h.Sockets))
	for i, s := range h.Sockets {
		names[i] = printable(s.String())
	}
	return strings.Join(slices.Compact(names), ", ")
}

func (h Holder) who() string {
	of := ""
	if h.User != "" {
		of = " of user " + printable(h.User)
	}
	switch h.Unseen {
	case Seen:
	case Denied:
		return "by a process" + of + " that only root can look into (CAP_SYS_PTRACE)"
	case Elsewhere:
		return "outside this pid namespace" + of + ", or by the kernel itself"
	case Kernel:
		return "by no process: by the kernel itself (nfsd, lockd)"
	case Closed:
		return "by closed connections that the kernel still remembers"
	case NoProc:
		return "by a process" + of + " that can't be seen, for /proc can't be read"
	}
	if h.isSystemdAlone() {
		text := "by systemd (pid 1)"
		if len(h.SocketUnits) > 0 {
			text += " for " + printable(strings.Join(h.SocketUnits, " or "))
		}
		return text
	}
	return fmt.Sprintf("by %s (%s)", printable(h.Process.Command), strings.Join(h.details(), ", "))
}

func (h Holder) details() []string {
	d := []string{"pid " + strconv.Itoa(h.Process.PID), "user " + printable(h.User)}
	if h.More > 0 {
		d = append(d, fmt.Sprintf("and %d more", h.More))
	}
	if o := h.Origin; o.Unit != "" {
		unit := "unit " + printable(o.Unit)
		if o.User != "" {
			unit += " of the user manager"
		}
		d = append(d, unit)
	}
	if o := h.Origin; o.Runtime != "" {
		d = append(d, fmt.Sprintf("%s container %s", o.Runtime, printable(o.short())))
	}
	if h.Systemd {
		text := "systemd holds it too"
		if len(h.SocketUnits) > 0 {
			text += " for " + printable(strings.Join(h.SocketUnits, " or "))
		}
		d = append(d, text)
	}
	d = append(d, "since "+h.Process.Started.Format(time.DateTime))
	if p := h.Process; p.Program != "" && (len(p.Args) == 0 || p.Args[0] != p.Program) {
		d = append(d, "program "+printable(p.Program))
	}
	if line := commandLine(h.Process); line != "" {
		d = append(d, "`"+line+"`")
	}
	return d
}

// commandLine is the command line, escaped and cut.
func commandLine(p sys.Process) string {
	line := strings.ReplaceAll(printable(strings.Join(p.Args, " ")), "`", `\x60`)
	if len(line) > maxShown {
		line = strings.ToValidUTF8(line[:maxShown], "") + "…"
	}
	return line
}

// short is the container's name, or the first digits of its id.
func (o Origin) short() string {
	if isID(o.Container) {
		return o.Container[:shortID]
	}
	return o.Container
}

// isSystemdAlone says that it is systemd that has the sockets, and no service.
func (h Holder) isSystemdAlone() bool { return h.Systemd && h.Process.PID == 1 }

// Remedy says in one line what frees the sockets: a command, or several, and what else would do.
func (h Holder) Remedy() string {
	switch h.Unseen {
	case Seen:
	case Denied, NoProc:
		return "look as root with " + h.look() + ", stop that process or choose another port"
	case Elsewhere:
		return "it runs outside this pid namespace: look on the host with " + h.look()
	case Kernel:
		return "stop the kernel's service by its own tool, such as rpc.nfsd 0; look with " + h.look()
	case Closed:
		return "wait a minute and start again"
	}
	switch o := h.Origin; {
	case o.Runtime != "":
		return h.stopContainer()
	case h.Process.Command == "docker-proxy":
		return fmt.Sprintf("docker ps --filter publish=%d tells the container that publishes the port; docker stop it", h.port())
	case h.Systemd && len(h.SocketUnits) == 0:
		return "systemctl list-sockets tells the socket unit; systemctl stop it" + h.andService() + h.orTakeover()
	case h.Systemd:
		return "systemctl stop " + shellWords(h.SocketUnits) + h.andService() + h.orTakeover()
	case strings.HasSuffix(o.Unit, ".service") && o.User != "":
		return fmt.Sprintf("systemctl --user --machine=%s@ stop %s", shellWord(userName(o.User)), shellWord(o.Unit))
	case strings.HasSuffix(o.Unit, ".service") && !strings.HasPrefix(o.Unit, "user@"):
		return "systemctl stop " + shellWord(o.Unit) + h.orTakeover()
	case h.Process.PID == 1:
		return "stop process 1, which is what this container or machine runs, or choose another port"
	}
	return "kill " + strconv.Itoa(h.Process.PID) + h.orTakeover()
}

// andService adds the service to a command that stops units.
func (h Holder) andService() string {
	if h.isSystemdAlone() || !strings.HasSuffix(h.Origin.Unit, ".service") {
		return ""
	}
	return " " + shellWord(h.Origin.Unit)
}

// orTakeover is for holders that gportmap can take over from.
func (h Holder) orTakeover() string {
	rpcbind := slices.ContainsFunc(h.SocketUnits, func(unit string) bool {
		return unit == "rpcbind.socket" || unit == "portmap.socket" || unit == "gportmap.socket"
	})
	if isPortmapper(h.Process) && !h.onlyAbstract() || rpcbind {
		return ", or gportmap takeover"
	}
	return ""
}

func (h Holder) stopContainer() string {
	o := h.Origin
	name := shellWord(o.short())
	switch o.Runtime {
	case "docker":
		return "docker stop " + name
	case "podman":
		return "podman stop " + name
	case "kubernetes":
		return "crictl stop " + name + ", or delete its pod"
	case "lxc":
		return "lxc-stop -n " + name
	case "libvirt":
		return "machinectl terminate " + name
	case "nspawn":
		if strings.HasSuffix(o.Unit, ".service") {
			return "systemctl --machine=" + name + " stop " + shellWord(o.Unit) + ", or machinectl poweroff " + name
		}
		return "machinectl poweroff " + name
	}
	return "stop the container " + name + ", or kill " + strconv.Itoa(h.Process.PID)
}

// look is the command that shows the sockets.
func (h Holder) look() string {
	if port := h.port(); port != 0 {
		return fmt.Sprintf("ss -lnp 'sport = :%d'", port)
	}
	return "ss -lxp src " + shellWord(h.Sockets[0].Path)
}

// port is that of the first socket that has one, else 0.
func (h Holder) port() uint16 {
	for _, s := range h.Sockets {
		if s.Netid != "local" {
			return s.Addr.Port()
		}
	}
	return 0
}

// userName turns a user id in decimals into the login name.
func userName(uid string) string {
	if n, err := strconv.ParseUint(uid, 10, 32); err == nil {
		return sys.UserName(uint32(n))
	}
	return uid
}

func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellWord(w)
	}
	return strings.Join(quoted, " ")
}

// shellWord quotes a name, which somebody else chose, so that a command with it can be pasted into a shell.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if s != "" && strings.Trim(s, plain) == "" && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(printable(s), "'", `'\''`) + "'"
}
