package rpcbind

import "github.com/gportmap/gportmap/pkg/xdr"

// RPCB is a registration as versions 3 and 4 see it (RFC 1833 section 2.1, struct rpcb). Encoded it takes 8
// octets and the three strings.
type RPCB struct {
	Program uint32
	Version uint32
	Netid   Netid
	Addr    string // universal address
	Owner   string // "superuser", a decimal uid or "unknown"; set by the portmapper, ignored in calls
}

// Size returns the octets that b takes encoded.
func (b RPCB) Size() int {
	return 2*xdr.Unit + xdr.OpaqueSize(len(b.Netid)) + xdr.OpaqueSize(len(b.Addr)) + xdr.OpaqueSize(len(b.Owner))
}

// AppendRPCB appends b encoded.
func AppendRPCB(dst []byte, b RPCB) []byte {
	dst = xdr.AppendUint32(dst, b.Program)
	dst = xdr.AppendUint32(dst, b.Version)
	dst = xdr.AppendString(dst, string(b.Netid))
	dst = xdr.AppendString(dst, b.Addr)
	return xdr.AppendString(dst, b.Owner)
}

// ReadRPCB reads an RPCB whose strings have at most limit octets each; d.Err tells whether it was there.
func ReadRPCB(d *xdr.Decoder, limit uint32) RPCB {
	return readRPCB(d, limit, RPCB{})
}

// readRPCB is ReadRPCB behind another RPCB, which is likely to have some of the same strings.
func readRPCB(d *xdr.Decoder, limit uint32, before RPCB) RPCB {
	return RPCB{
		Program: d.Uint32(),
		Version: d.Uint32(),
		Netid:   Netid(readAgain(d, limit, string(before.Netid))),
		Addr:    readAgain(d, limit, before.Addr),
		Owner:   readAgain(d, limit, before.Owner),
	}
}

// readAgain reads a string, which isn't allocated once more if it is the one before.
func readAgain(d *xdr.Decoder, limit uint32, before string) string {
	s := d.Opaque(limit)
	if string(s) == before {
		return before
	}
	return string(s)
}

// AppendRPCBElement appends b as an element of an rpcblist: the word 1 that says that there is one, and b
// (RFC 1833 section 2.1, struct rp__list). The list's end is the word 0.
func AppendRPCBElement(dst []byte, b RPCB) []byte {
	return AppendRPCB(xdr.AppendBool(dst, true), b)
}

// ReadRPCBList reads an rpcblist, the result of DUMP, whose strings have at most limit octets each. It allocates
// in proportion to the elements that are there, at least 24 octets each; d.Err tells whether the list was whole.
func ReadRPCBList(d *xdr.Decoder, limit uint32) []RPCB {
	var list []RPCB
	if n := len(d.Rest()) / usualElement; n > 0 {
		list = make([]RPCB, 0, n)
	}
	var last RPCB
	for d.Bool() {
		b := readRPCB(d, limit, last)
		if d.Err() == nil {
			list = append(list, b)
			last = b
		}
	}
	return list
}

// usualElement is how many octets most elements of an rpcblist have, or more.
const usualElement = 68

// Mapping is a registration as version 2 sees it (RFC 1833 section 3.1, struct mapping): 16 octets.
type Mapping struct {
	Program uint32
	Version uint32
	Prot    uint32 // ProtTCP or ProtUDP
	Port    uint32 // at most 65535 to mean something
}

// MappingSize is the size of an encoded Mapping in octets.
const MappingSize = 4 * xdr.Unit

// AppendMapping appends m encoded.
func AppendMapping(dst []byte, m Mapping) []byte {
	dst = xdr.AppendUint32(dst, m.Program)
	dst = xdr.AppendUint32(dst, m.Version)
	dst = xdr.AppendUint32(dst, m.Prot)
	return xdr.AppendUint32(dst, m.Port)
}

// ReadMapping reads a Mapping; d.Err tells whether it was there.
func ReadMapping(d *xdr.Decoder) Mapping {
	return Mapping{Program: d.Uint32(), Version: d.Uint32(), Prot: d.Uint32(), Port: d.Uint32()}
}

// AppendMappingElement appends m as an element of a pmaplist: the word 1 and m (RFC 1833 section 3.1). The list's
// end is the word 0.
func AppendMappingElement(dst []byte, m Mapping) []byte {
	return AppendMapping(xdr.AppendBool(dst, true), m)
}

// ReadMappingList reads a pmaplist, the result of version 2's DUMP; d.Err tells whether it was whole.
func ReadMappingList(d *xdr.Decoder) []Mapping {
	var list []Mapping
	for d.Bool() {
		m := ReadMapping(d)
		if d.Err() == nil {
			list = append(list, m)
		}
	}
	return list
}

// Entry is an address of a program in the result of GETADDRLIST (RFC 1833 section 2.1, struct rpcb_entry).
type Entry struct {
	Addr      string // merged universal address
	Transport        // what the netid stands for
}

// AppendEntryElement appends e as an element of an rpcb_entry_list: the word 1 and e.
func AppendEntryElement(dst []byte, e Entry) []byte {
	dst = xdr.AppendBool(dst, true)
	dst = xdr.AppendString(dst, e.Addr)
	dst = xdr.AppendString(dst, string(e.Netid))
	dst = xdr.AppendUint32(dst, e.Semantics)
	dst = xdr.AppendString(dst, e.Family)
	return xdr.AppendString(dst, e.Proto)
}

// ReadEntryList reads an rpcb_entry_list, the result of GETADDRLIST, whose strings have at most limit octets
// each; d.Err tells whether it was whole.
func ReadEntryList(d *xdr.Decoder, limit uint32) []Entry {
	var list []Entry
	for d.Bool() {
		e := Entry{Addr: string(d.Opaque(limit))}
		e.Netid = Netid(d.Opaque(limit))
		e.Semantics = d.Uint32()
		e.Family = string(d.Opaque(limit))
		e.Proto = string(d.Opaque(limit))
		if d.Err() == nil {
			list = append(list, e)
		}
	}
	return list
}
