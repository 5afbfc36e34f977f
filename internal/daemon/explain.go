package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// A Question is a call that somebody might make.
type Question struct {
	// Caller is "[NETID:]ADDRESS" or "local[:UID]"; without a netid it is udp or udp6.
	Caller string
	// On is the interface that the call arrives on, and To the address of ours that it is sent to; if they are empty they
	// are what suits the caller's address.
	On string
	To netip.Addr
	// Procedure is its name, in lower case or upper case; Version that of the portmapper's protocol, 0 for the one that
	// clients use for it.
	Procedure string
	Version   uint32
	// Program, Vers, Netid, Addr and Proc are what the call is about, as far as the procedure wants that.
	Program, Vers uint32
	Netid, Addr   string
	Proc          uint32
}

// An Explanation tells what a call would be answered, and why. Its JSON is what `gportmap explain --json` prints.
type Explanation struct {
	Caller    string `json:"caller"`
	Call      string `json:"call"`
	Permitted bool   `json:"permitted"`
	// Rule is what decides about that.
	Rule string `json:"rule"`
	// Notes tell what else bears on the answer.
	Notes  []string `json:"notes,omitempty"`
	Answer string   `json:"answer"`
}

// Explain tells what a portmapper of this configuration, with the registrations of the one that runs, would answer. It
// changes nothing.
func Explain(ctx context.Context, c Config, q Question) (Explanation, error) {
	c, err := c.complete()
	if err != nil {
		return Explanation{}, err
	}
	list, netlinkErr, err := currentInterfaces()
	if err != nil {
		return Explanation{}, WithExitCode(ExitSystem, err)
	}
	host := newInterfaces(c.Log, nil)
	whose := newOwners(c.Log)
	defer whose.kernel.Close()
	door, err := newDoor(c, host, whose)
	if err != nil {
		return Explanation{}, err
	}
	e := &explainer{config: c, question: q, door: door, interfaces: list, table: registry.New()}
	if netlinkErr != nil {
		e.note("this process may not ask the kernel by netlink (%v), so owners of ports aren't known to it", netlinkErr)
	}
	if err := e.makeCall(); err != nil {
		return Explanation{}, WithExitCode(ExitUsage, err)
	}
	e.readTable(ctx)
	pm := portmap.Config{
		Table: e.table, Policy: door.policy, Now: func() uint32 { return uint32(time.Now().Unix()) },
		Dead: newDeadServers(c.Log, host.isOwn, whose.kernel).isDead, Refused: e.refused,
	}
	if c.RemoteCalls {
		pm.Relay = e
	}
	host.portmapper = portmap.New(pm)
	host.changed(list)
	if e.from, err = e.caller(); err != nil {
		return Explanation{}, WithExitCode(ExitUsage, err)
	}
	return e.explain(host.portmapper), nil
}

// explainer holds what Explain works with. It is the relay of its portmapper, which sends nothing.
type explainer struct {
	config     Config
	question   Question
	door       *door
	interfaces []sys.Interface
	table      *registry.Table

	call      oncrpc.Call
	from      portmap.Caller
	notes     []string
	forwarded bool
}

func (e *explainer) note(format string, args ...any) {
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

// makeCall builds the call.
func (e *explainer) makeCall() error {
	q := e.question
	version, proc, ok := procedureNamed(q.Procedure, q.Version)
	if !ok {
		return fmt.Errorf("there is no procedure %q in that version; the procedures are null, set, unset, getport, getaddr, dump, callit, gettime, "+
			"uaddr2taddr, taddr2uaddr, getversaddr, indirect, getaddrlist and getstat, and a version follows a slash, as in getaddr/3", q.Procedure)
	}
	e.call = oncrpc.Call{XID: 1, RPCVersion: oncrpc.RPCVersion, Program: rpcbind.Program, Version: version, Procedure: proc}
	switch {
	case proc == rpcbind.ProcCallIt || proc == rpcbind.ProcIndirect:
		for _, w := range []uint32{q.Program, q.Vers, q.Proc} {
			e.call.Args = xdr.AppendUint32(e.call.Args, w)
		}
		e.call.Args = xdr.AppendOpaque(e.call.Args, nil)
	case version == rpcbind.PMAPVers:
		prot, _ := rpcbind.Netid(q.Netid).Prot()
		m := rpcbind.Mapping{Program: q.Program, Version: q.Vers, Prot: prot}
		if at, ok := rpcbind.ParseUAddr([]byte(q.Addr)); ok {
			m.Port = uint32(at.Port())
		}
		e.call.Args = rpcbind.AppendMapping(nil, m)
	case proc == rpcbind.ProcUAddr2TAddr || proc == rpcbind.ProcTAddr2UAddr:
		e.call.Args = xdr.AppendString(xdr.AppendUint32(nil, 0), "")
	default:
		e.call.Args = rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: q.Program, Version: q.Vers, Netid: rpcbind.Netid(q.Netid), Addr: q.Addr})
	}
	return nil
}

