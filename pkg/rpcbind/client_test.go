package rpcbind

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// fakePortmapper answers every call with what handle returns, and says nothing if that is nil.
func fakePortmapper(t testing.TB, network string, handle func(oncrpc.Call) []byte) (address string) {
	t.Helper()
	answer := func(b []byte) []byte {
		call, err := oncrpc.ParseCall(b)
		if err != nil {
			t.Errorf("the client sent % x", b)
			return nil
		}
		return handle(call)
	}
	done := make(chan struct{})
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(); <-done })
		go func() {
			defer close(done)
			buf := make([]byte, 65535)
			for {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				if reply := answer(buf[:n]); reply != nil {
					conn.WriteTo(reply, from)
				}
			}
		}()
		return conn.LocalAddr().String()
	}
	address = "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serveRecords(conn, answer)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func serveRecords(conn net.Conn, answer func([]byte) []byte) {
	r := oncrpc.RecordReader{Limit: 9000}
	buf := make([]byte, 9000)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		r.Feed(buf[:n])
		for record, ok, _ := r.Next(); ok; record, ok, _ = r.Next() {
			reply := answer(record)
			if reply == nil {
				return
			}
			conn.Write(binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(reply))))
			conn.Write(reply)
		}
	}
}

func success(call oncrpc.Call, results []byte) []byte {
	return append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), results...)
}

func dial(t testing.TB, network, address string) *Client {
	t.Helper()
	c, err := DialPortmapper(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var (
	asked   = RPCB{Program: 100003, Version: 3, Netid: TCP, Addr: "127.0.0.1.0.111", Owner: "0"}
	mapping = Mapping{Program: 100003, Version: 3, Prot: ProtTCP, Port: 2049}
	entry   = Entry{Addr: "127.0.0.1.8.1", Transport: transports[1]}
)

// Every method: the call that it sends and what it makes of the results.
func TestClientMethods(t *testing.T) {
	ctx := t.Context()
	rpcb, mapped := AppendRPCB(nil, asked), AppendMapping(nil, mapping)
	uaddr := xdr.AppendString(nil, "127.0.0.1.8.1")
	yes, no := xdr.AppendBool(nil, true), xdr.AppendBool(nil, false)
	tests := []struct {
		name       string
		do         func(*Client) (any, error)
		vers, proc uint32
		args       []byte
		results    []byte
		want       any
	}{
		{"Null", func(c *Client) (any, error) { return nil, c.Null(ctx, 3) }, 3, 0, nil, nil, nil},
		{"Set", func(c *Client) (any, error) { return c.Set(ctx, asked) }, 4, 1, rpcb, yes, true},
		{"Set refused", func(c *Client) (any, error) { return c.Set(ctx, asked) }, 4, 1, rpcb, no, false},
		{"Unset", func(c *Client) (any, error) { return c.Unset(ctx, asked) }, 4, 2, rpcb, yes, true},
		{"GetAddr", func(c *Client) (any, error) { return c.GetAddr(ctx, asked) }, 4, 3, rpcb, uaddr, "127.0.0.1.8.1"},
		{"GetAddr of nothing", func(c *Client) (any, error) { return c.GetAddr(ctx, asked) }, 4, 3, rpcb, no, ""},
		{"GetVersAddr", func(c *Client) (any, error) { return c.GetVersAddr(ctx, asked) }, 4, 9, rpcb, uaddr, "127.0.0.1.8.1"},
		{"GetAddrList", func(c *Client) (any, error) { return c.GetAddrList(ctx, asked) }, 4, 11, rpcb,
			xdr.AppendBool(AppendEntryElement(nil, entry), false), []Entry{entry}},
		{"GetTime", func(c *Client) (any, error) { return c.GetTime(ctx) }, 4, 6, nil,
			xdr.AppendUint32(nil, 0xffffffff), time.Unix(0xffffffff, 0)},
		{"Dump", func(c *Client) (any, error) { return c.Dump(ctx) }, 4, 4, nil,
			xdr.AppendBool(AppendRPCBElement(nil, asked), false), []RPCB{asked}},
		{"Dump of nothing", func(c *Client) (any, error) { return c.Dump(ctx) }, 4, 4, nil, no, []RPCB(nil)},
		{"SetMapping", func(c *Client) (any, error) { return c.SetMapping(ctx, mapping) }, 2, 1, mapped, yes, true},
		{"UnsetMapping", func(c *Client) (any, error) { return c.UnsetMapping(ctx, mapping) }, 2, 2, mapped, no, false},
		{"GetPort", func(c *Client) (any, error) { return c.GetPort(ctx, mapping) }, 2, 3, mapped,
			xdr.AppendUint32(nil, 70000), uint32(70000)},
		{"DumpMappings", func(c *Client) (any, error) { return c.DumpMappings(ctx) }, 2, 4, nil,
			xdr.AppendBool(AppendMappingElement(nil, mapping), false), []Mapping{mapping}},
	}
	for _, network := range []string{"udp", "tcp", "unix"} {
		for _, tt := range tests {
			sent := make(chan oncrpc.Call, 1)
			c := dial(t, network, fakePortmapper(t, network, func(call oncrpc.Call) []byte {
				call.Args = append([]byte(nil), call.Args...)
				sent <- call
				return success(call, tt.results)
			}))
			got, err := tt.do(c)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s over %s: %v, %v; want %v", tt.name, network, got, err, tt.want)
			}
			call := <-sent
			if call.Program != Program || call.Version != tt.vers || call.Procedure != tt.proc || string(call.Args) != string(tt.args) {
				t.Errorf("%s over %s: sent %+v", tt.name, network, call)
			}
			c.Close()
		}
	}
}

// record keeps what a portmapper was asked.
type record struct {
	mu   sync.Mutex
	list []uint32
}

func (r *record) add(v uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, v)
}

