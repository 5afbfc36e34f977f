package instance

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

func TestHolderText(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	rpcbind := sys.Process{PID: 4568, Command: "rpcbind", Program: "/sbin/rpcbind", Args: []string{"/sbin/rpcbind", "-f", "-w"}, UID: 107, Started: since}
	udp, local := []sys.BoundSocket{held("udp 0.0.0.0:111")}, []sys.BoundSocket{held("local /run/rpcbind.sock")}
	process := func(command string, args ...string) sys.Process {
		return sys.Process{PID: 7, Command: command, Args: args, Started: since}
	}
	for _, c := range []struct {
		name           string
		h              Holder
		text, remedies string
	}{
		{"rpcbind with its socket unit",
			Holder{Sockets: udp, Process: rpcbind, User: "_rpc", Origin: Origin{Unit: "rpcbind.service"}, Systemd: true, SocketUnits: []string{"rpcbind.socket"}},
			"udp 0.0.0.0:111 is held by rpcbind (pid 4568, user _rpc, unit rpcbind.service, systemd holds it too for rpcbind.socket, " +
				"since 2026-01-02 03:04:05, `/sbin/rpcbind -f -w`)",
			"systemctl stop rpcbind.socket rpcbind.service, or gportmap takeover"},
		{"rpcbind as a unit", Holder{Sockets: udp, Process: rpcbind, User: "_rpc", Origin: Origin{Unit: "rpcbind.service"}}, "unit rpcbind.service, since",
			"systemctl stop rpcbind.service, or gportmap takeover"},
		{"rpcbind by hand", Holder{Sockets: udp, Process: rpcbind, User: "_rpc"}, "", "kill 4568, or gportmap takeover"},
		{"rpcbind from a session", Holder{Sockets: udp, Process: rpcbind, Origin: Origin{Unit: "session-3.scope"}}, "unit session-3.scope",
			"kill 4568, or gportmap takeover"},
		{"several sockets and processes", Holder{Sockets: append(udp, local...), Process: process("nginx"), More: 3, User: "root"},
			"udp 0.0.0.0:111, local /run/rpcbind.sock are held by nginx (pid 7, user root, and 3 more, since 2026-01-02 03:04:05)", "kill 7"},
		{"systemd alone, unit unknown", Holder{Sockets: udp, Process: sys.Process{PID: 1, Command: "systemd"}, Systemd: true},
			"udp 0.0.0.0:111 is held by systemd (pid 1)", "systemctl list-sockets tells the socket unit; systemctl stop it"},
		{"systemd for one of two units", Holder{Sockets: udp, Process: sys.Process{PID: 1, Command: "systemd"}, Systemd: true,
			SocketUnits: []string{"a.socket", "b.socket"}}, "by systemd (pid 1) for a.socket or b.socket", "systemctl stop a.socket b.socket"},
		{"user's unit", Holder{Sockets: udp, Process: process("x"), Origin: Origin{Unit: "x.service", User: "0"}},
			"unit x.service of the user manager", "systemctl --user --machine=root@ stop x.service"},
		{"docker", Holder{Sockets: udp, Process: process("rpcbind"), Origin: Origin{Runtime: "docker", Container: id}},
			"docker container " + id[:12] + ",", "docker stop " + id[:12]},
		{"docker's proxy", Holder{Sockets: udp, Process: process("docker-proxy"), Origin: Origin{Unit: "docker.service"}},
			"unit docker.service", "docker ps --filter publish=111 tells the container that publishes the port; docker stop it"},
		{"podman", Holder{Sockets: udp, Process: process("x"), Origin: Origin{Runtime: "podman", Container: id}}, "", "podman stop " + id[:12]},
		{"kubernetes", Holder{Sockets: udp, Process: process("x"), Origin: Origin{Runtime: "kubernetes", Container: id}}, "",
			"crictl stop " + id[:12] + ", or delete its pod"},
		{"lxc", Holder{Sockets: udp, Process: process("x"), Origin: Origin{Runtime: "lxc", Container: "web"}}, "lxc container web", "lxc-stop -n web"},
		{"nspawn", Holder{Sockets: udp, Process: process("rpcbind"), Origin: Origin{Runtime: "nspawn", Container: "deb", Unit: "rpcbind.service"}},
			"nspawn container deb", "systemctl --machine=deb stop rpcbind.service, or machinectl poweroff deb"},
		{"another runtime", Holder{Sockets: udp, Process: process("x"), Origin: Origin{Runtime: "container", Container: id}}, "",
			"stop the container " + id[:12] + ", or kill 7"},
		{"process 1", Holder{Sockets: udp, Process: sys.Process{PID: 1, Command: "nc"}}, "by nc (pid 1",
			"stop process 1, which is what this container or machine runs, or choose another port"},
		{"denied", Holder{Sockets: udp, Unseen: Denied, User: "root"}, "udp 0.0.0.0:111 is held by a process of user root that only root can look into",
			"look as root with ss -lnp 'sport = :111', stop that process or choose another port"},
		{"elsewhere", Holder{Sockets: local, Unseen: Elsewhere}, "local /run/rpcbind.sock is held outside this pid namespace, or by the kernel itself",
			"it runs outside this pid namespace: look on the host with ss -lxp src /run/rpcbind.sock"},
		{"kernel", Holder{Sockets: udp, Unseen: Kernel}, "is held by no process: by the kernel itself (nfsd, lockd)",
			"stop the kernel's service by its own tool, such as rpc.nfsd 0; look with ss -lnp 'sport = :111'"},
		{"closed", Holder{Sockets: udp, Unseen: Closed}, "is held by closed connections that the kernel still remembers", "wait a minute and start again"},
		{"no /proc", Holder{Sockets: udp, Unseen: NoProc}, "for /proc can't be read", "look as root with ss -lnp 'sport = :111', stop that process or choose another port"},
		{"program behind the name", Holder{Sockets: udp, Process: sys.Process{PID: 7, Command: "rpcbind", Program: "/usr/bin/perl", Args: []string{"rpcbind"}, Started: since}},
			"program /usr/bin/perl, `rpcbind`", "kill 7, or gportmap takeover"},

		// What others chose does a terminal and a shell no harm.
		{"hostile names", Holder{Sockets: udp, Process: process("\x1b[2J\n", "a`b", "\xff\u202e"), User: "x\ny", Origin: Origin{Unit: "$(reboot);'.service"}},
			"by \\x1b[2J\\n (pid 7, user x\\ny, unit $(reboot);'.service, since 2026-01-02 03:04:05, `a\\x60b \\xff\\u202e`)",
			`systemctl stop '$(reboot);'\''.service'`},
		{"option for a name", Holder{Sockets: udp, Process: process("x"), Origin: Origin{Runtime: "lxc", Container: "-x"}}, "", "lxc-stop -n '-x'"},
		{"long command line", Holder{Sockets: udp, Process: process("x", strings.Repeat("é", 1000))}, "`" + strings.Repeat("é", 100) + "…`", "kill 7"},
	} {
		if got := c.h.String(); !strings.Contains(got, c.text) {
			t.Errorf("%s: %s\nlacks %s", c.name, got, c.text)
		}
		if got := c.h.Remedy(); got != c.remedies {
			t.Errorf("%s: remedy %s\nwant %s", c.name, got, c.remedies)
		}
		e := &PortHeldError{Holders: []Holder{c.h}}
		if got := e.Error(); strings.ContainsAny(got, "\n\x1b") || !strings.HasPrefix(got, "address already in use: ") || !errors.Is(e, syscall.EADDRINUSE) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestPortHeldErrorWithoutHolders(t *testing.T) {
	wanted := []Endpoint{endpoint("udp", "0.0.0.0:111"), {Netid: "local", Path: "/run/x"}}
	if got, want := (&PortHeldError{Endpoints: wanted}).Error(),
		"address already in use: whoever had udp 0.0.0.0:111, local /run/x is gone by now; try again"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e := &PortHeldError{Endpoints: wanted, Err: errors.New("no netlink")}
	if got := e.Error(); !strings.Contains(got, "no netlink") || !strings.Contains(got, "can't be told") {
		t.Error(got)
	}
}
