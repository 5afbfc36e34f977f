package daemon

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/internal/metrics"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A refusalLog logs each caller that is refused, in a line at auth.warning: by the policy, with the rule that decided, or, for
// a SET or UNSET, by the table, with both owners. Callers decide how many there are; the log has a bound for that.
type refusalLog struct {
	log    *slog.Logger
	policy *access.Policy
	enough func(kind string) bool
	// programs are the names of programs for rpcbind's words; nil for our own words.
	programs map[uint32]string
}

// What is logged of each class of procedures.
var refusedMessages = [...]struct{ text, id string }{
	portmap.Lookup:   {"lookup refused", logging.IDLookup},
	portmap.List:     {"list refused", logging.IDList},
	portmap.Register: {"registration refused", logging.IDRefused},
	portmap.Remote:   {"remote call refused", logging.IDRemote},
}

func newRefusalLog(c Config, policy *access.Policy) *refusalLog {
	l := &refusalLog{log: c.Log, policy: policy, enough: func(string) bool { return false }}
	if h, ok := c.Log.Handler().(interface{ Enough(kind string) bool }); ok {
		l.enough = h.Enough
	}
	if c.RPCBindMessages {
		l.programs = readPrograms("/etc/rpc")
	}
	return l
}

// denied logs a call that the policy refused.
func (l *refusalLog) denied(d portmap.Denied) {
	class := portmap.ClassOf(d.Call.Procedure)
	if l.enough(refusedMessages[class].text) {
		return
	}
	procedure := rpcbind.ProcedureName(d.Call.Version, d.Call.Procedure)
	rule := l.rule(d)
	if l.programs != nil {
		l.asRpcbind(d, class, procedure, rule)
		return
	}
	attrs := append(make([]slog.Attr, 0, 14), slog.String("procedure", procedure), slog.String("from", callerName(d.From)))
	attrs = append(attrs, arguments(d.Call)...)
	l.warn(class, procedure, metrics.TooWeak.String(), append(attrs, slog.String("rule", rule))...)
}

// rule tells what decided.
func (l *refusalLog) rule(d portmap.Denied) string {
	switch d.Reason {
	case portmap.NotLocal:
		return "only this host registers"
	case portmap.TooLarge:
		return fmt.Sprintf("udp-lists = %q: over UDP no answer to this caller is larger than its call", l.policy.UDPLists())
	case portmap.NotForwarded:
		return "this procedure isn't called for others"
	}
	decision := l.policy.Judge(d.From, d.Class, d.Prog)
	if decision.Permitted {
		return "a rule that isn't in force any more"
	}
	return decision.String()
}

// refused logs a SET or UNSET that the table refused, and who has the registration.
func (l *refusalLog) refused(r portmap.Refused) {
	if l.enough(refusedMessages[portmap.Register].text) {
		return
	}
	b, procedure := r.Wanted, "UNSET"
	if r.Set {
		procedure = "SET"
	}
	attrs := append(make([]slog.Attr, 0, 14),
		slog.String("procedure", procedure), slog.String("from", callerName(r.From)), slog.String("owner", b.Owner),
		slog.Uint64("program", uint64(b.Program)), slog.Uint64("version", uint64(b.Version)), slog.String("netid", shorten([]byte(b.Netid))))
	if b.Addr != "" {
		attrs = append(attrs, slog.String("addr", shorten([]byte(b.Addr))))
	}
	if r.Holder != nil {
		attrs = append(attrs, slog.String("holder", r.Holder.Owner), slog.String("held", shorten([]byte(r.Holder.Addr))))
	}
	l.warn(portmap.Register, procedure, metrics.No.String(), append(attrs, slog.String("err", r.Err.Error()))...)
}

func (l *refusalLog) warn(class portmap.Class, procedure, answer string, attrs ...slog.Attr) {
	m := refusedMessages[class]
	attrs = append(attrs, slog.String("answer", answer), slog.String("RPC_PROC", procedure),
		slog.String(logging.MessageID, m.id), slog.String(logging.Facility, logging.Auth))
	l.log.LogAttrs(context.Background(), slog.LevelWarn, m.text, attrs...)
}

// asRpcbind logs a refused call as rpcbind does (its logit), for filters that know those words.
func (l *refusalLog) asRpcbind(d portmap.Denied, class portmap.Class, procedure, rule string) {
	from := d.From.Remote.Addr().Unmap().String()
	if d.From.Transport == portmap.Local {
		from = "local"
	}
	name, program := strings.ToLower(procedure), l.programs[d.Prog]
	if program == "" && d.Prog != 0 {
		program = strconv.FormatUint(uint64(d.Prog), 10)
	}
	switch procedure {
	case "GETPORT", "GETADDR":
		name = "getport/addr"
	case "GETVERSADDR", "GETADDRLIST":
		program = ""
	}
	host := "unauthorized"
	if d.Reason == portmap.NotLocal {
		host = "non-local"
	}
	m := refusedMessages[class]
	l.log.LogAttrs(context.Background(), slog.LevelWarn, fmt.Sprintf("connect from %s to %s(%s): request from %s host", from, name, program, host),
		slog.String(logging.Kind, m.text), slog.String("PEER", callerName(d.From)), slog.String("RULE", rule), slog.String("RPC_PROC", procedure),
		slog.String(logging.MessageID, m.id), slog.String(logging.Facility, logging.Auth), slog.String(logging.Identifier, "rpcbind"))
}

// readPrograms reads the names of rpc(5), none where there is no such file.
func readPrograms(path string) map[uint32]string {
	programs := make(map[uint32]string)
	f, err := os.Open(path)
	if err != nil {
		return programs
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if fields := strings.Fields(line); len(fields) > 1 {
			if n, err := strconv.ParseUint(fields[1], 10, 32); err == nil {
				programs[uint32(n)] = fields[0]
			}
		}
	}
	return programs
}
