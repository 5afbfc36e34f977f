package main

import (
	"context"
	"fmt"
	"math"
	"net/netip"
)

// maxVersions is the number of versions of a program that are called if none is named: a server may claim to have all
// 4,294,967,296.
const maxVersions = 256

// probe calls the procedure that does nothing, of one version of a program or, if none is named, of each that its server
// says it has.
func (a *asker) probe(ctx context.Context) error {
	operands := a.opt.operands
	if a.opt.mode != modeAddress {
		if len(operands) < 2 || len(operands) > 3 || a.opt.mode == modeProgram && !a.opt.hasNetid {
			return errUsage
		}
		operands = operands[1:]
	} else if len(operands) < 1 || len(operands) > 2 {
		return errUsage
	}
	t, found := a.nets.find(a.opt.netid)
	if a.opt.mode == modeAddress && !found {
		return failure{"rpcinfo: Could not find " + a.opt.netid}
	}
	prog, vers, err := a.programVersion(operands)
	if err != nil {
		return err
	}
	if a.opt.mode == modeProgram && !found {
		return failure{"rpcinfo: Could not find " + a.opt.netid}
	}
	c, err := a.dialProgram(ctx, t, prog, vers)
	if err != nil {
		return err
	}
	defer c.close()
	if len(operands) == 2 {
		return a.probeVersion(ctx, c, prog, vers, c.null(ctx, prog, vers))
	}
	return a.probeVersions(ctx, c, prog)
}

// dialProgram makes a client of the program that is to be called.
func (a *asker) dialProgram(ctx context.Context, t transport, prog, vers uint32) (*client, error) {
	switch a.opt.mode {
	case modeTCP:
		return a.dialOver(ctx, "tcp", a.opt.operands[0], prog, vers)
	case modeUDP:
		return a.dialOver(ctx, "udp", a.opt.operands[0], prog, vers)
	case modeAddress:
		s, ok := parseUAddr(t, a.opt.address)
		if !ok {
			return nil, failure{a.name + ": rpcinfo: no address for client handle"}
		}
		c, failed := a.dialAt(ctx, t, s)
		if failed != nil {
			return nil, notCreated("rpcinfo", failed)
		}
		return c, nil
	}
	c, failed := a.dialService(ctx, t, a.opt.operands[0], prog, vers)
	if failed != nil {
		return nil, notCreated("rpcinfo", failed)
	}
	return c, nil
}

// dialOver makes a client of a program over the first transport of a protocol, "tcp" or "udp", for which the host has an
// address, at the port of -n or at the one that the host's portmapper knows.
func (a *asker) dialOver(ctx context.Context, proto, host string, prog, vers uint32) (*client, error) {
	var last *rpcError
	for _, t := range a.nets.pick(func(t transport) bool { return t.proto == proto }) {
		s, failed := a.locate(ctx, t, host, prog, vers)
		if failed != nil && failed.status == unknownHost {
			last = failed
			continue
		}
		var c *client
		if failed == nil {
			c, failed = a.dialAt(ctx, t, s)
		}
		if failed != nil {
			return nil, notCreated(host, failed)
		}
		return c, nil
	}
	if last != nil {
		return nil, notCreated(host, last)
	}
	return nil, failure{"Cannot find suitable transport for protocol " + proto}
}

func (a *asker) locate(ctx context.Context, t transport, host string, prog, vers uint32) (service, *rpcError) {
	if a.opt.port == 0 {
		return a.find(ctx, t, host, prog, vers)
	}
	addrs, err := a.resolve(ctx, host)
	if addrs = ofVersion(addrs, t.ipv6()); err != nil || len(addrs) == 0 {
		return service{}, &rpcError{status: unknownHost}
	}
	return service{at: netip.AddrPortFrom(addrs[0], a.opt.port)}, nil
}

// probeVersions finds the versions that a server says it has, by calling one that it hasn't, and calls each.
func (a *asker) probeVersions(ctx context.Context, c *client, prog uint32) error {
	lowest := uint32(0)
	failed := c.null(ctx, prog, lowest)
	if failed == nil {
		lowest = math.MaxUint32
		failed = c.null(ctx, prog, lowest)
	}
	switch {
	case failed == nil:
		return failure{fmt.Sprintf("rpcinfo: program %d answers as version 0 and as version %d: its versions can't be found out; name one", prog, lowest)}
	case failed.status != progMismatch:
		return a.probeVersion(ctx, c, prog, lowest, failed)
	case failed.low > failed.high:
		return failure{fmt.Sprintf("rpcinfo: program %d: the server says that it has the versions %d to %d", prog, failed.low, failed.high)}
	}
	var result error
	for i := range min(uint64(failed.high)-uint64(failed.low)+1, maxVersions) {
		vers := failed.low + uint32(i)
		if err := a.probeVersion(ctx, c, prog, vers, c.null(ctx, prog, vers)); err != nil {
			result = err
		}
		if ctx.Err() != nil {
			return errFailed
		}
	}
	if failed.high-failed.low >= maxVersions {
		return failure{fmt.Sprintf("rpcinfo: program %d: the server says that it has the versions %d to %d; %d were called, name another",
			prog, failed.low, failed.high, maxVersions)}
	}
	return result
}

// probeVersion tells what became of the call of a version.
func (a *asker) probeVersion(ctx context.Context, c *client, prog, vers uint32, failed *rpcError) error {
	if failed == nil {
		return a.printf("program %d version %s ready and waiting\n", prog, a.versionText(vers))
	}
	fmt.Fprintf(a.errs, "%s\n", printable(notCalled("rpcinfo", failed).Error()))
	if err := a.printf("program %d version %s is not available\n", prog, a.versionText(vers)); err != nil {
		return err
	}
	return errFailed
}

// versionText is a version as rpcinfo(8) prints it.
func (a *asker) versionText(vers uint32) string {
	if named := len(a.opt.operands) == 3; named && (a.opt.mode == modeTCP || a.opt.mode == modeUDP) {
		return fmt.Sprint(uint64(signed(vers))) // it keeps this one in a C long, by way of an int
	}
	return fmt.Sprint(vers)
}
