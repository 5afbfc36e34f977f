package oncrpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// Handler carries out one procedure: it decodes the arguments from r.Args, appends the results to results and returns the
// longer slice, which may as well be one of its own. Handlers of several connections run at the same time.
//
// ctx ends when the Server is closed; when the call's connection breaks only if [Server.CallsPerConnection] is above 1,
// because else nobody reads from the connection until the Handler returns. r and results, and all slices in them, belong
// to the Server again when the Handler returns: keep copies.
//
// The error says what to answer instead of results (RFC 5531 section 9):
//
//   - [ErrGarbageArgs]: the arguments can't be decoded;
//   - [ErrProcUnavail], [ErrSystemErr], and every other [*AcceptError] but one of SUCCESS;
//   - a [*DeniedError] with an auth_stat: this caller may not have this;
//   - every other error is SYSTEM_ERR and goes to [Server.Report].
//
// Only the error itself counts, not what it wraps: the error of a call to another server isn't the answer of this one. A
// Handler that panics answers SYSTEM_ERR, and the [*PanicError] goes to [Server.Report].
type Handler func(ctx context.Context, r *Request, results []byte) ([]byte, error)

// Procedures are those of one version of a program, by number. Procedure 0, which takes and returns nothing, is answered
// also if it isn't there (RFC 5531 section 12.1).
type Procedures map[uint32]Handler

// Errors of a [Handler] that a server answers by their names, and of a [Client.Call] to such a server: errors.Is
// compares the accept_stat.
var (
	ErrProgUnavail error = &AcceptError{Stat: ProgUnavail}
	ErrProcUnavail error = &AcceptError{Stat: ProcUnavail}
	ErrGarbageArgs error = &AcceptError{Stat: GarbageArgs}
	ErrSystemErr   error = &AcceptError{Stat: SystemErr}
)

// Request is a call that a [Server] has received: its credential is well formed, the arguments are as they came.
type Request struct {
	Call

	// Local and Remote are the addresses of the two ends. Remote isn't proven over UDP.
	Local, Remote net.Addr
	// Conn is the connection that the call came by, for what more is to be known of it, as the credentials of a local
	// socket's peer or the state of TLS. Nothing but the Server may read, write or close it. It is nil for a datagram.
	Conn net.Conn
}

// Decoder returns a Decoder of the arguments.
func (r *Request) Decoder() xdr.Decoder { return xdr.NewDecoder(r.Args) }

// SysCred returns the caller's AUTH_SYS credential, or false if it has none. It allocates what [ParseSysCred] does.
func (r *Request) SysCred() (SysCred, bool) {
	if r.Cred.Flavor != AuthSys {
		return SysCred{}, false
	}
	c, err := ParseSysCred(r.Cred.Body)
	return c, err == nil
}

// PanicError is what [Server.Report] gets when a [Handler] or [Server.Authorize] panicked.
type PanicError struct {
	Value any    // what panic was called with; nil if the function ended its goroutine instead of returning
	Stack []byte // as of [debug.Stack]
}

// Error returns one line without the stack.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "oncrpc: a handler ended its goroutine (runtime.Goexit)"
	}
	return fmt.Sprintf("oncrpc: a handler panicked: %v", e.Value)
}

// Unwrap returns the value of the panic if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// program is what is registered of one program.
type program struct {
	versions  map[uint32]Procedures
	low, high uint32
}

// with returns p, which may be nil, and one more version; p stays as it is, because calls may be using it.
func (p *program) with(version uint32, procedures Procedures) *program {
	if p == nil {
		return &program{versions: map[uint32]Procedures{version: procedures}, low: version, high: version}
	}
	versions := map[uint32]Procedures{version: procedures}
	for v, procs := range p.versions {
		versions[v] = procs
	}
	return &program{versions: versions, low: min(p.low, version), high: max(p.high, version)}
}

