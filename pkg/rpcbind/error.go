package rpcbind

import (
	"errors"
	"fmt"
	"strconv"
)

var (
	// ErrNotRegistered says that the portmapper has no address for what was looked up.
	ErrNotRegistered = errors.New("not registered there")
	// ErrRefused says that the portmapper answered FALSE to a SET or UNSET: another address is registered, or it is
	// somebody else's, or the portmapper takes no such address.
	ErrRefused = errors.New("the portmapper refuses: another address is registered or belongs to somebody else, or the address isn't valid")
	// ErrReplaced says that a registration of ours was replaced by another address.
	ErrReplaced = errors.New("another address was registered in its place")
	// ErrBadPort says that a version 2 portmapper answered with a port above 65535.
	ErrBadPort = errors.New("the portmapper answered with a port above 65535")
	// ErrBadAddress says that a portmapper answered an address that isn't a universal address of the transport.
	ErrBadAddress = errors.New("the portmapper answered with something that isn't a universal address")
	// ErrNotVersion2 says that a portmapper has version 2 of the protocol alone, which can register only TCP and UDP over
	// IPv4.
	ErrNotVersion2 = errors.New("the portmapper has only version 2 of the protocol, which knows TCP and UDP over IPv4 alone")
	// ErrNeedsUDP says that a remote call was to be sent over a stream: portmappers make them over UDP alone.
	ErrNeedsUDP = errors.New("remote calls are made over UDP alone")
	// ErrTooManyAnswers says that a broadcast was answered from more addresses than a network has portmappers: see
	// [MaxAnswers].
	ErrTooManyAnswers = errors.New("too many answers to a broadcast")
)

// Error is the error of every function and method of this package that speaks to a portmapper. It tells what was
// asked, of whom, and with [errors.Is] and [errors.As] why it failed:
//
//   - [*oncrpc.AcceptError] and [*oncrpc.DeniedError]: the portmapper said so, as AUTH_TOOWEAK for a SET from
//     another host;
//   - [ErrNotRegistered], [ErrRefused] and the other errors of this package;
//   - [oncrpc.ErrNotAReply], [oncrpc.ErrRecordTooLong], [xdr.ErrTruncated], [xdr.ErrTooLong], [xdr.ErrBadBool]: what
//     answered isn't a portmapper;
//   - [context.DeadlineExceeded], [context.Canceled]: no answer came before the context ended;
//   - [io.ErrUnexpectedEOF], [syscall.ECONNREFUSED] and others of the net package.
type Error struct {
	Op      string // the procedure's name in RFC 1833 without its prefix, as "GETADDR"; or "dial", "listen", "broadcast"
	Version uint32 // of the protocol: 2, 3 or 4; 0 where no call was made
	About   RPCB   // what was asked about, if anything: program, version and perhaps netid and address
	Network string // as given to DialPortmapper or Dial
	Addr    string // as given, with the default port filled in
	Err     error  // why
}

// Error returns one line, as
//
//	rpcbind: GETADDR version 4 to tcp 192.0.2.1:111 for program 100003 version 3 netid tcp: unexpected EOF
func (e *Error) Error() string {
	s := "rpcbind: " + e.Op
	if e.Version != 0 {
		s += " version " + decimal(e.Version)
	}
	if e.Network != "" || e.Addr != "" {
		s += " to " + e.Network + " " + e.Addr
	}
	if e.About.Program != 0 || e.About.Version != 0 {
		s += " for program " + decimal(e.About.Program) + " version " + decimal(e.About.Version)
		if e.About.Netid != "" {
			s += " netid " + printable(string(e.About.Netid))
		}
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

func decimal(v uint32) string { return strconv.FormatUint(uint64(v), 10) }

// printable returns s, quoted if it has anything in it that a terminal should not see: it may be a stranger's.
func printable(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return strconv.Quote(s)
		}
	}
	return s
}

// also is errors.Join in one line.
func also(all, err error) error {
	switch {
	case all == nil:
		return err
	case err == nil:
		return all
	}
	return fmt.Errorf("%w; %w", all, err)
}
