package daemon

import (
	"context"
	"log/slog"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// refusals returns a function that logs a SET or UNSET that was refused. Callers decide how many there are; the log has a
// bound for that.
func refusals(log *slog.Logger) func(admin.Event) {
	return func(e admin.Event) {
		if e.Procedure != rpcbind.ProcedureName(e.RPCBVersion, rpcbind.ProcSet) && e.Procedure != rpcbind.ProcedureName(e.RPCBVersion, rpcbind.ProcUnset) {
			return
		}
		attrs := []slog.Attr{
			slog.String("procedure", e.Procedure), slog.String("from", e.Peer),
			slog.Uint64("program", uint64(e.Program)), slog.Uint64("version", uint64(e.Version)), slog.String("netid", e.Netid),
		}
		if e.Address != "" {
			attrs = append(attrs, slog.String("addr", e.Address))
		}
		if e.Port != 0 {
			attrs = append(attrs, slog.Uint64("port", uint64(e.Port)))
		}
		attrs = append(attrs, slog.String("answer", e.Verdict), slog.String("RPC_PROC", e.Procedure), slog.String(logging.MessageID, logging.IDRefused))
		log.LogAttrs(context.Background(), slog.LevelWarn, "registration refused", attrs...)
	}
}