func (r *record) all() []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// anOldPortmapper refuses versions above its newest in the way given, and answers as version 2 or 3 would.
func anOldPortmapper(newest uint32, how oncrpc.AcceptStat, versions *record) func(oncrpc.Call) []byte {
	return func(call oncrpc.Call) []byte {
		versions.add(call.Version)
		switch {
		case call.Version > newest && how == oncrpc.ProgMismatch:
			return oncrpc.AppendProgMismatch(nil, call.XID, 2, newest)
		case call.Version > newest:
			return oncrpc.AppendAccepted(nil, call.XID, how)
		}
		switch call.Procedure {
		case ProcSet, ProcUnset:
			return success(call, xdr.AppendBool(nil, true))
		case ProcGetPort: // GETADDR of version 3
			if call.Version == RPCBVers3 {
				return success(call, xdr.AppendString(nil, "10.0.0.5.8.1"))
			}
			return success(call, xdr.AppendUint32(nil, 2049))
		case ProcDump:
			if call.Version == RPCBVers3 {
				return success(call, xdr.AppendBool(AppendRPCBElement(nil, asked), false))
			}
			odd := AppendMappingElement(AppendMappingElement(nil, Mapping{1, 1, 99, 1}), Mapping{1, 1, ProtTCP, 65536})
			return success(call, xdr.AppendBool(AppendMappingElement(odd, mapping), false))
		}
		return success(call, xdr.AppendUint32(nil, 1000))
	}
}

