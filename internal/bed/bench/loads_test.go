package bench_test

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A load is a way of asking that is measured. What it asks for is the program in the middle of those registered: a list that
// is searched from one end costs as much for it as on average.
type load struct {
	key       string // in the JSON file
	title     string
	transport string // whose processor time counts
	sameCPU   bool   // the generator runs on the server's processor
	noC       bool   // the C responder can't
	noOracle  bool   // rpcbind would fail or take minutes
	reach     []reach
	run       func(s *subject, programs int, d time.Duration) (tally, error)
}

// A reach is what was set out to be reached: a ratio to another subject's figure.
type reach struct {
	figure string // "cpu" or "rate"
	to     string // of which subject
	limit  float64
}

func (r reach) met(ratio float64) bool {
	if r.figure == "rate" {
		return ratio >= r.limit
	}
	return ratio <= r.limit
}

func middle(programs int) uint32 { return firstProgram + uint32(programs/2) }

// atTen and atTenThousand are what is measured with that many programs registered.
func atTen() []load {
	return []load{
		{
			key: "udp-getport", title: "UDP GETPORT, 4 sockets × 32 in flight", transport: "udp",
			reach: []reach{{"cpu", responderName, 1.25}, {"rate", rpcbindName, 4}},
			run:   saturated(func(p int) exchange { return getPort(middle(p)) }),
		},
		{
			key: "udp-getaddr", title: "UDP GETADDR, 4 sockets × 32 in flight", transport: "udp",
			reach: []reach{{"cpu", responderName, 1.25}, {"rate", rpcbindName, 4}},
			run:   saturated(func(p int) exchange { return getAddr(middle(p), rpcbind.UDP) }),
		},
		{
			key: "udp-one", title: "UDP GETPORT, one at a time, both on one processor", transport: "udp", sameCPU: true,
			reach: []reach{{"cpu", rpcbindName, 0.5}},
			run: func(s *subject, p int, d time.Duration) (tally, error) {
				return oneAtATime(s.port, getPort(middle(p)), d)
			},
		},
		{
			key: "udp-5000", title: "UDP GETPORT, 5,000 a second (open loop)", transport: "udp",
			reach: []reach{{"cpu", rpcbindName, 1}, {"p999", rpcbindName, 1}},
			run: func(s *subject, p int, d time.Duration) (tally, error) {
				return openLoop(s.port, 5000, getPort(middle(p)), d)
			},
		},
		{
			key: "tcp-pipelined", title: "TCP GETPORT, 1 connection, 64 in flight", transport: "tcp",
			reach: []reach{{"rate", rpcbindName, 15}},
			run: func(s *subject, p int, d time.Duration) (tally, error) {
				return pipelined(s.tcp(), 64, getPort(middle(p)), d)
			},
		},
		{
			key: "local-pipelined", title: "local GETPORT, 1 connection, 64 in flight", transport: "local",
			reach: []reach{{"rate", rpcbindName, 10}},
			run: func(s *subject, p int, d time.Duration) (tally, error) {
				return pipelined(s.unix(), 64, getPort(middle(p)), d)
			},
		},
		{
			key: "tcp-100", title: "TCP GETPORT, 100 connections × 1 in flight", transport: "tcp",
			reach: []reach{{"rate", rpcbindName, 2.5}},
			run: func(s *subject, p int, d time.Duration) (tally, error) {
				return manyConnections(s.tcp(), 100, getPort(middle(p)), d)
			},
		},
		{
			key: "tcp-connect", title: "TCP GETPORT, a connection for each call", transport: "tcp",
			reach: []reach{{"rate", rpcbindName, 1}},
			run: func(s *subject, p int, d time.Duration) (tally, error) {
				return connectPerCall(s.port, getPort(middle(p)), d)
			},
		},
		changes(),
	}
}

func atTenThousand() []load {
	return []load{
		{
			key: "udp-getport", title: "UDP GETPORT, 4 sockets × 32 in flight", transport: "udp",
			reach: []reach{{"cpu", responderName, 1.25}, {"rate", rpcbindName, 10}},
			run:   saturated(func(p int) exchange { return getPort(middle(p)) }),
		},
		{
			key: "udp-getaddr", title: "UDP GETADDR, 4 sockets × 32 in flight", transport: "udp",
			reach: []reach{{"cpu", responderName, 1.25}, {"rate", rpcbindName, 10}},
			run:   saturated(func(p int) exchange { return getAddr(middle(p), rpcbind.UDP) }),
		},
		{
			key: "tcp-dump", title: "TCP DUMP of the whole table", transport: "tcp",
			reach: []reach{{"cpu", responderName, 1.5}},
			run:   func(s *subject, p int, d time.Duration) (tally, error) { return dumps(s.tcp(), p, d) },
		},
		changes(),
	}
}

func saturated(e func(programs int) exchange) func(s *subject, programs int, d time.Duration) (tally, error) {
	return func(s *subject, programs int, d time.Duration) (tally, error) {
		return closedLoop(s.port, 4, 32, e(programs), d)
	}
}

func changes() load {
	return load{
		key: "local-set-unset", title: "SET and UNSET over the local socket, one at a time", transport: "local", noC: true,
		run: func(s *subject, p int, d time.Duration) (tally, error) { return setAndUnset(s.unix(), p, d) },
	}
}

// setAndUnset registers and unregisters a program that isn't registered.
func setAndUnset(to unix.Sockaddr, programs int, d time.Duration) (t tally, err error) {
	fd, err := dialStream(to)
	if err != nil {
		return t, err
	}
	defer unix.Close(fd)
	b := registration(programs + 1)
	yes := newReply([]byte{0, 0, 0, 1})
	set := newPipe(fd, 1, exchange{call: newCall(rpcbind.RPCBVers3, rpcbind.ProcSet, rpcbind.AppendRPCB(nil, b)), reply: yes})
	b.Addr = ""
	unset := newPipe(fd, 1, exchange{call: newCall(rpcbind.RPCBVers3, rpcbind.ProcUnset, rpcbind.AppendRPCB(nil, b)), reply: yes})
	begin := time.Now()
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		for _, p := range []*pipe{set, unset} {
			if err = p.send(1, time.Now()); err != nil {
				return t, err
			}
			if _, err = p.receive(&t); err != nil {
				return t, err
			}
		}
	}
	t.took = time.Since(begin)
	return t, nil
}
