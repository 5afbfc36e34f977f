package oncrpc

import "github.com/gportmap/gportmap/pkg/xdr"

// Limits of an AUTH_SYS body (RFC 5531 appendix A).
const (
	maxMachineName = 255 // octets
	maxGIDs        = 16  // supplementary groups
)

// SysCred is the body of an AUTH_SYS credential (RFC 5531 appendix A): what a caller claims to be. Nothing in
// it is proven, so nothing should be granted by it.
type SysCred struct {
	Stamp       uint32
	MachineName string
	UID         uint32
	GID         uint32
	GIDs        []uint32 // at most 16
}

// AppendSysCred appends the body of an AUTH_SYS credential: 20 octets and the padded machine name, and 4 octets
// for each group.
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
		if !validSysCred(a.Body) {
			return AuthBadCred, false
		}
		return 0, true
	case AuthDES:
		return AuthFailed, false
	default:
		return AuthRejectedCred, false
	}
}

func validSysCred(body []byte) bool {
	d := xdr.NewDecoder(body)
	d.Uint32() // stamp
	d.Opaque(maxMachineName)
	d.Uint32() // uid
	d.Uint32() // gid
	gids := d.Uint32()
	if d.Err() != nil || gids > maxGIDs {
		return false
	}
	d.Fixed(gids * xdr.Unit)
	return d.Err() == nil
}
