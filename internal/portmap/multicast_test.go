package portmap

import (
	"math/rand/v2"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// TestGroupsGetNoErrors makes random calls to broadcast and multicast addresses: what is answered is a success, and the
// same success as to a call for us alone.
func TestGroupsGetNoErrors(t *testing.T) {
	c := choice{rand.New(rand.NewPCG(7, 1833))}
	relay := new(fakeRelay)
	p := newSubjectWith(t, Config{Policy: strictPolicy{}, Relay: relay}, registered...)
	answered, silent := 0, 0
	for range 20_000 {
		call, from := c.call(), c.caller()
		alone := ask(p, from, call)
		from.Multicast = true
		switch reply := ask(p, from, call); {
		case len(reply) == 0:
			silent++
			if succeeded(alone) && !changesTable(call) {
				t.Fatalf("call %x: silence, alone %x", call, alone)
			}
		case !succeeded(reply):
			t.Fatalf("call %x to a group is answered %x", call, reply)
		default:
			answered++
		}
	}
	if answered == 0 || silent == 0 {
		t.Errorf("%d answered, %d silent", answered, silent)
	}
	for _, c := range relay.calls {
		refused := oncrpc.AppendAccepted(nil, 1, oncrpc.ProcUnavail)
		if reply := p.AppendRemoteReply(nil, &c, refused); c.From.Multicast && len(reply) > 0 {
			t.Fatalf("remote call %+v to a group is answered %x", c, reply)
		}
	}
}

// changesTable tells whether the second of two like calls may be answered otherwise than the first.
func changesTable(call []byte) bool {
	c, err := oncrpc.ParseCall(call)
	return err == nil && (ClassOf(c.Procedure) == Register || c.Procedure == 12)
}

// silentPolicy answers no datagrams.
type silentPolicy struct{ localPolicy }

func (silentPolicy) MayAnswer(Caller) bool { return false }

// TestSilenceIsDecidedFirst holds that who is over the limit gets nothing, errors included, and counts nowhere, while
// streams go on.
func TestSilenceIsDecidedFirst(t *testing.T) {
	c := choice{rand.New(rand.NewPCG(8, 1833))}
	p := newSubjectWith(t, Config{Policy: silentPolicy{}, Relay: new(fakeRelay)}, registered...)
	for range 2000 {
		call, from := c.call(), c.caller()
		if reply := ask(p, from, call); len(reply) > 0 {
			t.Fatalf("call %x is answered %x", call, reply)
		}
	}
	for i := range p.stats.blocks {
		for proc := range p.stats.blocks[i].calls {
			if n := p.stats.blocks[i].calls[proc].Load(); n > 0 {
				t.Errorf("version %d procedure %d was counted %d times", i+2, proc, n)
			}
		}
	}
	wantReply(t, p, remoteCaller(TCP), callTo(2, 0), success())
}

// refusingPolicy permits nothing about the programs in it, and nothing of the classes in it.
type refusingPolicy struct {
	localPolicy
	progs   map[uint32]bool
	classes map[Class]bool
}

func (y refusingPolicy) Permits(_ Caller, class Class, prog uint32) bool {
	return !y.progs[prog] && !y.classes[class]
}

// TestEveryProcedureAsksThePolicy refuses each class in turn, to callers by every transport, and then one program. A
// remote call is refused with the lookups of its program as well.
func TestEveryProcedureAsksThePolicy(t *testing.T) {
	const prog = 300001
	args := map[uint32][]byte{
		5: remoteArgs(prog, 1, 0, ""), 10: remoteArgs(prog, 1, 0, ""),
		7: str("0.0.0.0.8.1"), 8: netbuf(16, make([]byte, 16)),
	}
	for vers := uint32(2); vers <= 4; vers++ {
		for proc := range lastProc[vers-2] + 1 {
			for _, transport := range []Transport{UDP, TCP, UDP6, TCP6, Local} {
				in := args[proc]
				switch {
				case in != nil:
				case vers == 2:
					in = words(prog, 1, 17, 9)
				default:
					in = rpcbOf(prog, 1, "udp", "0.0.0.0.0.9", "")
				}
				call, from := callTo(vers, proc, in), localCaller(transport)
				want := denied(5)
				switch {
				case proc == 5 && transport.Datagram():
					want = nil // CALLIT, BCAST
				case ClassOf(proc) == Remote && !transport.Datagram():
					continue // not there
				}
				byClass := refusingPolicy{classes: map[Class]bool{ClassOf(proc): true}}
				relay := new(fakeRelay)
				p := newSubjectWith(t, Config{Policy: byClass, Relay: relay}, registered...)
				wantReply(t, p, from, call, want)
				if !namesProgram(proc) {
					continue
				}
				p = newSubjectWith(t, Config{Policy: refusingPolicy{progs: map[uint32]bool{prog: true}}, Relay: relay}, registered...)
				wantReply(t, p, from, call, want)
				if ClassOf(proc) == Remote {
					p = newSubjectWith(t, Config{Policy: refusingPolicy{classes: map[Class]bool{Lookup: true}}, Relay: relay}, registered...)
					wantReply(t, p, from, call, want)
				}
				if len(relay.calls) > 0 {
					t.Errorf("version %d procedure %d: forwarded although refused", vers, proc)
				}
			}
		}
	}
}
