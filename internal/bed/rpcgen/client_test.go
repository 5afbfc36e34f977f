package rpcgen_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// caller makes the calls of client.c and prints the same lines.
type caller struct {
	ctx    context.Context
	client *oncrpc.Client
	out    strings.Builder
}

func callGo(t *testing.T, network, host, port, auth string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var config oncrpc.ClientConfig
	if auth == "sys" {
		cred, err := oncrpc.SysCred{MachineName: "client.example", UID: 4242, GID: 100, GIDs: []uint32{4, 4294967294, 24}}.Auth()
		if err != nil {
			t.Fatal(err)
		}
		config.Cred = cred
	}
	client, err := config.Dial(ctx, network, net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := &caller{ctx: ctx, client: client}
	c.all(strings.HasPrefix(network, "tcp"))
	return c.out.String()
}

func (c *caller) printf(format string, args ...any) { fmt.Fprintf(&c.out, format, args...) }

// call returns the results, or false and prints why there are none.
func (c *caller) call(what string, call oncrpc.Call) (xdr.Decoder, bool) {
	results, err := c.client.Call(c.ctx, call)
	var refused *oncrpc.AcceptError
	var denied *oncrpc.DeniedError
	switch {
	case err == nil:
		return xdr.NewDecoder(results), true
	case errors.As(err, &refused) && refused.Stat == oncrpc.ProgMismatch:
		c.printf("%s: %v %d %d\n", what, refused.Stat, refused.Low, refused.High)
	case errors.As(err, &refused):
		c.printf("%s: %v\n", what, refused.Stat)
	case errors.As(err, &denied) && denied.Stat == oncrpc.AuthError:
		c.printf("%s: %v %d\n", what, denied.Stat, denied.Auth)
	default:
		c.printf("%s: %v\n", what, err)
	}
	return xdr.Decoder{}, false
}

// end checks that the results were there, and nothing else.
func (c *caller) end(d *xdr.Decoder) {
	if d.Err() != nil || len(d.Rest()) != 0 {
		c.printf("results: %v, %d octets left\n", d.Err(), len(d.Rest()))
	}
}

func newCall(procedure uint32, args []byte) oncrpc.Call {
	return oncrpc.Call{Program: calc, Version: calcNew, Procedure: procedure, Args: args}
}

func (c *caller) evaluate(label string, n int, how int32, value int64, scale *float64, negate bool) {
	tag := []byte("t\x00g\xff!")
	args := xdr.AppendString(nil, label)
	args = xdr.AppendUint32(args, uint32(n))
	for i := range n {
		if i == 0 {
			args = xdr.AppendInt64(xdr.AppendInt32(args, add), 1000)
		} else {
			args = xdr.AppendInt64(xdr.AppendInt32(args, how), value)
		}
	}
	args = xdr.AppendBool(args, scale != nil)
	if scale != nil {
		args = xdr.AppendFloat64(args, *scale)
	}
	args = xdr.AppendFixed(args, tag)
	args = xdr.AppendBool(args, negate)
	d, ok := c.call("evaluate", newCall(procEvaluate, args))
	if !ok {
		return
	}
	switch what := d.Int32(); what {
	case fine:
		number, gotLabel, gotTag := d.Float64(), d.String(maxLabel), d.Fixed(tagSize)
		c.printf("evaluate: %s \"%s\" %d\n", strconv.FormatFloat(number, 'g', 17, 64), gotLabel, one(bytes.Equal(gotTag, tag)))
	case divisionByZero:
		c.printf("evaluate: division by zero in term %d\n", d.Uint32())
	default:
		c.printf("evaluate: verdict %d\n", what)
	}
	c.end(&d)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (c *caller) reverse(n int) {
	items := make([]item, n)
	var args []byte
	for i := range items {
		items[i] = item{uint64(i)<<40 + uint64(i), float32(i) / 2}
		args = appendItem(args, items[i])
	}
	d, ok := c.call("reverse", newCall(procReverse, xdr.AppendBool(args, false)))
	if !ok {
		return
	}
	got := readList(&d)
	count := 0
	for i := range got {
		count += one(i < n && got[i] == items[n-1-i])
	}
	c.printf("reverse: %d of %d, ends at %d\n", count, n, n-1-len(got))
	c.end(&d)
}

func (c *caller) who() {
	d, ok := c.call("who", newCall(procWho, nil))
	if !ok {
		return
	}
	c.printf("who: \"%s\" %d %d", d.String(oncrpc.MaxMachineName), d.Uint32(), d.Uint32())
	for range d.Count(oncrpc.MaxGIDs, xdr.Unit) {
		c.printf(" %d", d.Uint32())
	}
	c.printf("\n")
	c.end(&d)
}

func (c *caller) echo(n int) {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	d, ok := c.call("echo", newCall(procEcho, xdr.AppendOpaque(nil, data)))
	if !ok {
		return
	}
	got := d.Opaque(math.MaxUint32)
	c.printf("echo: %d octets, %d\n", len(got), one(bytes.Equal(got, data)))
	c.end(&d)
}

// plain makes a call whose results don't count.
func (c *caller) plain(what string, call oncrpc.Call) {
	if _, ok := c.call(what, call); ok {
		c.printf("%s: done\n", what)
	}
}

func (c *caller) all(stream bool) {
	half := 0.5
	word := func(v int32) []byte { return xdr.AppendInt32(nil, v) }
	c.plain("null", newCall(0, nil))
	c.evaluate("", 1, add, 0, nil, false)
	c.evaluate("a", 2, add, 9007199254740993, nil, false)
	c.evaluate("abc", 3, subtract, -5, &half, false)
	c.evaluate("abcd", 8, multiply, 1000000007, nil, true)
	c.evaluate("a label of thirty-two octets....", 2, divide, 3, &half, true)
	c.evaluate("zero", 4, divide, 0, nil, false)
	c.evaluate("none", 0, add, 0, nil, false)
	c.evaluate("no such operation", 2, 77, 1, nil, false)
	c.reverse(0)
	c.reverse(1)
	c.reverse(300)
	c.who()
	c.echo(0)
	c.echo(1)
	c.echo(3)
	c.echo(4001)
	if stream {
		c.echo(300001)
	}
	c.plain("system", newCall(procFail, word(failSystem)))
	c.plain("weak", newCall(procFail, word(failWeak)))
	c.plain("garbage", newCall(procFail, word(99)))
	c.plain("cut short", newCall(procEvaluate, word(99)))
	c.plain("no procedure", newCall(77, nil))
	c.plain("no version", oncrpc.Call{Program: calc, Version: 3})
	c.plain("no program", oncrpc.Call{Program: calc + 1, Version: calcNew})
	c.plain("old", oncrpc.Call{Program: calc, Version: calcOld, Procedure: oldVersion})
	c.plain("old without it", oncrpc.Call{Program: calc, Version: calcOld, Procedure: procWho})
}
