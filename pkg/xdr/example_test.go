package xdr_test

import (
	"fmt"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// An entry of this declaration:
//
//	enum kind { FILE = 1, DIRECTORY = 2 };
//
//	struct entry {
//		string name<255>;
//		kind what;
//		unsigned hyper blocks<16>;
//		entry *next;
//	};
type entry struct {
	name   string
	what   int32
	blocks []uint64
}

const (
	file      = 1
	directory = 2
)

// A list in XDR is a chain of optionals: TRUE and an item for each, and FALSE.
func appendEntries(dst []byte, list []entry) []byte {
	for _, e := range list {
		dst = xdr.AppendBool(dst, true)
		dst = xdr.AppendString(dst, e.name)
		dst = xdr.AppendInt32(dst, e.what)
		dst = xdr.AppendUint32(dst, uint32(len(e.blocks)))
		for _, b := range e.blocks {
			dst = xdr.AppendUint64(dst, b)
		}
	}
	return xdr.AppendBool(dst, false)
}

func readEntries(d *xdr.Decoder) []entry {
	var list []entry
	for d.Bool() { // false after an error, too
		e := entry{name: d.String(255), what: d.Int32()}
		if e.what != file && e.what != directory {
			d.Fail(xdr.ErrBadEnum)
		}
		e.blocks = make([]uint64, d.Count(16, 8))
		for i := range e.blocks {
			e.blocks[i] = d.Uint64()
		}
		list = append(list, e)
	}
	return list
}

func Example() {
	octets := appendEntries(nil, []entry{{"etc", directory, nil}, {"motd", file, []uint64{7, 1 << 40}}})
	fmt.Println(len(octets), "octets")

	d := xdr.NewDecoder(octets)
	for _, e := range readEntries(&d) {
		fmt.Println(e.name, e.what, e.blocks)
	}
	fmt.Println(d.Err())

	d = xdr.NewDecoder(octets[:50]) // as it may come over a network
	readEntries(&d)
	fmt.Println(d.Err())
	// Output:
	// 60 octets
	// etc 2 []
	// motd 1 [7 1099511627776]
	// <nil>
	// xdr: input ends before the item does
}

func ExampleDecoder_Count() {
	// Announces 2^32-1 items and has two.
	d := xdr.NewDecoder([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 2})
	items := make([]uint32, d.Count(0xffffffff, 4)) // allocates nothing
	fmt.Println(len(items), d.Err())
	// Output: 0 xdr: input ends before the item does
}
