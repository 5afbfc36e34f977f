package oncrpc_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// The numbers are those of RFC 5531 section 9.
func TestStatusNames(t *testing.T) {
	check := func(names string, name func(uint32) string) {
		for i, want := range strings.Fields(names) {
			if got := name(uint32(i)); got != want {
				t.Errorf("%d is %q, want %q", i, got, want)
			}
		}
	}
	check("SUCCESS PROG_UNAVAIL PROG_MISMATCH PROC_UNAVAIL GARBAGE_ARGS SYSTEM_ERR",
		func(v uint32) string { return oncrpc.AcceptStat(v).String() })
	check("RPC_MISMATCH AUTH_ERROR", func(v uint32) string { return oncrpc.RejectStat(v).String() })
	check("AUTH_OK AUTH_BADCRED AUTH_REJECTEDCRED AUTH_BADVERF AUTH_REJECTEDVERF AUTH_TOOWEAK AUTH_INVALIDRESP AUTH_FAILED",
		func(v uint32) string { return oncrpc.AuthStat(v).String() })
	for want, got := range map[string]fmt.Stringer{
		"accept_stat 6":        oncrpc.AcceptStat(6),
		"reject_stat 2":        oncrpc.RejectStat(2),
		"auth_stat 13":         oncrpc.AuthStat(13),
		"auth_stat 4294967295": oncrpc.AuthStat(0xffffffff),
	} {
		if got.String() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestReplyErr(t *testing.T) {
	tests := []struct {
		reply oncrpc.Reply
		text  string
	}{
		{oncrpc.Reply{Accept: oncrpc.ProgUnavail}, "PROG_UNAVAIL: the server doesn't have this program"},
		{oncrpc.Reply{Accept: oncrpc.ProgMismatch, Low: 2, High: 4}, "PROG_MISMATCH: the server has versions 2 to 4"},
		{oncrpc.Reply{Accept: oncrpc.ProgMismatch, Low: 2, High: 2}, "PROG_MISMATCH: the server has version 2"},
		{oncrpc.Reply{Accept: oncrpc.ProcUnavail}, "PROC_UNAVAIL: the server doesn't have this procedure"},
		{oncrpc.Reply{Accept: oncrpc.GarbageArgs}, "GARBAGE_ARGS: the server can't decode the arguments"},
		{oncrpc.Reply{Accept: oncrpc.SystemErr}, "SYSTEM_ERR: the server failed to carry out the call"},
		{oncrpc.Reply{Denied: true, Reject: oncrpc.RPCMismatch, Low: 2, High: 3},
			"call denied, RPC_MISMATCH: the server speaks RPC versions 2 to 3"},
		{oncrpc.Reply{Denied: true, Reject: oncrpc.AuthError, Auth: oncrpc.AuthBadCred},
			"call denied, AUTH_BADCRED: the server finds the credential malformed"},
		{oncrpc.Reply{Denied: true, Reject: oncrpc.AuthError, Auth: oncrpc.AuthRejectedCred},
			"call denied, AUTH_REJECTEDCRED: the server doesn't take the credential"},
		{oncrpc.Reply{Denied: true, Reject: oncrpc.AuthError, Auth: oncrpc.AuthTooWeak},
			"call denied, AUTH_TOOWEAK: the server doesn't allow this from here"},
		{oncrpc.Reply{Denied: true, Reject: oncrpc.AuthError, Auth: 14}, "call denied, auth_stat 14"},
	}
	for _, tt := range tests {
		err := tt.reply.Err()
		if err == nil || err.Error() != tt.text {
			t.Errorf("%+v: %v, want %s", tt.reply, err, tt.text)
			continue
		}
		var accept *oncrpc.AcceptError
		var denied *oncrpc.DeniedError
		switch {
		case tt.reply.Denied && (!errors.As(err, &denied) || denied.Stat != tt.reply.Reject || denied.Auth != tt.reply.Auth):
			t.Errorf("%+v: %#v", tt.reply, err)
		case !tt.reply.Denied && (!errors.As(err, &accept) || accept.Stat != tt.reply.Accept || accept.High != tt.reply.High):
			t.Errorf("%+v: %#v", tt.reply, err)
		}
	}
	if err := (oncrpc.Reply{}).Err(); err != nil {
		t.Errorf("SUCCESS: %v", err)
	}
}
