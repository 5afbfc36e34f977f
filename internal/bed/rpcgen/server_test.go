package rpcgen_test

import (
	"context"
	"math"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// Of calc.x.
const (
	calc    = 0x20000042
	calcOld = 2
	calcNew = 4

	oldVersion = 1

	procEvaluate = 1
	procReverse  = 2
	procWho      = 3
	procFail     = 4
	procEcho     = 5

	maxLabel = 32
	maxTerms = 8
	tagSize  = 5

	add      = 1
	subtract = 2
	multiply = 3
	divide   = -4

	fine           = 0
	divisionByZero = 1
	noTerms        = 2

	failSystem = 0
	failWeak   = 1

	termSize = 12 // octets: operation, hyper
	itemSize = 16 // octets: unsigned hyper, float, the discriminant of the next
)

func calcServer(t *testing.T) *oncrpc.Server {
	t.Helper()
	s := &oncrpc.Server{Report: func(r *oncrpc.Request, err error) { t.Errorf("reported: %v", err) }}
	if err := s.Register(calc, calcOld, oncrpc.Procedures{oldVersion: serveOldVersion}); err != nil {
		t.Fatal(err)
	}
	err := s.Register(calc, calcNew, oncrpc.Procedures{
		procEvaluate: serveEvaluate,
		procReverse:  serveReverse,
		procWho:      serveWho,
		procFail:     serveFail,
		procEcho:     serveEcho,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serveOldVersion(_ context.Context, _ *oncrpc.Request, results []byte) ([]byte, error) {
	return xdr.AppendUint32(results, 2), nil
}

type term struct {
	how   int32
	value int64
}

func serveEvaluate(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	d := r.Decoder()
	label := d.String(maxLabel)
	terms := make([]term, d.Count(maxTerms, termSize))
	for i := range terms {
		terms[i] = term{d.Int32(), d.Int64()}
	}
	scale := 1.0
	if d.Bool() {
		scale = d.Float64()
	}
	tag := d.Fixed(tagSize)
	negate := d.Bool()
	if d.Err() != nil {
		return nil, oncrpc.ErrGarbageArgs
	}
	if len(terms) == 0 {
		return xdr.AppendInt32(results, noTerms), nil
	}
	number := 0.0
	for i, t := range terms {
		switch t.how {
		case add:
			number += float64(t.value)
		case subtract:
			number -= float64(t.value)
		case multiply:
			number *= float64(t.value)
		case divide:
			if t.value == 0 {
				results = xdr.AppendInt32(results, divisionByZero)
				return xdr.AppendUint32(results, uint32(i)), nil
			}
			number /= float64(t.value)
		default:
			return nil, oncrpc.ErrGarbageArgs
		}
	}
	number *= scale
	if negate {
		number = -number
	}
	results = xdr.AppendInt32(results, fine)
	results = xdr.AppendFloat64(results, number)
	results = xdr.AppendString(results, label)
	return xdr.AppendFixed(results, tag), nil
}

type item struct {
	number uint64
	half   float32
}

func readList(d *xdr.Decoder) []item {
	var items []item
	for d.Bool() {
		items = append(items, item{d.Uint64(), d.Float32()})
	}
	return items
}

func serveReverse(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	d := r.Decoder()
	items := readList(&d)
	if d.Err() != nil {
		return nil, oncrpc.ErrGarbageArgs
	}
	for i := len(items) - 1; i >= 0; i-- {
		results = appendItem(results, items[i])
	}
	return xdr.AppendBool(results, false), nil
}

func appendItem(dst []byte, i item) []byte {
	dst = xdr.AppendBool(dst, true)
	dst = xdr.AppendUint64(dst, i.number)
	return xdr.AppendFloat32(dst, i.half)
}

func serveWho(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	c, _ := r.SysCred()
	results = xdr.AppendString(results, c.MachineName)
	results = xdr.AppendUint32(results, c.UID)
	results = xdr.AppendUint32(results, c.GID)
	results = xdr.AppendUint32(results, uint32(len(c.GIDs)))
	for _, g := range c.GIDs {
		results = xdr.AppendUint32(results, g)
	}
	return results, nil
}

func serveFail(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	d := r.Decoder()
	switch how := d.Int32(); {
	case d.Err() != nil:
		return nil, oncrpc.ErrGarbageArgs
	case how == failSystem:
		return nil, oncrpc.ErrSystemErr
	case how == failWeak:
		return nil, &oncrpc.DeniedError{Stat: oncrpc.AuthError, Auth: oncrpc.AuthTooWeak}
	}
	return nil, oncrpc.ErrGarbageArgs
}

func serveEcho(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	d := r.Decoder()
	data := d.Opaque(math.MaxUint32)
	if d.Err() != nil {
		return nil, oncrpc.ErrGarbageArgs
	}
	return xdr.AppendOpaque(results, data), nil
}
