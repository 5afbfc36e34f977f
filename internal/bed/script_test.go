package bed_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// outcome is what came of a call: a reply, or silence, or a closed connection.
type outcome struct {
	Reply  []byte `json:",omitempty"`
	Closed bool   `json:",omitempty"`
}

func (o outcome) equal(p outcome) bool { return o.Closed == p.Closed && bytes.Equal(o.Reply, p.Reply) }

func (o outcome) String() string {
	switch {
	case o.Closed:
		return "closed the connection"
	case o.Reply == nil:
		return "silence"
	}
	const shown = 200
	if len(o.Reply) > shown {
		return fmt.Sprintf("%x… (%d octets)", o.Reply[:shown], len(o.Reply))
	}
	return fmt.Sprintf("%x (%s)", o.Reply, describe(o.Reply))
}

// firstDifference shows where two long replies part.
func firstDifference(a, b outcome) string {
	at := 0
	for at < len(a.Reply) && at < len(b.Reply) && a.Reply[at] == b.Reply[at] {
		at++
	}
	if at < 40 {
		return "" // it is in view
	}
	around := func(o outcome) []byte { return o.Reply[at-40 : min(at+24, len(o.Reply))] }
	return fmt.Sprintf("\n differ at octet %d\n ours    …%q…\n want    …%q…", at, around(a), around(b))
}

// step is one call of a script.
type step struct {
	name string
	tr   bed.Transport
	from bed.From
	call []byte
	xid  uint32
	now  bool // the result is the time: judged against the clock, then compared as zero
	// part, if it is not nil, reduces either outcome to what is compared.
	part func(outcome) outcome

	// A deliberate difference: the row of section 8 of the contract (or a
	// section of it), and gportmap's outcome. It is given rpcbind's so that a DUMP can be stated as
	// rpcbind's with other owners.
	row    int
	ours   func(theirs outcome) outcome
	either bool // the row's rule may also give rpcbind's answer
}

// These stand for a row where the contract itself says something else than
// rpcbind does: section 2, what is not served is not listed; section 3, RPCSEC_GSS
// is refused before its body is parsed; section 5, junk gives an empty netbuf and a
// hint that can't be parsed no merge.
const (
	sectionTwo   = -2
	sectionThree = -3
	sectionFive  = -5
)

// rule names a row for a person.
func rule(row int) string {
	if row < 0 {
		return fmt.Sprintf("section %d", -row)
	}
	return fmt.Sprintf("row %d", row)
}

// script is a sequence of calls to one fresh subject.
type script struct {
	opts bed.Options
	args []string // further arguments of the subject
	// alive has a server at every IP address that a SET registers. Where it isn't set there is none, and a SET of
	// another address is a matter of row 8.
	alive bool
	// prepare changes the host before the subject starts.
	prepare func(t *testing.T, ns *bed.NS)
	steps   []*step
}

// add appends a call.
func (s *script) add(name string, tr bed.Transport, from bed.From, call []byte) *step {
	xid := uint32(0x10000 + len(s.steps))
	st := &step{name: name, tr: tr, from: from, call: withXID(call, xid), xid: xid}
	s.steps = append(s.steps, st)
	return st
}

// differs says that gportmap answers something else than rpcbind here.
func (st *step) differs(row int, ours outcome) *step {
	return st.differsBy(row, func(outcome) outcome { return ours })
}

// follows says that a rule of a row gives gportmap's outcome, whether or not
// rpcbind's rule happens to give the same here.
func (st *step) follows(row int, ours outcome) *step {
	st.either = true
	return st.differs(row, ours)
}

func (st *step) differsBy(row int, ours func(theirs outcome) outcome) *step {
	if st.row != 0 {
		panic(fmt.Sprintf("%s: two differences, %s and %s", st.name, rule(st.row), rule(row)))
	}
	st.row, st.ours = row, ours
	return st
}

// Outcomes of this step, for differs.

