package oncrpc

import (
	"errors"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// Limits of an AUTH_SYS body (RFC 5531 appendix A).
const (
	// MaxMachineName is the size in octets of the longest machine name.
	MaxMachineName = 255
	// MaxGIDs is the largest number of supplementary groups.
	MaxGIDs = 16
)

// ErrBadSysCred says that an AUTH_SYS body is cut short, or has a machine name of more than [MaxMachineName] octets or more
// than [MaxGIDs] groups.
var ErrBadSysCred = errors.New("oncrpc: AUTH_SYS credential is malformed or over its limits")

// SysCred is the body of an AUTH_SYS credential (RFC 5531 appendix A): what a caller claims to be. Nothing in
// it is proven, so nothing should be granted by it that the caller's address doesn't grant.
//
//	stamp                  4 octets
//	machinename<255>       4 to 260 octets
//	uid, gid               4 octets each
//	gids<16>               4 to 68 octets
type SysCred struct {
	Stamp       uint32   // any number
	MachineName string   // at most [MaxMachineName] octets
	UID         uint32   // effective user
	GID         uint32   // effective group
	GIDs        []uint32 // supplementary groups, at most [MaxGIDs]
}

// Auth returns the credential for [Call] or [ClientConfig]. The error is [ErrBadSysCred] or nil.
func (c SysCred) Auth() (OpaqueAuth, error) {
	if len(c.MachineName) > MaxMachineName || len(c.GIDs) > MaxGIDs {
		return OpaqueAuth{}, ErrBadSysCred
	}
	return OpaqueAuth{Flavor: AuthSys, Body: AppendSysCred(nil, c)}, nil
}

// AppendSysCred appends the body of an AUTH_SYS credential: 20 octets and the padded machine name, and 4 octets
// for each group. It doesn't look at the limits: what is over them makes a credential that every server refuses.
func AppendSysCred(dst []byte, c SysCred) []byte {
	dst = xdr.AppendUint32(dst, c.Stamp)
	dst = xdr.AppendString(dst, c.MachineName)
	dst = xdr.AppendUint32(dst, c.UID)
	dst = xdr.AppendUint32(dst, c.GID)
	dst = xdr.AppendUint32(dst, uint32(len(c.GIDs)))
	for _, g := range c.GIDs {
		dst = xdr.AppendUint32(dst, g)
	}
	return dst
}

// CheckCred tells whether a server without secrets may go on with a call that carries this credential, and if
// not, the auth_stat to deny it with: any AUTH_NONE body passes, an AUTH_SYS body has to be well formed (octets
// after it are ignored), AUTH_DES fails for want of keys, and every other flavor, AUTH_SHORT and RPCSEC_GSS
// among them, is rejected before its body is looked at.
func CheckCred(a OpaqueAuth) (AuthStat, bool) {
	switch a.Flavor {
	case AuthNone:
		return 0, true
	case AuthSys:
		if _, _, ok := cutSysCred(a.Body); !ok {
			return AuthBadCred, false
		}
		return 0, true
	case AuthDES:
		return AuthFailed, false
	default:
		return AuthRejectedCred, false
	}
}

// ParseSysCred reads the body of an AUTH_SYS credential; octets after it are ignored. What it returns is no part of body.
// It allocates at most 255 octets for the name and 64 for the groups. The error is [ErrBadSysCred] or nil.
func ParseSysCred(body []byte) (SysCred, error) {
	name, gids, ok := cutSysCred(body)
	if !ok {
		return SysCred{}, ErrBadSysCred
	}
	d := xdr.NewDecoder(body)
	c := SysCred{Stamp: d.Uint32(), MachineName: string(name)}
	d.Opaque(MaxMachineName)
	c.UID, c.GID = d.Uint32(), d.Uint32()
	if len(gids) > 0 {
		c.GIDs = make([]uint32, len(gids)/xdr.Unit)
	}
	d = xdr.NewDecoder(gids)
	for i := range c.GIDs {
		c.GIDs[i] = d.Uint32()
	}
	return c, nil
}

// cutSysCred checks the form of an AUTH_SYS body and returns the parts of it that vary in length.
func cutSysCred(body []byte) (name, gids []byte, ok bool) {
	d := xdr.NewDecoder(body)
	d.Uint32() // stamp
	name = d.Opaque(MaxMachineName)
	d.Uint32() // uid
	d.Uint32() // gid
	n := d.Count(MaxGIDs, xdr.Unit)
	gids = d.Fixed(uint32(n) * xdr.Unit)
	return name, gids, d.Err() == nil
}
