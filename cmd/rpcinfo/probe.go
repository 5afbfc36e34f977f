package main

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// maxVersions is the number of versions of a program that are called if none is named: a server may claim to have all
// 4,294,967,296.
const maxVersions = 256

// probe calls the procedure that does nothing, of one version of a program or, if none is named, of each that its server
// says it has.
func (a *asker) probe(ctx context.Context) (answer, error) {
	t, found := a.nets.find(a.opt.netid)
	needed := a.opt.mode == modeAddress || a.opt.mode == modeProgram
	if a.opt.mode == modeAddress && !found {
		return nil, failure{text: "rpcinfo: Could not find " + a.opt.netid}
	}
	prog, vers, err := a.programVersion()
	if err != nil {
		return nil, err
	}
	if needed && !found {
		return nil, failure{text: "rpcinfo: Could not find " + a.opt.netid}
	}
	c, err := a.dialProgram(ctx, t, prog, vers)
	if err != nil {
		return nil, err
	}
	defer c.close()
	p := &prober{a: a, client: c, program: prog}
	if a.opt.ping {
		return p.ping(ctx, vers)
	}
	if len(a.opt.args) == 2 {
		err = p.call(ctx, vers)
	} else {
		err = p.callAll(ctx)
	}
	if len(p.results) == 0 {
		return nil, err
	}
	return p, err
}

// dialProgram makes a client of the program that is to be called.
func (a *asker) dialProgram(ctx context.Context, t transport, prog, vers uint32) (*client, error) {
	switch a.opt.mode {
	case modeTCP:
		return a.dialOver(ctx, "tcp", prog, vers)
	case modeUDP:
		return a.dialOver(ctx, "udp", prog, vers)
	}
	var c *client
	var failed *rpcError
	if a.opt.mode == modeAddress {
		s, ok := parseUAddr(t, a.opt.address)
		if !ok {
			return nil, failure{text: a.name + ": rpcinfo: no address for client handle"}
		}
		c, failed = a.dialAt(ctx, t, s)
	} else {
		c, failed = a.dialService(ctx, t, a.host, prog, vers)
	}
	if failed != nil {
		return nil, notCreated("rpcinfo", failed)
	}
	return c, nil
}

// dialOver makes a client of a program over the first transport of a protocol, "tcp" or "udp", for which the host has an
// address, at the port of -n or at the one that the host's portmapper knows.
func (a *asker) dialOver(ctx context.Context, proto string, prog, vers uint32) (*client, error) {
	var last *rpcError
	for _, t := range a.nets.pick(func(t transport) bool { return t.proto == proto }) {
		s, failed := a.locate(ctx, t, prog, vers)
		if failed != nil && failed.status == unknownHost {
			last = failed
			continue
		}
		var c *client
		if failed == nil {
			c, failed = a.dialAt(ctx, t, s)
		}
		if failed != nil {
			return nil, notCreated(a.host, failed)
		}
		return c, nil
	}
	if last != nil {
		return nil, notCreated(a.host, last)
	}
	return nil, failure{text: "Cannot find suitable transport for protocol " + proto}
}

func (a *asker) locate(ctx context.Context, t transport, prog, vers uint32) (service, *rpcError) {
	if a.opt.port == 0 {
		return a.find(ctx, t, a.host, prog, vers)
	}
	addrs, err := a.resolve(ctx, a.host)
	if addrs = ofVersion(addrs, t.ipv6()); err != nil || len(addrs) == 0 {
		return service{}, &rpcError{status: unknownHost}
	}
	return service{at: netip.AddrPortFrom(addrs[0], a.opt.port)}, nil
}

// prober calls versions of a program and tells what became of it.
type prober struct {
	a       *asker
	client  *client
	program uint32
	results []probed
}

// probed is what became of a call.
type probed struct {
	version uint32
	failed  *rpcError
	took    time.Duration
}

func (*prober) text(names) string { return "" } // it was printed call by call

// callAll finds the versions that a server says it has, by calling one that it hasn't, and calls each.
func (p *prober) callAll(ctx context.Context) error {
	low, high, failed := p.versions(ctx)
	if failed != nil {
		return p.tell(failed.version, failed.failed, 0)
	}
	if err := p.believe(low, high); err != nil {
		return err
	}
	var result error
	for i := range min(uint64(high)-uint64(low)+1, maxVersions) {
		if err := p.call(ctx, low+uint32(i)); err != nil {
			result = err
		}
		if ctx.Err() != nil {
			return errFailed
		}
	}
	if high-low >= maxVersions {
		return failure{text: fmt.Sprintf("rpcinfo: program %d: the server says that it has the versions %d to %d; %d were called, name another",
			p.program, low, high, maxVersions)}
	}
	return result
}

// versions asks for the lowest and the highest version that the server has, by a call of one that it should not have. Of a
// server that has both version 0 and the highest that there can be, these are the two.
func (p *prober) versions(ctx context.Context) (low, high uint32, failed *probed) {
	for _, vers := range []uint32{0, math.MaxUint32} {
		switch failed := p.client.null(ctx, p.program, vers); {
		case failed == nil:
		case failed.status == progMismatch:
			return failed.low, failed.high, nil
		default:
			return 0, 0, &probed{version: vers, failed: failed}
		}
	}
	return 0, math.MaxUint32, nil
}

// believe tells of versions that a server can't have.
func (p *prober) believe(low, high uint32) error {
	switch {
	case low == 0 && high == math.MaxUint32:
		return failure{text: fmt.Sprintf("rpcinfo: program %d: the server has, or says it has, all versions from 0 to %d; name one", p.program, high)}
	case low > high:
		return failure{text: fmt.Sprintf("rpcinfo: program %d: the server says that it has the versions %d to %d", p.program, low, high)}
	}
	return nil
}

// call calls a version.
func (p *prober) call(ctx context.Context, vers uint32) error {
	begin := time.Now()
	failed := p.client.null(ctx, p.program, vers)
	return p.tell(vers, failed, time.Since(begin))
}

// tell tells what became of the call of a version.
func (p *prober) tell(vers uint32, failed *rpcError, took time.Duration) error {
	p.results = append(p.results, probed{vers, failed, took})
	what := "ready and waiting"
	if failed != nil {
		what = "is not available"
	}
	if !p.a.opt.json {
		if failed != nil {
			fmt.Fprintf(p.a.errs, "%s\n", printable(notCalled("rpcinfo", failed).Error()))
		}
		if err := p.a.printf("program %d version %s %s\n", p.program, p.a.versionText(vers), what); err != nil {
			return err
		}
	}
	if failed != nil {
		return errFailed
	}
	return nil
}

// versionText is a version as rpcinfo(8) prints it.
func (a *asker) versionText(vers uint32) string {
	if len(a.opt.args) == 2 && (a.opt.mode == modeTCP || a.opt.mode == modeUDP) {
		return fmt.Sprint(uint64(signed(vers))) // it keeps this one in a C long, by way of an int
	}
	return fmt.Sprint(vers)
}
