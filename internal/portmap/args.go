package portmap

import (
	"bytes"

	"github.com/gportmap/gportmap/internal/registry"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// maxString bounds the strings of a call, in octets. A record of 9,000 octets bounds them as well.
const maxString = registry.MaxString

// rpcbArgs is an rpcb as it stands in a call: its strings alias the message, so that a lookup allocates nothing.
type rpcbArgs struct {
	prog, vers         uint32
	netid, addr, owner []byte
}

func readRPCBArgs(args []byte) (rpcbArgs, bool) {
	d := xdr.NewDecoder(args)
	a := rpcbArgs{prog: d.Uint32(), vers: d.Uint32()}
	a.netid = d.Opaque(maxString)
	a.addr = d.Opaque(maxString)
	a.owner = d.Opaque(maxString)
	return a, d.Err() == nil
}

func readMapping(args []byte) (rpcbind.Mapping, bool) {
	d := xdr.NewDecoder(args)
	m := rpcbind.ReadMapping(&d)
	return m, d.Err() == nil
}

func readString(args []byte) ([]byte, bool) {
	d := xdr.NewDecoder(args)
	s := d.Opaque(maxString)
	return s, d.Err() == nil
}

// cString cuts s at its first zero octet, where a portmapper written in C stops reading it.
func cString(s []byte) []byte {
	if i := bytes.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}
