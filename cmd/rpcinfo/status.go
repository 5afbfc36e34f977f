package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// status is what became of a call or of the attempt to make one: libtirpc's enum clnt_stat with its texts, which
// rpcinfo prints.
type status string

const (
	cantDecodeResult status = "RPC: Can't decode result"
	cantSend         status = "RPC: Unable to send"
	cantReceive      status = "RPC: Unable to receive"
	timedOut         status = "RPC: Timed out"
	rpcMismatch      status = "RPC: Incompatible versions of RPC"
	authError        status = "RPC: Authentication error"
	progUnavail      status = "RPC: Program unavailable"
	progMismatch     status = "RPC: Program/version mismatch"
	procUnavail      status = "RPC: Procedure unavailable"
	cantDecodeArgs   status = "RPC: Server can't decode arguments"
	systemError      status = "RPC: Remote system error"
	unknownHost      status = "RPC: Unknown host"
	pmapFailure      status = "RPC: Port mapper failure"
	notRegistered    status = "RPC: Program not registered"
	unknownProtocol  status = "RPC: Unknown protocol"
	unknownError     status = "RPC: (unknown error code)" // libtirpc has no text for some
)

// rpcError tells why there is no answer.
type rpcError struct {
	status    status
	errno     error           // of systemError, cantSend and cantReceive
	low, high uint32          // of rpcMismatch and progMismatch
	auth      oncrpc.AuthStat // of authError
	below     *rpcError       // of pmapFailure
	detail    string          // what libtirpc would not tell
}

// created is the text about a client that can't be made, that of clnt_spcreateerror(3).
func (e *rpcError) created() string {
	s := string(e.status)
	switch {
	case e.status == systemError && e.errno == nil:
		s += " - Success" // SYSTEM_ERR, to which libtirpc has no error of the system
	case e.status == systemError:
		s += " - " + strerror(e.errno)
	case e.status == pmapFailure && e.below != nil:
		s += " - " + strings.TrimPrefix(string(e.below.status), "RPC: ")
		if e.below.status == cantSend || e.below.status == cantReceive {
			s += fmt.Sprintf(": errno %d (%s)", errno(e.below.errno), strerror(e.below.errno))
		}
	}
	return s
}

// called is the text about a call that failed, that of clnt_sperror(3).
func (e *rpcError) called() string {
	s := string(e.status)
	switch e.status {
	case cantSend, cantReceive:
		s += "; errno = " + strerror(e.errno)
	case rpcMismatch, progMismatch:
		s += fmt.Sprintf("; low version = %d, high version = %d", e.low, e.high)
	case authError:
		s += "; why = " + authText(e.auth)
	}
	return s
}

// authText returns libtirpc's text of an auth_stat.
func authText(s oncrpc.AuthStat) string {
	switch s {
	case oncrpc.AuthOK:
		return "Authentication OK"
	case oncrpc.AuthBadCred:
		return "Invalid client credential"
	case oncrpc.AuthRejectedCred:
		return "Server rejected credential"
	case oncrpc.AuthBadVerf:
		return "Invalid client verifier"
	case oncrpc.AuthRejectedVerf:
		return "Server rejected verifier"
	case oncrpc.AuthTooWeak:
		return "Client credential too weak"
	case oncrpc.AuthInvalidResp:
		return "Invalid server verifier"
	case oncrpc.AuthFailed:
		return "Failed (unspecified error)"
	}
	return fmt.Sprintf("(unknown authentication error - %d)", int32(s))
}

// strerror returns the text of an error of the system as strerror(3) has it: Go has the same texts, but begins them with
// small letters.
func strerror(err error) string {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return err.Error()
	}
	s := []rune(e.Error())
	s[0] = unicode.ToUpper(s[0])
	return string(s)
}

func errno(err error) int {
	var e syscall.Errno
	_ = errors.As(err, &e)
	return int(e)
}

// dialError is the error of a connection that can't be made.
func dialError(err error) *rpcError {
	var e syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &e):
		return &rpcError{status: systemError, errno: e}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return &rpcError{status: systemError, errno: syscall.ETIMEDOUT}
	}
	return &rpcError{status: systemError, errno: err}
}

// callError is the error of a call that failed.
func callError(err error) *rpcError {
	var accept *oncrpc.AcceptError
	var denied *oncrpc.DeniedError
	var call *oncrpc.CallError
	if errors.As(err, &call) {
		err = call.Err
	}
	var e syscall.Errno
	switch {
	case errors.As(err, &accept):
		return acceptError(accept)
	case errors.As(err, &denied) && denied.Stat == oncrpc.RPCMismatch:
		return &rpcError{status: rpcMismatch, low: denied.Low, high: denied.High}
	case errors.As(err, &denied):
		return &rpcError{status: authError, auth: denied.Auth}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return &rpcError{status: timedOut}
	case errors.As(err, &e) && e == syscall.EPIPE:
		return &rpcError{status: cantSend, errno: e}
	case errors.As(err, &e):
		return &rpcError{status: cantReceive, errno: e}
	case errors.Is(err, oncrpc.ErrNotAReply), errors.Is(err, oncrpc.ErrRecordTooLong), errors.Is(err, oncrpc.ErrEmptyFragment):
		return badReply(err)
	}
	// The server has closed the connection.
	return &rpcError{status: cantReceive, errno: syscall.ECONNRESET}
}

func acceptError(e *oncrpc.AcceptError) *rpcError {
	switch e.Stat {
	case oncrpc.ProgUnavail:
		return &rpcError{status: progUnavail}
	case oncrpc.ProgMismatch:
		return &rpcError{status: progMismatch, low: e.Low, high: e.High}
	case oncrpc.ProcUnavail:
		return &rpcError{status: procUnavail}
	case oncrpc.GarbageArgs:
		return &rpcError{status: cantDecodeArgs}
	}
	return &rpcError{status: systemError}
}

// badReply is the error of a reply that can't be decoded.
func badReply(err error) *rpcError {
	detail := err.Error()
	for _, prefix := range []string{"oncrpc: ", "xdr: "} {
		detail = strings.TrimPrefix(detail, prefix)
	}
	return &rpcError{status: cantDecodeResult, detail: detail}
}
