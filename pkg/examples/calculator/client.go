package main

import (
	"context"
	"errors"

	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// client is what rpcgen would have made of the protocol for its callers.
type client struct{ *rpcbind.Conn }

// dial finds the calculator by the portmapper of a host.
func dial(ctx context.Context, network, host string) (client, error) {
	c, err := rpcbind.Dial(ctx, network, host, program, version)
	return client{c}, err
}

// Add returns a + b.
func (c client) Add(ctx context.Context, a, b int64) (int64, error) {
	d, err := c.call(ctx, procAdd, a, b)
	if err != nil {
		return 0, err
	}
	sum := d.Int64()
	return sum, d.Err()
}

// Divide returns a / b, or the server's reason why it has no value.
func (c client) Divide(ctx context.Context, a, b int64) (int64, error) {
	d, err := c.call(ctx, procDivide, a, b)
	if err != nil {
		return 0, err
	}
	q := readQuotient(&d)
	if d.Err() == nil && !q.defined {
		return 0, errors.New(q.reason)
	}
	return q.value, d.Err()
}

func (c client) call(ctx context.Context, procedure uint32, a, b int64) (xdr.Decoder, error) {
	results, err := c.Call(ctx, procedure, appendOperands(nil, operands{a, b}))
	return xdr.NewDecoder(results), err
}