// Where a version is missing, an older one is asked the same, however the portmapper says that it doesn't know the newer.
func TestClientStepsDown(t *testing.T) {
	ctx := t.Context()
	v2 := RPCB{Program: 100003, Version: 3, Netid: TCP, Addr: "0.0.0.0.8.1"}
	set := func(c *Client) (any, error) { return c.Set(ctx, asked) }
	unset := func(c *Client) (any, error) { return c.Unset(ctx, asked) }
	unsetAll := func(c *Client) (any, error) { return c.Unset(ctx, RPCB{Program: 100003, Version: 3}) }
	getAddr := func(c *Client) (any, error) { return c.GetAddr(ctx, asked) }
	dump := func(c *Client) (any, error) { return c.Dump(ctx) }
	getTime := func(c *Client) (any, error) { return c.GetTime(ctx) }
	tests := []struct {
		name   string
		do     func(*Client) (any, error)
		newest uint32
		want   any
		err    error
		asked  []uint32
	}{
		{"Set", set, 3, true, nil, []uint32{4, 3}},
		{"Set", set, 2, true, nil, []uint32{4, 3, 2}},
		{"Set of IPv6", func(c *Client) (any, error) {
			return c.Set(ctx, RPCB{Program: 1, Version: 1, Netid: TCP6, Addr: "::.8.1"})
		}, 2, false, ErrNotVersion2, []uint32{4, 3}},
		{"Unset", unset, 3, true, nil, []uint32{4, 3}},
		{"Unset", unset, 2, false, ErrNotVersion2, []uint32{4, 3}},
		{"Unset all", unsetAll, 2, true, nil, []uint32{4, 3, 2}},
		{"GetAddr", getAddr, 3, "10.0.0.5.8.1", nil, []uint32{4, 3}},
		{"GetAddr", getAddr, 2, "127.0.0.1.8.1", nil, []uint32{4, 3, 2}},
		{"Dump", dump, 3, []RPCB{asked}, nil, []uint32{4, 3}},
		{"Dump", dump, 2, []RPCB{v2}, nil, []uint32{4, 3, 2}},
		{"GetTime", getTime, 3, time.Unix(1000, 0), nil, []uint32{4, 3}},
	}
	for _, how := range []oncrpc.AcceptStat{oncrpc.ProgMismatch, oncrpc.ProgUnavail, oncrpc.ProcUnavail, oncrpc.GarbageArgs} {
		for _, network := range []string{"tcp", "udp"} {
			for _, tt := range tests {
				var versions record
				c := dial(t, network, fakePortmapper(t, network, anOldPortmapper(tt.newest, how, &versions)))
				got, err := tt.do(c)
				if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%s over %s, newest %d, %v: %v, %v; want %v, %v", tt.name, network, tt.newest, how, got, err, tt.want, tt.err)
				}
				c.Close()
				if !reflect.DeepEqual(versions.all(), tt.asked) {
					t.Errorf("%s over %s, newest %d, %v: asked versions %v, want %v", tt.name, network, tt.newest, how, versions.all(), tt.asked)
				}
			}
		}
	}
}

// Any other refusal is an answer: there is no use in asking again.
func TestClientStepsDownNoFurther(t *testing.T) {
	var versions record
	old := dial(t, "tcp", fakePortmapper(t, "tcp", anOldPortmapper(2, oncrpc.SystemErr, &versions)))
	if _, err := old.Dump(t.Context()); err == nil || len(versions.all()) != 1 {
		t.Errorf("%v after versions %v, want an error after one", err, versions.all())
	}
	var asks record
	c := dial(t, "tcp", fakePortmapper(t, "tcp", func(call oncrpc.Call) []byte {
		asks.add(call.Version)
		return oncrpc.AppendAuthError(nil, call.XID, oncrpc.AuthTooWeak)
	}))
	var denied *oncrpc.DeniedError
	if _, err := c.Set(t.Context(), asked); !errors.As(err, &denied) || len(asks.all()) != 1 {
		t.Errorf("%v after %d calls, want AUTH_TOOWEAK after one", err, len(asks.all()))
	}
}

// What no version can do is told with the version asked last.
func TestClientOldPortmapper(t *testing.T) {
	c := dial(t, "tcp", fakePortmapper(t, "tcp", func(call oncrpc.Call) []byte {
		return oncrpc.AppendProgMismatch(nil, call.XID, 5, 6)
	}))
	_, err := c.GetAddr(t.Context(), asked)
	var e *Error
	if !errors.As(err, &e) || e.Version != 2 || e.Op != "GETPORT" || e.About != asked {
		t.Errorf("%v, want an error of version 2", err)
	}
}

