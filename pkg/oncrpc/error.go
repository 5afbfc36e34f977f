package oncrpc

import "strconv"

// CallError is the error of every [Client.Call]. It tells what was asked, of whom, and with [errors.Is] and [errors.As]
// why it failed:
//
//   - [*AcceptError], [*DeniedError]: the server said so;
//   - [ErrNotAReply]: what came with the call's xid isn't a reply;
//   - [context.Canceled], [context.DeadlineExceeded]: the context ended before the reply came;
//   - [net.ErrClosed]: the Client was closed;
//   - [ErrRecordTooLong], [ErrEmptyFragment], [io.ErrUnexpectedEOF] and errors of the net package: the connection broke,
//     and so every other call on it fails with the same reason. Over UDP none of these ends the Client: an error as
//     [syscall.ECONNREFUSED] fails the calls that are waiting, and later ones try again.
type CallError struct {
	Program   uint32
	Version   uint32
	Procedure uint32
	Network   string // of the server's address, as "tcp"; empty if the connection has none
	Addr      string // the server's address, as "192.0.2.1:2049"; empty if the connection has none
	Err       error  // why
}

// Error returns one line, as
//
//	oncrpc: program 100003 version 3 procedure 1 at tcp 192.0.2.1:2049: PROC_UNAVAIL: the server doesn't have this procedure
func (e *CallError) Error() string {
	s := "oncrpc: program " + decimal(e.Program) + " version " + decimal(e.Version) + " procedure " + decimal(e.Procedure)
	if e.Network != "" || e.Addr != "" {
		s += " at " + e.Network + " " + e.Addr
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *CallError) Unwrap() error { return e.Err }

func decimal(v uint32) string { return strconv.FormatUint(uint64(v), 10) }