func (st *step) replies(stat oncrpc.AcceptStat, results []byte) outcome {
	return outcome{Reply: accepted(st.xid, stat, results)}
}

func (st *step) denies(stat oncrpc.AuthStat) outcome {
	return outcome{Reply: oncrpc.AppendAuthError(nil, st.xid, stat)}
}

// withOwners returns the difference of row 6: a DUMP of version 3 or 4 in which
// the programs listed have these owners.
func withOwners(owners map[uint32]string) func(outcome) outcome {
	return func(theirs outcome) outcome {
		return editDump(theirs, func(b rpcbind.RPCB) (rpcbind.RPCB, bool) {
			if owner, ok := owners[b.Program]; ok {
				b.Owner = owner
			}
			return b, true
		})
	}
}

// editDump changes the entries of a DUMP of version 3 or 4, or drops those for
// which edit returns false.
func editDump(theirs outcome, edit func(rpcbind.RPCB) (rpcbind.RPCB, bool)) outcome {
	r, err := oncrpc.ParseReply(theirs.Reply)
	if err != nil || r.Denied || r.Accept != oncrpc.Success {
		return theirs
	}
	reply := oncrpc.AppendAccepted(nil, r.XID, oncrpc.Success)
	for _, b := range decodeRPCBs(r.Results) {
		if b, keep := edit(b); keep {
			reply = rpcbind.AppendRPCBElement(reply, b)
		}
	}
	return outcome{Reply: append(reply, 0, 0, 0, 0)}
}

// run sends the script to a fresh subject in fresh namespaces.
func (s *script) run(t *testing.T, subject bed.Subject) []outcome {
	return bed.Collect(t, s.opts, func(t *testing.T, ns *bed.NS) []outcome {
		if s.prepare != nil {
			s.prepare(t, ns)
		}
		if s.alive {
			s.holdServers(t, ns)
		}
		ns.Start(t, subject, s.args...)
		outcomes := make([]outcome, 0, len(s.steps))
		for _, st := range s.steps {
			o := ask(t, ns, subject, st.tr, st.from, st.call)
			if st.now {
				o = checkTime(t, st, o)
			}
			if st.part != nil {
				o = st.part(o)
			}
			outcomes = append(outcomes, o)
		}
		return outcomes
	})
}

// holdServers binds a socket at each transport and port that a step's SET names.
func (s *script) holdServers(t *testing.T, ns *bed.NS) {
	t.Helper()
	type place struct {
		network string
		port    uint16
	}
	held := map[place]bool{}
	for _, st := range s.steps {
		network, port := serverOf(st.call)
		if at := (place{network, port}); port != 0 && !held[at] {
			held[at] = true
			ns.Hold(t, network, fmt.Sprintf(":%d", port))
		}
	}
}

// serverOf returns where the server that a SET registers must be, port 0 for other calls and other registrations.
func serverOf(message []byte) (network string, port uint16) {
	call, err := oncrpc.ParseCall(message)
	if err != nil || call.Program != rpcbind.Program || call.Procedure != rpcbind.ProcSet {
		return "", 0
	}
	d := xdr.NewDecoder(call.Args)
	var b rpcbind.RPCB
	if call.Version == 2 {
		m := rpcbind.ReadMapping(&d)
		netid, known := rpcbind.NetidOfProt(m.Prot)
		if d.Err() != nil || !known || m.Port > 0xffff {
			return "", 0
		}
		b.Netid, b.Addr = netid, rpcbind.UAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(m.Port)))
	} else if b = rpcbind.ReadRPCB(&d, uint32(len(call.Args))); d.Err() != nil {
		return "", 0
	}
	addr, valid := rpcbind.ParseUAddr(b.Addr)
	for netid, network := range map[rpcbind.Netid]string{
		rpcbind.UDP: "udp4", rpcbind.TCP: "tcp4", rpcbind.UDP6: "udp6", rpcbind.TCP6: "tcp6",
	} {
		if valid && b.Netid.Is(netid) {
			return network, addr.Port()
		}
	}
	return "", 0
}