// procedureNamed finds a procedure, in the version of the protocol in which clients call it if vers is 0.
func procedureNamed(name string, vers uint32) (version, proc uint32, ok bool) {
	versions := []uint32{vers}
	if vers == 0 {
		versions = []uint32{rpcbind.RPCBVers4, rpcbind.RPCBVers3, rpcbind.PMAPVers}
	}
	for _, version := range versions {
		for proc := range rpcbind.ProcGetStat + uint32(1) {
			if strings.EqualFold(rpcbind.ProcedureName(version, proc), name) {
				return version, proc, true
			}
		}
	}
	return 0, 0, false
}

// readTable fills the table with what the portmapper that runs has registered.
func (e *explainer) readTable(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	list, err := func() ([]rpcbind.RPCB, error) {
		client, err := e.config.Limits.dialPortmapper(ctx, "unix", e.config.Socket)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		return client.Dump(ctx)
	}()
	if err != nil {
		e.note("no portmapper answers on %s, so nothing is registered here: %v", e.config.Socket, err)
	}
	var statics []rpcbind.RPCB
	for _, b := range list {
		if b.Owner == rpcbind.OwnerStatic {
			statics = append(statics, b)
			continue
		}
		add := e.table.Set
		if b.Program == rpcbind.Program {
			add = e.table.SetOwn
		}
		if err := add(b); err != nil {
			e.note("a registration of program %d was left out: %v", b.Program, err)
		}
	}
	if _, err := e.table.SetStatic(statics); err != nil {
		e.note("static registrations were left out: %v", err)
	}
	e.table.SetLimits(e.config.Limits.table())
}

// explain judges the call and answers it.
func (e *explainer) explain(p *portmap.Portmapper) Explanation {
	about := e.question.Program
	class := portmap.ClassOf(e.call.Procedure)
	d := e.door.policy.Judge(e.from, class, about)
	if class == portmap.Remote && d.Permitted {
		if inner := e.door.policy.Judge(e.from, portmap.Lookup, about); !inner.Permitted {
			d = inner
		}
		e.remoteNotes()
	}
	rule := d.String()
	if class == portmap.Register && !e.door.policy.MayRegister(e.from) {
		d.Permitted, rule = false, "only this host registers: over the local socket, or from 127.0.0.1 or ::1 by the loopback interface; over TCP also at another address of this host"
	} else if class == portmap.Register {
		e.note("the caller counts as owner %q", e.door.policy.Owner(e.from))
	}
	call := oncrpc.AppendCall(nil, e.call)
	reply := p.AppendReply(nil, call, e.from)
	answer := verdict(e.call, reply)
	switch {
	case e.forwarded:
		answer = "what the service answers: the call is forwarded"
	case len(reply) == 0:
		answer = "silence"
	}
	e.sizeNotes(d, class, call)
	return Explanation{
		Caller: e.describeCaller(), Call: e.describeCall(), Permitted: d.Permitted, Rule: rule, Notes: e.notes, Answer: answer,
	}
}

func (e *explainer) remoteNotes() {
	switch {
	case !e.from.Transport.Datagram():
		e.note("remote calls are served over UDP alone")
	case !e.config.RemoteCalls:
		e.note("remote calls are off: they take --remote-calls")
	case !e.door.policy.MayForward(e.question.Program, e.question.Proc):
		e.note("remote-call-to doesn't name that procedure")
	}
}

// sizeNotes tells if a datagram with the answer would be too large for the caller, by asking as one by TCP.
func (e *explainer) sizeNotes(d access.Decision, class portmap.Class, call []byte) {
	if e.from.Transport.Datagram() && d.Permitted && !e.door.policy.MayAmplify(e.from, class) && class == portmap.List {
		e.note("no datagram to this caller is larger than its call, here %d octets: udp-lists = %q, and no rule of allow lists its network; TCP serves it",
			len(call), e.config.Rules.UDPLists)
	}
}

// refused takes note of why a SET or UNSET is refused.
func (e *explainer) refused(r portmap.Refused) {
	if r.Holder != nil {
		e.note("refused: %v: %q has it at %s", r.Err, r.Holder.Owner, r.Holder.Addr)
		return
	}
	e.note("refused: %v", r.Err)
}

// Forward takes note of a remote call that would be made.
func (e *explainer) Forward(c portmap.RemoteCall) error {
	e.forwarded = true
	e.note("procedure %d of program %d version %d would be called at %v", c.Proc, c.Program, c.Vers, c.Target)
	return nil
}

func (e *explainer) describeCall() string {
	name := rpcbind.ProcedureName(e.call.Version, e.call.Procedure)
	text := fmt.Sprintf("%s of version %d", name, e.call.Version)
	if e.question.Program != 0 {
		text += fmt.Sprintf(", about program %d version %d", e.question.Program, e.question.Vers)
	}
	if e.question.Netid != "" {
		text += " on " + e.question.Netid
	}
	return text
}