// A port that is none doesn't become another port.
func TestGetAddrBadPort(t *testing.T) {
	c := dial(t, "tcp", fakePortmapper(t, "tcp", func(call oncrpc.Call) []byte {
		if call.Version != PMAPVers {
			return oncrpc.AppendProgMismatch(nil, call.XID, 2, 2)
		}
		return success(call, xdr.AppendUint32(nil, 65536+2049))
	}))
	if addr, err := c.GetAddr(t.Context(), asked); addr != "" || !errors.Is(err, ErrBadPort) {
		t.Errorf("%q, %v; want %v", addr, err, ErrBadPort)
	}
}

func TestClientErrors(t *testing.T) {
	ctx := t.Context()
	reply := func(r func(xid uint32) []byte) func(oncrpc.Call) []byte {
		return func(call oncrpc.Call) []byte { return r(call.XID) }
	}
	results := func(octets ...byte) func(oncrpc.Call) []byte {
		return func(call oncrpc.Call) []byte { return success(call, octets) }
	}
	set := func(c *Client) error { _, err := c.Set(ctx, asked); return err }
	dump := func(c *Client) error { _, err := c.Dump(ctx); return err }
	tests := []struct {
		name   string
		handle func(oncrpc.Call) []byte
		do     func(*Client) error
		want   error // by errors.Is
		text   string
	}{
		{"denied", reply(func(xid uint32) []byte { return oncrpc.AppendAuthError(nil, xid, oncrpc.AuthTooWeak) }), set, nil,
			"SET version 4 to tcp @@ for program 100003 version 3 netid tcp: call denied, AUTH_TOOWEAK: the server doesn't allow this from here"},
		{"no such program", reply(func(xid uint32) []byte { return oncrpc.AppendAccepted(nil, xid, oncrpc.ProgUnavail) }), dump, nil,
			"DUMP version 2 to tcp @@: PROG_UNAVAIL: the server doesn't have this program"},
		{"bool of 7", results(0, 0, 0, 7), set, xdr.ErrBadBool, "SET version 4 to tcp @@ for program 100003 version 3 netid tcp: xdr: boolean"},
		{"no bool", results(), set, xdr.ErrTruncated, "SET version 4"},
		{"endless list", results(0, 0, 0, 1), dump, xdr.ErrTruncated, "DUMP version 4"},
		{"string of 2^31-1", results(0x7f, 0xff, 0xff, 0xff), func(c *Client) error { _, err := c.GetAddr(ctx, asked); return err },
			xdr.ErrTooLong, "GETADDR version 4"},
		{"entry of 2^32-1", results(0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), func(c *Client) error {
			list, err := c.GetAddrList(ctx, asked)
			if list != nil {
				t.Errorf("GETADDRLIST: %v beside the error", list)
			}
			return err
		}, xdr.ErrTooLong, "GETADDRLIST version 4"},
		{"mappings cut short", results(0, 0, 0, 1, 0, 0, 0, 0), func(c *Client) error { _, err := c.DumpMappings(ctx); return err },
			xdr.ErrTruncated, "DUMP version 2"},
		{"no time", results(0, 0), func(c *Client) error { _, err := c.GetTime(ctx); return err }, xdr.ErrTruncated, "GETTIME version 4"},
		{"no port", results(0, 0, 8), func(c *Client) error { _, err := c.GetPort(ctx, mapping); return err },
			xdr.ErrTruncated, "GETPORT version 2"},
		{"not a reply", func(call oncrpc.Call) []byte { return oncrpc.AppendCall(nil, call) },
			func(c *Client) error { return c.Null(ctx, 2) }, oncrpc.ErrNotAReply, "NULL version 2"},
		{"hangs up", func(oncrpc.Call) []byte { return nil }, set, io.ErrUnexpectedEOF, "SET version 4 to tcp @@ for program 100003 version 3 netid tcp: unexpected EOF"},
	}
	for _, tt := range tests {
		address := fakePortmapper(t, "tcp", tt.handle)
		c := dial(t, "tcp", address)
		err := tt.do(c)
		var e *Error
		if !errors.As(err, &e) || e.Network != "tcp" || e.Addr != address {
			t.Errorf("%s: %v, want an *Error with the portmapper's address", tt.name, err)
			continue
		}
		if tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want one that is %v", tt.name, err, tt.want)
		}
		if want := "rpcbind: " + strings.ReplaceAll(tt.text, "@@", address); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %q, want %q", tt.name, err, want)
		}
		c.Close()
	}
}

