package oncrpc

import (
	"errors"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// reply_stat, the third word of a reply (RFC 5531 section 9).
const (
	replyAccepted = 0
	replyDenied   = 1
)

// AcceptStat tells what became of an accepted call (RFC 5531 section 9).
type AcceptStat uint32

// The values of accept_stat.
const (
	Success      AcceptStat = 0 // the results follow
	ProgUnavail  AcceptStat = 1 // the program isn't served here
	ProgMismatch AcceptStat = 2 // the version isn't served; the lowest and the highest that are follow
	ProcUnavail  AcceptStat = 3 // the version has no such procedure
	GarbageArgs  AcceptStat = 4 // the arguments can't be decoded
	SystemErr    AcceptStat = 5 // the server can't answer, for a reason of its own
)

// RejectStat tells why a call was denied (RFC 5531 section 9).
type RejectStat uint32

// The values of reject_stat.
const (
	RPCMismatch RejectStat = 0 // the RPC version isn't 2; the lowest and the highest served follow
	AuthError   RejectStat = 1 // the caller's authentication; an auth_stat follows
)

// AuthStat tells what was wrong with a caller's authentication (RFC 5531 section 9).
type AuthStat uint32

// The values of auth_stat that have a meaning without RPCSEC_GSS or Kerberos.
const (
	AuthOK           AuthStat = 0 // no error; not sent in a denied reply
	AuthBadCred      AuthStat = 1 // the credential is malformed
	AuthRejectedCred AuthStat = 2 // the credential's flavor isn't served
	AuthBadVerf      AuthStat = 3 // the verifier is malformed
	AuthRejectedVerf AuthStat = 4 // the verifier expired or was replayed
	AuthTooWeak      AuthStat = 5 // who asks in this way may not have this
	AuthInvalidResp  AuthStat = 6 // the server's verifier is wrong; found by the client
	AuthFailed       AuthStat = 7 // the server can't check it
)

const (
	// AcceptedHeaderSize is the size in octets of an accepted reply before its results: xid, REPLY, MSG_ACCEPTED,
	// an empty AUTH_NONE verifier and the accept_stat.
	AcceptedHeaderSize = 24
	// DeniedAuthSize is the size in octets of a reply that denies a call with an auth_stat.
	DeniedAuthSize = 20
)

// AppendAccepted appends the header of an accepted reply, 24 octets, with an AUTH_NONE verifier (RFC 5531
// sections 8.2 and 9). After [Success] the results follow.
func AppendAccepted(dst []byte, xid uint32, s AcceptStat) []byte {
	dst = xdr.AppendUint32(dst, xid)
	dst = xdr.AppendUint32(dst, msgReply)
	dst = xdr.AppendUint32(dst, replyAccepted)
	dst = appendAuth(dst, OpaqueAuth{})
	return xdr.AppendUint32(dst, uint32(s))
}

// AppendProgMismatch appends a whole PROG_MISMATCH reply, 32 octets, with the lowest and the highest version
// served.
func AppendProgMismatch(dst []byte, xid, low, high uint32) []byte {
	dst = AppendAccepted(dst, xid, ProgMismatch)
	dst = xdr.AppendUint32(dst, low)
	return xdr.AppendUint32(dst, high)
}

// AppendAuthError appends a whole reply that denies a call with an auth_stat, 20 octets.
func AppendAuthError(dst []byte, xid uint32, s AuthStat) []byte {
	dst = appendDenied(dst, xid, AuthError)
	return xdr.AppendUint32(dst, uint32(s))
}

// AppendRPCMismatch appends a whole RPC_MISMATCH reply, 24 octets: this package speaks version 2 alone.
func AppendRPCMismatch(dst []byte, xid uint32) []byte {
	dst = appendDenied(dst, xid, RPCMismatch)
	dst = xdr.AppendUint32(dst, RPCVersion)
	return xdr.AppendUint32(dst, RPCVersion)
}

func appendDenied(dst []byte, xid uint32, s RejectStat) []byte {
	dst = xdr.AppendUint32(dst, xid)
	dst = xdr.AppendUint32(dst, msgReply)
	dst = xdr.AppendUint32(dst, replyDenied)
	return xdr.AppendUint32(dst, uint32(s))
}

// Reply is a reply message taken apart (RFC 5531 section 9). Which fields mean something follows from Denied
// and then from Accept or Reject. A Reply that [ParseReply] returned aliases the message.
type Reply struct {
	XID       uint32
	Denied    bool
	Verf      OpaqueAuth // of an accepted reply
	Accept    AcceptStat // of an accepted reply
	Reject    RejectStat // of a denied reply
	Auth      AuthStat   // of a denied reply with AuthError
	Low, High uint32     // of ProgMismatch and RPCMismatch
	Results   []byte     // of Success: everything after the header
}

// ErrNotAReply says that the octets aren't a whole reply header of RFC 5531 section 9.
var ErrNotAReply = errors.New("oncrpc: not a reply message")

// ParseReply takes a reply apart. The error is [ErrNotAReply] or nil; a reply that reports a failure of the
// call is no error here.
func ParseReply(b []byte) (Reply, error) {
	d := xdr.NewDecoder(b)
	var r Reply
	r.XID = d.Uint32()
	kind := d.Uint32()
	stat := d.Uint32()
	if d.Err() != nil || kind != msgReply || stat > replyDenied {
		return Reply{}, ErrNotAReply
	}
	r.Denied = stat == replyDenied
	if r.Denied {
		readDenied(&d, &r)
	} else {
		readAccepted(&d, &r)
	}
	if d.Err() != nil || r.Accept > SystemErr || r.Reject > AuthError {
		return Reply{}, ErrNotAReply
	}
	return r, nil
}

func readAccepted(d *xdr.Decoder, r *Reply) {
	r.Verf = readAuth(d)
	r.Accept = AcceptStat(d.Uint32())
	switch r.Accept {
	case Success:
		r.Results = d.Rest()
	case ProgMismatch:
		r.Low, r.High = d.Uint32(), d.Uint32()
	}
}

func readDenied(d *xdr.Decoder, r *Reply) {
	r.Reject = RejectStat(d.Uint32())
	switch r.Reject {
	case RPCMismatch:
		r.Low, r.High = d.Uint32(), d.Uint32()
	case AuthError:
		r.Auth = AuthStat(d.Uint32())
	}
}
