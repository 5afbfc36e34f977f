package portmap

import (
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// appendSelf answers the daemon's own question whether it still answers: NULL and nothing else. Such a call isn't judged,
// counted or observed, so statistics, logs and access lists are about others alone.
func appendSelf(dst, call []byte) []byte {
	c, err := oncrpc.ParseCall(call)
	if err != nil || c.Program != rpcbind.Program || c.Procedure != rpcbind.ProcNull {
		return dst
	}
	return oncrpc.AppendAccepted(dst, c.XID, oncrpc.Success)
}
