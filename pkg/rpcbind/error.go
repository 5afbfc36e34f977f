package rpcbind

import "strconv"

// Error is the error of every function and method of this package that speaks to a portmapper. It tells what was
// asked, of whom, and with [errors.Is] and [errors.As] why it failed:
//
//   - [*oncrpc.AcceptError] and [*oncrpc.DeniedError]: the portmapper said so, as AUTH_TOOWEAK for a SET from
//     another host;
//   - [oncrpc.ErrNotAReply], [oncrpc.ErrRecordTooLong], [xdr.ErrTruncated], [xdr.ErrTooLong], [xdr.ErrBadBool]: what
//     answered isn't a portmapper;
//   - [context.DeadlineExceeded], [context.Canceled]: no answer came before the context ended;
//   - [io.ErrUnexpectedEOF], [syscall.ECONNREFUSED] and others of the net package.
type Error struct {
	Op      string // the procedure's name in RFC 1833 without its prefix, as "GETADDR"; or "dial"
	Version uint32 // of the protocol: 2, 3 or 4; 0 for "dial"
	Network string // as given to Dial
	Addr    string // as given to Dial, with the default port filled in
	Err     error  // why
}

func (e *Error) Error() string {
	s := "rpcbind: " + e.Op
	if e.Version != 0 {
		s += " version " + strconv.FormatUint(uint64(e.Version), 10)
	}
	return s + " to " + e.Network + " " + e.Addr + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }
