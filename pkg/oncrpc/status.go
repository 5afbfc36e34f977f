package oncrpc

import "strconv"

// String returns the name of RFC 5531 section 9, as "PROG_MISMATCH".
func (s AcceptStat) String() string {
	switch s {
	case Success:
		return "SUCCESS"
	case ProgUnavail:
		return "PROG_UNAVAIL"
	case ProgMismatch:
		return "PROG_MISMATCH"
	case ProcUnavail:
		return "PROC_UNAVAIL"
	case GarbageArgs:
		return "GARBAGE_ARGS"
	case SystemErr:
		return "SYSTEM_ERR"
	}
	return unnamed("accept_stat", uint32(s))
}

// String returns the name of RFC 5531 section 9, as "AUTH_ERROR".
func (s RejectStat) String() string {
	switch s {
	case RPCMismatch:
		return "RPC_MISMATCH"
	case AuthError:
		return "AUTH_ERROR"
	}
	return unnamed("reject_stat", uint32(s))
}

// String returns the name of RFC 5531 section 9, as "AUTH_TOOWEAK". The statuses of Kerberos and RPCSEC_GSS are
// given as numbers.
func (s AuthStat) String() string {
	switch s {
	case AuthOK:
		return "AUTH_OK"
	case AuthBadCred:
		return "AUTH_BADCRED"
	case AuthRejectedCred:
		return "AUTH_REJECTEDCRED"
	case AuthBadVerf:
		return "AUTH_BADVERF"
	case AuthRejectedVerf:
		return "AUTH_REJECTEDVERF"
	case AuthTooWeak:
		return "AUTH_TOOWEAK"
	case AuthInvalidResp:
		return "AUTH_INVALIDRESP"
	case AuthFailed:
		return "AUTH_FAILED"
	}
	return unnamed("auth_stat", uint32(s))
}

func unnamed(kind string, v uint32) string { return kind + " " + strconv.FormatUint(uint64(v), 10) }

// AcceptError says that a server accepted a call and did not carry it out: a reply with an accept_stat other
// than SUCCESS (RFC 5531 section 9).
type AcceptError struct {
	Stat      AcceptStat
	Low, High uint32 // of ProgMismatch: the lowest and the highest version that the server has
}

// Error returns one line, as
//
//	PROG_MISMATCH: the server has versions 2 to 4
func (e *AcceptError) Error() string {
	switch e.Stat {
	case ProgUnavail:
		return "PROG_UNAVAIL: the server doesn't have this program"
	case ProgMismatch:
		return "PROG_MISMATCH: the server has" + versions(e.Low, e.High)
	case ProcUnavail:
		return "PROC_UNAVAIL: the server doesn't have this procedure"
	case GarbageArgs:
		return "GARBAGE_ARGS: the server can't decode the arguments"
	case SystemErr:
		return "SYSTEM_ERR: the server failed to carry out the call"
	}
	return e.Stat.String()
}

// DeniedError says that a server denied a call without looking at what it asks for (RFC 5531 section 9).
type DeniedError struct {
	Stat      RejectStat
	Auth      AuthStat // of AuthError
	Low, High uint32   // of RPCMismatch: the lowest and the highest version of the RPC protocol that the server has
}

// Error returns one line, as
//
//	call denied, AUTH_TOOWEAK: the server doesn't allow this from here
func (e *DeniedError) Error() string {
	if e.Stat == RPCMismatch {
		return "call denied, RPC_MISMATCH: the server speaks RPC" + versions(e.Low, e.High)
	}
	switch e.Auth {
	case AuthBadCred:
		return "call denied, AUTH_BADCRED: the server finds the credential malformed"
	case AuthRejectedCred:
		return "call denied, AUTH_REJECTEDCRED: the server doesn't take the credential"
	case AuthTooWeak:
		return "call denied, AUTH_TOOWEAK: the server doesn't allow this from here"
	}
	return "call denied, " + e.Auth.String()
}

func versions(low, high uint32) string {
	if low == high {
		return " version " + strconv.FormatUint(uint64(low), 10)
	}
	return " versions " + strconv.FormatUint(uint64(low), 10) + " to " + strconv.FormatUint(uint64(high), 10)
}

// Err returns nil for a reply of SUCCESS, and else an [*AcceptError] or a [*DeniedError].
func (r Reply) Err() error {
	switch {
	case r.Denied:
		return &DeniedError{Stat: r.Reject, Auth: r.Auth, Low: r.Low, High: r.High}
	case r.Accept != Success:
		return &AcceptError{Stat: r.Accept, Low: r.Low, High: r.High}
	}
	return nil
}
