package main

import "github.com/gportmap/gportmap/pkg/xdr"

// The protocol, as its specification would have it (RFC 4506, RFC 5531 section 12):
//
//	struct operands { hyper a; hyper b; };
//
//	union quotient switch (bool defined) {
//	case TRUE:  hyper value;
//	case FALSE: string reason<255>;
//	};
//
//	program CALCULATOR {
//		version CALCULATOR_V1 {
//			hyper    ADD(operands)    = 1;
//			quotient DIVIDE(operands) = 2;
//		} = 1;
//	} = 0x20000001;
//
// A program of one's own takes a number from 0x20000000 to 0x3fffffff (RFC 5531 section 13.2).
const (
	program = 0x20000001
	version = 1

	procAdd    = 1
	procDivide = 2

	maxReason = 255 // octets
)

// operands take 16 octets.
type operands struct{ a, b int64 }

func appendOperands(dst []byte, o operands) []byte {
	return xdr.AppendInt64(xdr.AppendInt64(dst, o.a), o.b)
}

func readOperands(d *xdr.Decoder) operands { return operands{a: d.Int64(), b: d.Int64()} }

// quotient takes 12 octets if it is defined, else 8 to 264.
type quotient struct {
	defined bool
	value   int64
	reason  string
}

func appendQuotient(dst []byte, q quotient) []byte {
	dst = xdr.AppendBool(dst, q.defined)
	if q.defined {
		return xdr.AppendInt64(dst, q.value)
	}
	return xdr.AppendString(dst, q.reason)
}

func readQuotient(d *xdr.Decoder) quotient {
	if d.Bool() {
		return quotient{defined: true, value: d.Int64()}
	}
	return quotient{reason: d.String(maxReason)}
}
