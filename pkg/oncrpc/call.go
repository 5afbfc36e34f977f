package oncrpc

import (
	"encoding/binary"
	"errors"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// RPCVersion is the version of the RPC protocol that this package speaks (RFC 5531 section 9).
const RPCVersion = 2

// Message types, the second word of every message (RFC 5531 section 9).
const (
	msgCall  = 0
	msgReply = 1
)

const (
	// MaxAuthBody is the largest body of an opaque_auth in octets (RFC 5531 section 8.2).
	MaxAuthBody = 400
	// CallHeaderSize is the size in octets of the smallest call: the header with two empty AUTH_NONE bodies.
	CallHeaderSize = 40
)

// Flavor names an authentication flavor (RFC 5531 section 8.2).
type Flavor uint32

// The flavors that a portmapper meets.
const (
	AuthNone  Flavor = 0
	AuthSys   Flavor = 1
	AuthShort Flavor = 2
	AuthDES   Flavor = 3 // AUTH_DH
	RPCSecGSS Flavor = 6
)

// OpaqueAuth is a credential or a verifier: a flavor and a body of at most [MaxAuthBody] octets that only the
// flavor gives a meaning (RFC 5531 section 8.2).
type OpaqueAuth struct {
	Flavor Flavor
	Body   []byte
}

// Call is the header of a call message and its arguments (RFC 5531 section 9):
//
//	xid  CALL=0  rpcvers=2  prog  vers  proc   6 × 4 octets
//	cred: flavor, body<400>                    8 to 408 octets
//	verf: flavor, body<400>                    8 to 408 octets
//	arguments                                  the rest
//
// A Call that [ParseCall] returned aliases the message.
type Call struct {
	XID        uint32
	RPCVersion uint32
	Program    uint32
	Version    uint32
	Procedure  uint32
	Cred       OpaqueAuth
	Verf       OpaqueAuth
	Args       []byte
}

// ErrNotACall says that the octets aren't a whole call header: too short, a reply, or an opaque_auth body that
// is cut short or longer than [MaxAuthBody]. Such a message gets no answer, because there is none that RFC 5531
// defines; on a stream the connection has lost its framing and closes.
var ErrNotACall = errors.New("oncrpc: not a call message")

// ParseCall reads the header of a call. It checks the form alone: the version of the RPC protocol, the flavors
// and their bodies are for the caller to judge, because each has an answer of its own (RFC 5531 section 9).
// The error is [ErrNotACall] or nil.
func ParseCall(b []byte) (Call, error) {
	if len(b) < callWords*xdr.Unit || word(b, 1) != msgCall {
		return Call{}, ErrNotACall
	}
	c := Call{XID: word(b, 0), RPCVersion: word(b, 2), Program: word(b, 3), Version: word(b, 4), Procedure: word(b, 5)}
	d := xdr.NewDecoder(b[callWords*xdr.Unit:])
	c.Cred = readAuth(&d)
	c.Verf = readAuth(&d)
	if d.Err() != nil {
		return Call{}, ErrNotACall
	}
	c.Args = d.Rest()
	return c, nil
}

// callWords is how many words of 4 octets a call begins with, before its credential: xid, kind of message, version of RPC,
// program, version, procedure.
const callWords = 6

func word(b []byte, i int) uint32 { return binary.BigEndian.Uint32(b[i*xdr.Unit:]) }

func readAuth(d *xdr.Decoder) OpaqueAuth {
	flavor := Flavor(d.Uint32())
	return OpaqueAuth{Flavor: flavor, Body: d.Opaque(MaxAuthBody)}
}

// AppendCall appends a call message: the header and c.Args as they are. An RPCVersion of zero stands for
// [RPCVersion]. Auth bodies longer than [MaxAuthBody] make a message that every server refuses.
func AppendCall(dst []byte, c Call) []byte {
	if c.RPCVersion == 0 {
		c.RPCVersion = RPCVersion
	}
	dst = xdr.AppendUint32(dst, c.XID)
	dst = xdr.AppendUint32(dst, msgCall)
	dst = xdr.AppendUint32(dst, c.RPCVersion)
	dst = xdr.AppendUint32(dst, c.Program)
	dst = xdr.AppendUint32(dst, c.Version)
	dst = xdr.AppendUint32(dst, c.Procedure)
	dst = appendAuth(dst, c.Cred)
	dst = appendAuth(dst, c.Verf)
	return append(dst, c.Args...)
}

func appendAuth(dst []byte, a OpaqueAuth) []byte {
	dst = xdr.AppendUint32(dst, uint32(a.Flavor))
	return xdr.AppendOpaque(dst, a.Body)
}
