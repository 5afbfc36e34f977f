package rpcbind

import "testing"

func TestProcedureName(t *testing.T) {
	for _, c := range []struct {
		version, procedure uint32
		want               string
	}{
		{PMAPVers, ProcGetPort, "GETPORT"},
		{PMAPVers, ProcCallIt, "CALLIT"},
		{PMAPVers, ProcGetTime, "procedure 6"},
		{RPCBVers3, ProcGetAddr, "GETADDR"},
		{RPCBVers3, ProcCallIt, "CALLIT"},
		{RPCBVers3, ProcGetVersAddr, "procedure 9"},
		{RPCBVers4, ProcBcast, "BCAST"},
		{RPCBVers4, ProcGetStat, "GETSTAT"},
		{RPCBVers4, 13, "procedure 13"},
		{5, ProcNull, "procedure 0"},
		{0, 1<<32 - 1, "procedure 4294967295"},
	} {
		if got := ProcedureName(c.version, c.procedure); got != c.want {
			t.Errorf("ProcedureName(%d, %d) = %q, want %q", c.version, c.procedure, got, c.want)
		}
	}
}