// ask makes one call. rpcbind 1.2.6 has no abstract socket: there the oracle is
// its path.
func ask(t *testing.T, ns *bed.NS, subject bed.Subject, tr bed.Transport, from bed.From, call []byte) outcome {
	t.Helper()
	if tr == bed.Abstract && subject == bed.Rpcbind {
		tr = bed.Unix
	}
	reply, err := ns.Call(t, tr, from, call)
	switch {
	case errors.Is(err, bed.ErrClosed):
		return outcome{Closed: true}
	case errors.Is(err, bed.ErrSilence):
		return outcome{}
	case err != nil:
		t.Fatalf("%s %+v, call %x: %v", tr, from, call, err)
	}
	return outcome{Reply: reply}
}

// checkTime judges a reply of GETTIME and returns it without the time.
func checkTime(t *testing.T, st *step, o outcome) outcome {
	t.Helper()
	if len(o.Reply) != oncrpc.AcceptedHeaderSize+4 {
		return o
	}
	at := o.Reply[oncrpc.AcceptedHeaderSize:]
	told := time.Unix(int64(binary.BigEndian.Uint32(at)), 0)
	if d := time.Since(told); d < -2*time.Second || d > 5*time.Second {
		t.Errorf("%s over %s tells %v, which is %v away", st.name, st.tr, told, d)
	}
	clear(at)
	return o
}

// compare runs the script against rpcbind and gportmap and compares every
// outcome. It makes a subtest for each subject.
func (s *script) compare(t *testing.T) {
	t.Helper()
	bed.NeedRpcbind(t)
	outcomes := map[bed.Subject][]outcome{}
	for _, subject := range []bed.Subject{bed.Rpcbind, bed.Gportmap} {
		ok := t.Run(subject.String(), func(t *testing.T) { outcomes[subject] = s.run(t, subject) })
		if !ok {
			return
		}
	}
	if bed.Inside() {
		return
	}
	if len(outcomes) < 2 {
		t.Skip("nothing to compare: -run left one of the subjects out")
	}
	theirs, ours := outcomes[bed.Rpcbind], outcomes[bed.Gportmap]
	if len(theirs) != len(s.steps) || len(ours) != len(s.steps) {
		t.Fatalf("%d steps, %d outcomes of rpcbind and %d of gportmap", len(s.steps), len(theirs), len(ours))
	}
	deliberate := 0
	for i, st := range s.steps {
		want, label := theirs[i], "as rpcbind"
		if st.row != 0 {
			deliberate++
			want, label = st.ours(theirs[i]), rule(st.row)
			if want.equal(theirs[i]) && !st.either {
				t.Errorf("%s: listed as a difference of %s, but rpcbind answers the same: %v", st.id(), rule(st.row), want)
			}
		}
		if !ours[i].equal(want) {
			t.Errorf("%s\n call    %x\n rpcbind %v\n ours    %v\n want    %v (%s)%s",
				st.id(), st.call, theirs[i], ours[i], want, label, firstDifference(ours[i], want))
		}
	}
	t.Logf("%d replies compared, %d of them deliberate differences", len(s.steps), deliberate)
}

func (st *step) id() string {
	return fmt.Sprintf("%s over %s from %s", st.name, st.tr, caller(st.from))
}

// caller puts a From into words.
func caller(f bed.From) string {
	text := fmt.Sprintf("uid %d", f.UID)
	if f.Remote {
		text = "remote"
	}
	if f.Addr.IsValid() {
		text += " at " + f.Addr.String()
	}
	if f.Port != 0 {
		text += fmt.Sprintf(" port %d", f.Port)
	}
	if f.To.Addr().IsValid() {
		text += " to " + f.To.Addr().String()
	}
	return text
}