// Register makes the Server answer calls for a version of a program, also while it serves. procedures must stay as it is
// from then on. The error is that this version is registered already, or that there is a nil Handler.
func (s *Server) Register(prog, version uint32, procedures Procedures) error {
	for number, h := range procedures {
		if h == nil {
			return fmt.Errorf("oncrpc: register program %d version %d: the handler of procedure %d is nil", prog, version, number)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	programs := make(map[uint32]*program)
	if old := s.programs.Load(); old != nil {
		for number, p := range *old {
			programs[number] = p
		}
	}
	if p := programs[prog]; p != nil {
		if _, taken := p.versions[version]; taken {
			return fmt.Errorf("oncrpc: register program %d version %d: it is registered already", prog, version)
		}
	}
	programs[prog] = programs[prog].with(version, procedures)
	s.programs.Store(&programs)
	return nil
}

// answer appends the reply to a call. The error is [ErrNotACall]: there is no reply.
func (s *Server) answer(ctx context.Context, dst, message []byte, r *Request) ([]byte, error) {
	call, err := ParseCall(message)
	if err != nil {
		return dst, err
	}
	r.Call = call
	if call.RPCVersion != RPCVersion {
		return AppendRPCMismatch(dst, call.XID), nil
	}
	if stat, ok := CheckCred(call.Cred); !ok {
		return AppendAuthError(dst, call.XID, stat), nil
	}
	return s.carryOut(ctx, dst, r), nil
}

// carryOut appends the reply to a call that is well formed. Whatever the user's functions do, there is one.
func (s *Server) carryOut(ctx context.Context, dst []byte, r *Request) (reply []byte) {
	returned := false
	defer func() {
		if !returned {
			reply = AppendAccepted(dst, r.XID, SystemErr)
			s.report(r, &PanicError{Value: recover(), Stack: debug.Stack()})
		}
	}()
	reply = s.dispatch(ctx, dst, r)
	returned = true
	return reply
}

func (s *Server) dispatch(ctx context.Context, dst []byte, r *Request) []byte {
	if s.Authorize != nil {
		if stat := s.Authorize(ctx, r); stat != AuthOK {
			return AppendAuthError(dst, r.XID, stat)
		}
	}
	var p *program
	if programs := s.programs.Load(); programs != nil {
		p = (*programs)[r.Program]
	}
	if p == nil {
		return AppendAccepted(dst, r.XID, ProgUnavail)
	}
	procedures, ok := p.versions[r.Version]
	if !ok {
		return AppendProgMismatch(dst, r.XID, p.low, p.high)
	}
	handle := procedures[r.Procedure]
	if handle == nil && r.Procedure == 0 {
		return AppendAccepted(dst, r.XID, Success)
	}
	if handle == nil {
		return AppendAccepted(dst, r.XID, ProcUnavail)
	}
	reply := AppendAccepted(dst, r.XID, Success)
	results, err := handle(ctx, r, reply[len(reply):])
	if err != nil {
		return s.appendRefusal(dst, r, err)
	}
	return join(reply, results)
}

// join appends the results, unless they were appended in place: then they need not be copied.
func join(reply, results []byte) []byte {
	n := len(reply)
	if len(results) > 0 && cap(reply) > n && &reply[:n+1][n] == &results[0] && cap(reply)-n >= len(results) {
		return reply[:n+len(results)]
	}
	return append(reply, results...)
}

// appendRefusal appends the reply that a handler's error asks for.
func (s *Server) appendRefusal(dst []byte, r *Request, err error) []byte {
	switch e := err.(type) { // not errors.As: see Handler
	case *AcceptError:
		switch e.Stat {
		case ProgMismatch:
			return AppendProgMismatch(dst, r.XID, e.Low, e.High)
		case ProgUnavail, ProcUnavail, GarbageArgs, SystemErr:
			return AppendAccepted(dst, r.XID, e.Stat)
		}
	case *DeniedError:
		if e.Stat == AuthError && e.Auth != AuthOK {
			return AppendAuthError(dst, r.XID, e.Auth)
		}
	}
	s.report(r, err)
	return AppendAccepted(dst, r.XID, SystemErr)
}

func (s *Server) report(r *Request, err error) {
	if s.Report != nil {
		s.Report(r, err)
	}
}

// Is tells whether target is an AcceptError of the same Stat and, if target has any, the same versions.
func (e *AcceptError) Is(target error) bool {
	t, ok := target.(*AcceptError)
	return ok && t.Stat == e.Stat && (t.Low == 0 && t.High == 0 || t.Low == e.Low && t.High == e.High)
}

// ErrServerClosed is what the Serve methods of a [Server] return after [Server.Shutdown] and [Server.Close].
var ErrServerClosed = errors.New("oncrpc: server closed")