func TestClientDeadline(t *testing.T) {
	c := dial(t, "udp", fakePortmapper(t, "udp", func(oncrpc.Call) []byte { return nil }))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := c.Dump(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want one that is %v", err, context.DeadlineExceeded)
	}
}

func TestDialErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		ctx              context.Context
		network, address string
		want             error
		text             string
	}{
		{t.Context(), "tcp", gone, syscall.ECONNREFUSED, "rpcbind: dial to tcp " + gone + ": "},
		{cancelled, "tcp", gone, context.Canceled, "rpcbind: dial to tcp " + gone + ": "},
		{t.Context(), "unix", "/nonexistent/sock", syscall.ENOENT, "rpcbind: dial to unix /nonexistent/sock: "},
		{t.Context(), "unix", "@gportmap test, nobody is here", syscall.ECONNREFUSED, "rpcbind: dial to unix @gportmap"},
		{t.Context(), "udp", "", errNoAddress, "rpcbind: dial to udp : no address given"},
		{t.Context(), "quic", "localhost", net.UnknownNetworkError("quic"), "rpcbind: dial to quic localhost:111: "},
		{t.Context(), "tcp", "a:b:c", nil, "rpcbind: dial to tcp a:b:c: address a:b:c: too many colons"},
	}
	for _, tt := range tests {
		c, err := DialPortmapper(tt.ctx, tt.network, tt.address)
		var e *Error
		if c != nil || !errors.As(err, &e) || e.Op != "dial" || !strings.HasPrefix(err.Error(), tt.text) {
			t.Errorf("%s %s: %v, want %q", tt.network, tt.address, err, tt.text)
		}
		if tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s %s: %v, want one that is %v", tt.network, tt.address, err, tt.want)
		}
	}
}

func TestWithPort(t *testing.T) {
	for in, want := range map[string]string{
		"nfs.example":       "nfs.example:111",
		"nfs.example:":      "nfs.example:111",
		"nfs.example:1111":  "nfs.example:1111",
		"10.0.0.5":          "10.0.0.5:111",
		"10.0.0.5:sunrpc":   "10.0.0.5:sunrpc",
		"::1":               "[::1]:111",
		"[::1]":             "[::1]:111",
		"[::1]:":            "[::1]:111",
		"[::1]:1111":        "[::1]:1111",
		"fe80::1%lo":        "[fe80::1%lo]:111",
		"[fe80::1%lo]:1111": "[fe80::1%lo]:1111",
	} {
		if got, err := withPort("tcp", in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{SocketPath, SocketAbstract} {
		if got, err := withPort("unix", in); err != nil || got != in {
			t.Errorf("%q: %q, %v; want it as it is", in, got, err)
		}
	}
}

func TestClientAbstractSocket(t *testing.T) {
	name := "@gportmap-test-" + strconv.FormatUint(rand.Uint64(), 16)
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := dial(t, "unix", name).rpc.RemoteAddr().String(); got != name {
		t.Errorf("connected to %q, want %q", got, name)
	}
}
