package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// stats shows the portmapper's statistics. As in rpcinfo(8), -T isn't heeded here.
func (a *asker) stats(ctx context.Context) (answer, error) {
	c, err := a.dialListed(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	s, failed := c.stats(ctx)
	if failed != nil {
		return nil, notCalled("rpcinfo: can't contact rpcbind: ", failed)
	}
	return counted{a.host, s}, nil
}

func (c *client) stats(ctx context.Context) (s *rpcbind.Stats, failed *rpcError) {
	failed = c.ask(ctx, rpcbind.RPCBVers4, rpcbind.ProcGetStat, nil, func(d *xdr.Decoder) { s = rpcbind.ReadStats(d, maxString) })
	return s, failed
}

// statsHeads are the names of the procedures of each version, in the order of their numbers.
var statsHeads = map[uint32][]string{
	rpcbind.PMAPVers:  {"NULL", "SET", "UNSET", "GETPORT", "DUMP", "CALLIT"},
	rpcbind.RPCBVers3: {"NULL", "SET", "UNSET", "GETADDR", "DUMP", "CALLIT", "TIME", "U2T", "T2U"},
	rpcbind.RPCBVers4: {"NULL", "SET", "UNSET", "GETADDR", "DUMP", "CALLIT", "TIME", "U2T", "T2U", "VERADDR", "INDRECT", "GETLIST", "GETSTAT"},
}

// statsLine is the number of procedures on a line.
const statsLine = 9

// counted are the statistics of a host.
type counted struct {
	host  string
	stats *rpcbind.Stats
}

func (c counted) text(n names) string {
	var b strings.Builder
	s := c.stats
	v2, v3, v4 := s.Of(rpcbind.PMAPVers), s.Of(rpcbind.RPCBVers3), s.Of(rpcbind.RPCBVers4)
	b.WriteString("PORTMAP (version 2) statistics\n")
	writeCounts(&b, rpcbind.PMAPVers, v2)
	b.WriteString("\n")
	if v2.Calls[rpcbind.ProcCallIt] != 0 {
		b.WriteString("PMAP_RMTCALL call statistics\n" + remoteText(v2.Remote, false, n) + "\n")
	}
	if v2.Calls[rpcbind.ProcGetPort] != 0 {
		b.WriteString("PMAP_GETPORT call statistics\n" + lookupsText(v2.Lookups, n) + "\n")
	}
	b.WriteString("RPCBIND (version 3) statistics\n")
	writeCounts(&b, rpcbind.RPCBVers3, v3)
	b.WriteString("\n")
	if v3.Calls[rpcbind.ProcCallIt] != 0 {
		b.WriteString("RPCB_RMTCALL (version 3) call statistics\n" + remoteText(v3.Remote, false, n) + "\n")
	}
	if v3.Calls[rpcbind.ProcGetAddr] != 0 {
		b.WriteString("RPCB_GETADDR (version 3) call statistics\n" + lookupsText(v3.Lookups, n) + "\n")
	}
	b.WriteString("RPCBIND (version 4) statistics\n")
	writeCounts(&b, rpcbind.RPCBVers4, v4)
	if v4.Calls[rpcbind.ProcBcast] != 0 || v4.Calls[rpcbind.ProcIndirect] != 0 {
		b.WriteString("\nRPCB_RMTCALL (version 4) call statistics\n" + remoteText(v4.Remote, true, n))
	}
	if v4.Calls[rpcbind.ProcGetAddr] != 0 {
		b.WriteString("\nRPCB_GETADDR (version 4) call statistics\n" + lookupsText(v4.Lookups, n))
	}
	return b.String()
}

// writeCounts writes the heads of the procedures and below them their counts, in columns whose widths are multiples of 8.
func writeCounts(b *strings.Builder, vers uint32, s rpcbind.VersionStats) {
	heads := statsHeads[vers]
	for begin := 0; begin < len(heads); begin += statsLine {
		var counts strings.Builder
		for proc := begin; proc < min(begin+statsLine, len(heads)); proc++ {
			count := procedureCount(vers, uint32(proc), s)
			width := 8 * (1 + len(count)/8)
			b.WriteString(left(heads[proc], width))
			counts.WriteString(left(count, width))
		}
		b.WriteString("\n" + counts.String() + "\n")
	}
}

// procedureCount returns the calls of a procedure, and before a slash the successful ones where they are known.
func procedureCount(vers, proc uint32, s rpcbind.VersionStats) string {
	calls := s.Calls[proc]
	success := uint32(0)
	switch proc {
	case rpcbind.ProcSet:
		success = s.Sets
	case rpcbind.ProcUnset:
		success = s.Unsets
	case rpcbind.ProcGetAddr:
		for _, l := range s.Lookups {
			success += l.Success
		}
		if vers == rpcbind.RPCBVers4 {
			calls += s.Calls[rpcbind.ProcGetAddrList] // whose successes are among those of GETADDR
		}
	case rpcbind.ProcCallIt:
		for _, r := range s.Remote {
			success += r.Success
		}
	default:
		return strconv.FormatUint(uint64(calls), 10)
	}
	return fmt.Sprintf("%d/%d", success, calls)
}

func remoteText(list []rpcbind.RemoteStats, indirect bool, n names) string {
	var b strings.Builder
	if indirect {
		b.WriteString("prog\t\tvers\tproc\tnetid\tindirect success failure\n")
	} else {
		b.WriteString("prog\t\tvers\tproc\tnetid\tsuccess\tfailure\n")
	}
	for _, r := range list {
		fmt.Fprintf(&b, "%s%d\t%d\t%s\t", statsName(r.Program, n), signed(r.Version), signed(r.Procedure), printable(string(r.Netid)))
		if indirect {
			fmt.Fprintf(&b, "%d\t ", r.Indirect)
		}
		fmt.Fprintf(&b, "%d\t%d\n", r.Success, r.Failure)
	}
	return b.String()
}

func lookupsText(list []rpcbind.LookupStats, n names) string {
	var b strings.Builder
	b.WriteString("prog\t\tvers\tnetid\t  success\tfailure\n")
	for _, l := range list {
		fmt.Fprintf(&b, "%s%d\t%s\t  %-12d\t%d\n", statsName(l.Program, n), signed(l.Version), printable(string(l.Netid)), l.Success, l.Failure)
	}
	return b.String()
}

func statsName(program uint32, n names) string {
	return left(n.of(program, fmt.Sprint(signed(program))), 16)
}

// signed is a number as rpcinfo(8) prints it in some places. Who parses its output can parse ours.
func signed(v uint32) int32 { return int32(v) }
