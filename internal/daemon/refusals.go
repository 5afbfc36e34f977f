package daemon

import (
	"context"
	"log/slog"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/internal/metrics"
	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A SET or UNSET that is refused is one line of the log, whoever refused it: the table, which is told of as a
// [portmap.Refused] with the owners and the reason, or the policy, of which the answer is all there is to tell. Callers
// decide how many there are; the log has a bound for that.

// logRefused returns a function that logs who was refused a registration or its removal by the table, and who has it.
func logRefused(log *slog.Logger) func(portmap.Refused) {
	return func(r portmap.Refused) {
		b, procedure := r.Wanted, "UNSET"
		if r.Set {
			procedure = "SET"
		}
		attrs := append(make([]slog.Attr, 0, 12),
			slog.String("procedure", procedure), slog.String("from", callerName(r.From)), slog.String("owner", b.Owner),
			slog.Uint64("program", uint64(b.Program)), slog.Uint64("version", uint64(b.Version)), slog.String("netid", shorten([]byte(b.Netid))))
		if b.Addr != "" {
			attrs = append(attrs, slog.String("addr", shorten([]byte(b.Addr))))
		}
		if r.Holder != nil {
			attrs = append(attrs, slog.String("holder", r.Holder.Owner), slog.String("held", shorten([]byte(r.Holder.Addr))))
		}
		warnRefused(log, procedure, metrics.No.String(), append(attrs, slog.String("err", r.Err.Error()))...)
	}
}

// refusals returns a function that logs a SET or UNSET that the policy refused.
func refusals(log *slog.Logger) func(admin.Event) {
	return func(e admin.Event) {
		if e.Verdict == metrics.No.String() {
			return // logRefused knows more
		}
		if e.Procedure != rpcbind.ProcedureName(e.RPCBVersion, rpcbind.ProcSet) && e.Procedure != rpcbind.ProcedureName(e.RPCBVersion, rpcbind.ProcUnset) {
			return
		}
		attrs := append(make([]slog.Attr, 0, 12),
			slog.String("procedure", e.Procedure), slog.String("from", e.Peer),
			slog.Uint64("program", uint64(e.Program)), slog.Uint64("version", uint64(e.Version)), slog.String("netid", e.Netid))
		if e.Address != "" {
			attrs = append(attrs, slog.String("addr", e.Address))
		}
		if e.Port != 0 {
			attrs = append(attrs, slog.Uint64("port", uint64(e.Port)))
		}
		warnRefused(log, e.Procedure, e.Verdict, attrs...)
	}
}

func warnRefused(log *slog.Logger, procedure, answer string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("answer", answer), slog.String("RPC_PROC", procedure), slog.String(logging.MessageID, logging.IDRefused))
	log.LogAttrs(context.Background(), slog.LevelWarn, "registration refused", attrs...)
}
