package faults

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A scenario is something that the program does, walked through from its first system call to its last.
type scenario struct {
	name string
	// from is the portmapper that serves before: nothing, rpcbind or gportmap.
	from string
	// args are those of the program that is walked through.
	args []string
	// act is what is done to the daemon once it serves, and walked through; nil: its start is.
	act func(*trial)
	// command says that the program isn't the daemon, but a command about the one that serves before. judge, which may be
	// nil, says what is wrong with its exit code.
	command bool
	judge   func(tr *trial, code int) string
	// manager gives the program a NOTIFY_SOCKET.
	manager bool
	// found are faults that found something once. They are in every sample.
	found []string
}

// scenarios is every walk.
func scenarios() []scenario {
	config := []string{"-f", "--config", configFile}
	all := []scenario{
		{name: "start", args: []string{"-f"}, found: []string{
			"SIGTERM at fchmod /run/gportmap.pid.new #1", "EMFILE at fstat /run/rpcbind/rpcbind.xdr #2",
			"EIO at read /run/rpcbind/rpcbind.xdr #2", "EPERM at socket 10 526338 0 #1"}},
		{name: "start under a service manager", args: []string{"-f", "-s"}, manager: true},
		{name: "start in the background", found: []string{"EIO at read pipe:[N] #1"}},
		{name: "takeover from rpcbind", from: "rpcbind", args: []string{"-f", "--takeover"}},
		{name: "takeover from gportmap", from: "gportmap", args: []string{"-f", "--takeover"}, found: []string{"ENOSPC at ppoll #1"}},
		{name: "takeover command", from: "rpcbind", args: []string{"takeover"}},
		{name: "reload", args: config, act: reload},
		{name: "stop", args: config, act: stop, found: []string{
			"EPERM at write anon_inode:[eventfd] #1"}},
		{name: "status command", from: "gportmap", args: []string{"status"}, command: true, found: []string{
			"EMFILE at read gportmap #1"}, judge: func(_ *trial, code int) string {
			if slices.Contains([]int{1, 2, 3}, code) {
				return "says that a daemon doesn't run that does"
			}
			return ""
		}},
		{name: "reload command", from: "gportmap", args: []string{"reload"}, command: true},
		{name: "stop command", from: "gportmap", args: []string{"stop"}, command: true, judge: func(tr *trial, code int) string {
			if code == 0 && len(tr.portmappers()) > 0 {
				return "says OK and leaves the daemon running"
			}
			return ""
		}},
	}
	for _, network := range []string{"unix", "tcp", "udp"} {
		all = append(all,
			scenario{name: "SET over " + network, args: config, act: func(tr *trial) { set(tr, network) }},
			scenario{name: "UNSET over " + network, args: config, act: func(tr *trial) { unset(tr, network) }},
			scenario{name: "DUMP over " + network, args: config, act: func(tr *trial) { dump(tr, network) }})
	}
	return all
}

// registered is what portmappers have before each trial. The owner of the last may be anybody, as who calls over UDP is.
func registered() []rpcbind.RPCB {
	return []rpcbind.RPCB{
		{Program: 100003, Version: 3, Netid: rpcbind.TCP, Addr: "0.0.0.0.8.1", Owner: rpcbind.OwnerSuperuser},
		{Program: 100003, Version: 3, Netid: rpcbind.UDP6, Addr: "::.8.1", Owner: rpcbind.OwnerSuperuser},
		{Program: 100024, Version: 1, Netid: rpcbind.UDP, Addr: "0.0.0.0.200.1", Owner: "1234"},
		{Program: 400000, Version: 3, Netid: rpcbind.Local, Addr: "/run/service.sock", Owner: "65534"},
		{Program: 400001, Version: 1, Netid: rpcbind.UDP, Addr: "0.0.0.0.200.2", Owner: rpcbind.OwnerUnknown},
	}
}

// patience bounds each wait for what must come. What takes longer than promised, but comes, is only told: others use the
// machine as well.
const (
	patience = 10 * time.Second
	promised = 2 * time.Second
)

// client asks the portmapper over a new socket, and again over others while that fails, unless it is about to end; ask
// returns whether it is content.
func client(tr *trial, network string, ask func(ctx context.Context, c *rpcbind.Client) bool) {
	address := "127.0.0.1"
	if network == "unix" {
		address = rpcbind.SocketPath
	}
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		content := func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), patience/2)
			defer cancel()
			c, err := rpcbind.DialPortmapper(ctx, network, address)
			if err != nil {
				return false
			}
			defer c.Close()
			return ask(ctx, c)
		}()
		switch {
		case content || tr.mayEnd():
			return
		case tr.daemon.ended():
			return // which is judged
		case time.Now().After(until):
			tr.problem("no answer over %s within %v", network, patience)
			return
		}
	}
}

func set(tr *trial, network string) {
	b := rpcbind.RPCB{Program: 400002, Version: 1, Netid: rpcbind.TCP, Addr: "0.0.0.0.200.3"}
	tr.may[key(b)] = true
	client(tr, network, func(ctx context.Context, c *rpcbind.Client) bool {
		ok, err := c.Set(ctx, b)
		if ok && err == nil {
			tr.must[key(b)] = true
		}
		return ok && err == nil
	})
}

// unset removes two registrations at once; over UDP one, because that is who may.
func unset(tr *trial, network string) {
	b := rpcbind.RPCB{Program: 100003, Version: 3}
	if network == "udp" {
		b = rpcbind.RPCB{Program: 400001, Version: 1}
	}
	gone := func(in map[string]bool, yes bool) {
		for _, r := range registered() {
			if r.Program == b.Program {
				delete(tr.must, key(r))
				tr.may[key(r)] = !yes
			}
		}
	}
	gone(tr.must, false)
	client(tr, network, func(ctx context.Context, c *rpcbind.Client) bool {
		ok, err := c.Unset(ctx, b)
		if ok && err == nil {
			gone(tr.must, true)
		}
		return ok && err == nil
	})
}

func dump(tr *trial, network string) {
	client(tr, network, func(ctx context.Context, c *rpcbind.Client) bool {
		all, err := c.Dump(ctx)
		if err == nil {
			tr.compare("DUMP", all)
		}
		return err == nil
	})
}

func reload(tr *trial) {
	tr.daemon.signal(syscall.SIGHUP)
	tr.await("the reload's end", func() bool { return tr.daemon.ended() || tr.calm() })
}

func stop(tr *trial) {
	begun := time.Now()
	tr.daemon.signal(syscall.SIGTERM)
	tr.ending = true
	tr.await("the daemon's end", tr.daemon.ended)
	tr.told(begun, "the daemon's end")
}

// key is what a registration is compared by, but for the owner of one that came over the network.
func key(b rpcbind.RPCB) string {
	if b.Program == 400002 || b.Program == 400001 {
		b.Owner = "anybody"
	}
	return fmt.Sprintf("%d %d %s %s %s", b.Program, b.Version, b.Netid, b.Addr, b.Owner)
}
