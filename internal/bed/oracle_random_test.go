package bed_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// TestOracleRandom sends random sequences of calls to rpcbind and gportmap, from
// the part of the protocol where both agree.
func TestOracleRandom(t *testing.T) {
	t.Parallel()
	t.Logf("-bed.seed=%d -bed.steps=%d", *seedFlag, *stepsFlag)
	g := &generator{random: rand.New(rand.NewPCG(*seedFlag, 0)), script: &script{opts: bed.Options{Remote: true}, alive: true}}
	for range *stepsFlag {
		g.step()
	}
	g.add("the table", bed.Unix, root, dump(4))
	g.add("the table, version 2", bed.Unix, root, dump(2))
	// The lists are bounded (row 10).
	g.add("the counters", bed.TCP, root, message(4, rpcbind.ProcGetStat, nil)).part = countersOfStat
	g.compare(t)
}

// countersOfStat leaves of a reply of GETSTAT the counters of procedures, SET and
// UNSET.
func countersOfStat(o outcome) outcome {
	left := outcome{Reply: []byte{}}
	walkStat(o.Reply, func(counters []byte) { left.Reply = append(left.Reply, counters...) }, nil)
	return left
}

// generator makes calls that rpcbind and gportmap answer alike. What it keeps
// away from, by row of section 8: programs belong to one owner each, who is known
// to both by the same name (3, 4, 6); addresses are valid and wildcards (5, 9),
// and their servers are alive (8);
// hints are absent or ours; netids are in small letters and known (19, 22);
// remote callers ask for nothing large over UDP (11).
type generator struct {
	*script
	random *rand.Rand
}

// randomProgram is the first of the programs; the number of the owner is the
// program's remainder.
const randomProgram = 0x27000000

// settlers are the callers that register, by the number of their owner.
func settlers(random *rand.Rand, owner int) (bed.Transport, bed.From) {
	local := []bed.Transport{bed.Unix, bed.Abstract}[random.IntN(2)]
	switch owner {
	case 1:
		return local, ordinary
	case 2:
		return local, neighbour
	}
	// Root, also from a privileged port of loopback.
	tr := []bed.Transport{bed.Unix, bed.Abstract, bed.UDP, bed.TCP, bed.UDP6, bed.TCP6}[random.IntN(6)]
	if tr.Local() {
		return tr, root
	}
	return tr, bed.From{Port: uint16(600 + random.IntN(400))}
}

func (g *generator) step() {
	const owners = 3
	owner := g.random.IntN(owners)
	program := uint32(randomProgram + owner + owners*g.random.IntN(4))
	version := uint32(1 + g.random.IntN(4))
	settlerTransport, settler := settlers(g.random, owner)
	netid, addr := g.address()
	rpcbVersion := uint32(3 + g.random.IntN(2))
	switch g.random.IntN(20) {
	case 0, 1, 2, 3:
		g.add("SET", settlerTransport, settler, setAddr(rpcbVersion, program, version, netid, addr))
	case 4, 5:
		prot := []uint32{rpcbind.ProtTCP, rpcbind.ProtUDP, 1}[g.random.IntN(3)]
		g.add("PMAP SET", settlerTransport, settler, setPort(program, version, prot, uint32(2048+g.random.IntN(3))))
	case 6:
		g.add("UNSET", settlerTransport, settler, unsetAddr(rpcbVersion, program, version, netid))
	case 7:
		g.add("UNSET of all", settlerTransport, settler, unsetAddr(rpcbVersion, program, version, ""))
	case 8:
		g.add("PMAP UNSET", settlerTransport, settler, unsetPort(program, version))
	case 9:
		tr, other := settlers(g.random, 1+g.random.IntN(2))
		g.add("UNSET by anyone", tr, other, unsetAddr(rpcbVersion, program, version, netid))
	case 10:
		g.add("DUMP", settlerTransport, settler, dump(uint32(2+g.random.IntN(3))))
	case 11:
		tr, from := g.asker()
		if tr.Datagram() {
			from = root
		}
		g.add("GETADDRLIST", tr, from, getAddrList(program, version))
	default:
		g.lookUp(program, version)
	}
}

// address returns a netid and a valid wildcard address; there are few, so that
// registrations meet.
func (g *generator) address() (netid, addr string) {
	n := g.random.IntN(3)
	switch g.random.IntN(5) {
	case 0:
		return "udp", fmt.Sprintf("0.0.0.0.8.%d", n)
	case 1:
		return "tcp", fmt.Sprintf("0.0.0.0.8.%d", n)
	case 2:
		return "udp6", fmt.Sprintf("::.8.%d", n)
	case 3:
		return "tcp6", fmt.Sprintf("::.8.%d", n)
	}
	return "local", fmt.Sprintf("/run/random%d.sock", n)
}

// asker returns anyone who may look up.
func (g *generator) asker() (bed.Transport, bed.From) {
	v := visitors()[g.random.IntN(len(visitors()))]
	if v.from.Addr == bed.Addr("127.0.0.2") {
		return v.tr, root // row 9 has another opinion on this one
	}
	return v.tr, v.from
}

func (g *generator) lookUp(program, version uint32) {
	tr, from := g.asker()
	rpcbVersion := uint32(3 + g.random.IntN(2))
	hints := []string{"", "", "junk", "127.0.0.1.0.111", "::1.0.111", bed.HostIPv4 + ".0.111", bed.HostIPv6 + ".0.111"}
	switch g.random.IntN(7) {
	case 0, 1:
		prot := []uint32{rpcbind.ProtTCP, rpcbind.ProtUDP, 0}[g.random.IntN(3)]
		g.add("GETPORT", tr, from, getPort(program, version, prot))
	case 2, 3:
		g.add("GETADDR", tr, from, getAddr(rpcbVersion, program, version, "", hints[g.random.IntN(len(hints))]))
	case 4:
		g.add("GETVERSADDR", tr, from, getVersAddr(program, version, hints[g.random.IntN(len(hints))]))
	case 5:
		call := message(rpcbVersion, rpcbind.ProcUAddr2TAddr, str(oddAddresses[g.random.IntN(len(oddAddresses))]))
		if from.Remote || from.To.IsValid() {
			tr = streamOf(tr) // an answer larger than the question, maybe
		}
		g.add("UADDR2TADDR", tr, from, call)
	case 6:
		g.add("NULL of any version, any procedure", tr, from, message(uint32(g.random.IntN(7)), uint32(20+g.random.IntN(3)), nil))
	}
}

// streamOf returns the stream transport beside a datagram transport.
func streamOf(tr bed.Transport) bed.Transport {
	switch tr {
	case bed.UDP:
		return bed.TCP
	case bed.UDP6:
		return bed.TCP6
	}
	return tr
}
