package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A broadcast is sent twice; answers are waited for a third and two thirds of this time, libtirpc's 4 and 8 s.
const broadcastTime = 12 * time.Second

// nameTime is how long the name of a host that answered is looked for.
const nameTime = 2 * time.Second

// broadcast calls a program of every host of the local networks, and prints the address and the host's name of every
// answer. As in rpcinfo(8) a host has a line for each, which sort -u makes one of; in JSON it has one.
func (a *asker) broadcast(ctx context.Context) error {
	prog, vers, err := a.programVersion()
	if err != nil {
		return err
	}
	all := broadcastTime
	if a.opt.hasTimeout {
		all = a.opt.timeout
	}
	config := rpcbind.BroadcastConfig{Waits: []time.Duration{all / 3, all - all/3}, Repeated: !a.opt.json}
	if config.Network, err = a.broadcastNetwork(); err != nil {
		return err
	}
	names := make(hostNames)
	naming, cancel := context.WithTimeout(ctx, all+nameTime)
	defer cancel()
	for answer, err := range config.Broadcast(ctx, rpcbind.RemoteCall{Program: prog, Version: vers}) {
		if err != nil {
			return broadcastFailure(err)
		}
		at, ok := rpcbind.ParseUAddr(answer.Addr)
		if !ok {
			continue
		}
		if err := a.printAnswer(at, names.of(naming, at.Addr())); err != nil {
			return err
		}
	}
	return nil
}

func (a *asker) printAnswer(at netip.AddrPort, name string) error {
	if !a.opt.json {
		return a.printf("%s\t%s\n", rpcbind.UAddr(at), name)
	}
	return a.printJSON(struct {
		Address string `json:"address"`
		Port    uint16 `json:"port"`
		Name    string `json:"name"`
	}{at.Addr().String(), at.Port(), name})
}

// broadcastNetwork returns the network for the datagram transports of NETPATH, of which IP has two.
func (a *asker) broadcastNetwork() (string, error) {
	v4, v6 := false, false
	for _, t := range a.nets.path() {
		v4 = v4 || t.packets && t.netid == "udp"
		v6 = v6 || t.packets && t.netid == "udp6"
	}
	switch {
	case v4 && v6:
		return "udp", nil
	case v4:
		return "udp4", nil
	case v6:
		return "udp6", nil
	}
	return "", failure{text: "rpcinfo: broadcast failed: " + string(unknownProtocol)}
}

// broadcastFailure is the error of a broadcast that could be sent nowhere.
func broadcastFailure(err error) error {
	var e *rpcbind.Error
	if errors.As(err, &e) {
		err = e.Err // what was asked is known
	}
	status := unknownProtocol // there is nothing to send it to
	if errno(err) != 0 {
		status = cantSend
	}
	return failure{text: "rpcinfo: broadcast failed: " + string(status), hint: err.Error()}
}

// hostNames finds the names of hosts, of each once.
type hostNames map[netip.Addr]string

// of returns the name of a host; its address if it has none; "unknown" if that can't be found out.
func (h hostNames) of(ctx context.Context, addr netip.Addr) string {
	name, ok := h[addr]
	if !ok {
		name = lookUpName(ctx, addr)
		h[addr] = name
	}
	return name
}

func lookUpName(ctx context.Context, addr netip.Addr) string {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	names, err := net.DefaultResolver.LookupAddr(ctx, addr.String())
	var failed *net.DNSError
	switch {
	case err == nil && len(names) > 0:
		return printable(strings.TrimSuffix(names[0], "."))
	case err == nil, errors.As(err, &failed) && failed.IsNotFound:
		return addr.String()
	}
	return "unknown"
}
