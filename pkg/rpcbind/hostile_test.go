package rpcbind_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

func decoder(b []byte) xdr.Decoder { return xdr.NewDecoder(b) }

// serveStream answers each record with what handle returns, and hangs up if that is nil.
func serveStream(t testing.TB, handle func(oncrpc.Call) []byte) (address string) {
	t.Helper()
	return serveRaw(t, func(call oncrpc.Call) []byte {
		reply := handle(call)
		if reply == nil {
			return nil
		}
		out := append(oncrpc.BeginRecord(nil), reply...)
		oncrpc.EndRecord(out, 0)
		return out
	})
}

// serveRaw is serveStream, with the record marks left to handle.
func serveRaw(t testing.TB, handle func(oncrpc.Call) []byte) (address string) {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					var mark [4]byte
					if _, err := io.ReadFull(conn, mark[:]); err != nil {
						return
					}
					record := make([]byte, binary.BigEndian.Uint32(mark[:])&0xffff)
					if _, err := io.ReadFull(conn, record); err != nil {
						return
					}
					call, err := oncrpc.ParseCall(record)
					if err != nil {
						return
					}
					out := handle(call)
					if _, err := conn.Write(out); err != nil || out == nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// servePacket answers each datagram with the datagrams that handle returns.
func servePacket(t testing.TB, handle func(oncrpc.Call) [][]byte) (address string) {
	t.Helper()
	pc := listenPacket(t, "udp", "127.0.0.1:0")
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if call, err := oncrpc.ParseCall(buf[:n]); err == nil {
				for _, reply := range handle(call) {
					pc.WriteTo(reply, from)
				}
			}
		}
	}()
	return pc.LocalAddr().String()
}

// procedures are all questions of a Client, each with a good result.
var procedures = []struct {
	name string
	ask  func(context.Context, *rpcbind.Client) error
}{
	{"NULL", func(ctx context.Context, c *rpcbind.Client) error { return c.Null(ctx, 4) }},
	{"SET", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.Set(ctx, someRPCB); return err }},
	{"UNSET", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.Unset(ctx, someRPCB); return err }},
	{"GETADDR", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.GetAddr(ctx, someRPCB); return err }},
	{"GETVERSADDR", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.GetVersAddr(ctx, someRPCB); return err }},
	{"GETADDRLIST", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.GetAddrList(ctx, someRPCB); return err }},
	{"DUMP", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.Dump(ctx); return err }},
	{"GETTIME", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.GetTime(ctx); return err }},
	{"GETSTAT", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.Stat(ctx); return err }},
	{"UADDR2TADDR", func(ctx context.Context, c *rpcbind.Client) error {
		_, err := c.UAddr2TAddr(ctx, "1.2.3.4.5.6")
		return err
	}},
	{"TADDR2UADDR", func(ctx context.Context, c *rpcbind.Client) error {
		_, err := c.TAddr2UAddr(ctx, rpcbind.TAddr{})
		return err
	}},
	{"SET version 2", func(ctx context.Context, c *rpcbind.Client) error {
		_, err := c.SetMapping(ctx, rpcbind.Mapping{})
		return err
	}},
	{"GETPORT", func(ctx context.Context, c *rpcbind.Client) error {
		_, err := c.GetPort(ctx, rpcbind.Mapping{})
		return err
	}},
	{"DUMP version 2", func(ctx context.Context, c *rpcbind.Client) error { _, err := c.DumpMappings(ctx); return err }},
	{"CALLIT", func(ctx context.Context, c *rpcbind.Client) error {
		_, err := c.CallIt(ctx, rpcbind.RemoteCall{})
		return err
	}},
	{"INDIRECT", func(ctx context.Context, c *rpcbind.Client) error {
		_, err := c.Indirect(ctx, rpcbind.RemoteCall{})
		return err
	}},
}

var someRPCB = rpcbind.RPCB{Program: 100003, Version: 3, Netid: rpcbind.TCP, Addr: "127.0.0.1.8.1", Owner: "0"}

// goodResults is what an honest portmapper answers.
func goodResults(call oncrpc.Call) []byte {
	addr := xdr.AppendString(nil, "127.0.0.1.8.1")
	v2 := call.Version == rpcbind.PMAPVers
	switch call.Procedure {
	case rpcbind.ProcNull:
		return nil
	case rpcbind.ProcSet, rpcbind.ProcUnset:
		return xdr.AppendBool(nil, true)
	case rpcbind.ProcGetAddr:
		if v2 {
			return xdr.AppendUint32(nil, 2049)
		}
		return addr
	case rpcbind.ProcGetVersAddr, rpcbind.ProcTAddr2UAddr:
		return addr
	case rpcbind.ProcDump:
		if v2 {
			return xdr.AppendBool(rpcbind.AppendMappingElement(nil, rpcbind.Mapping{Program: 1, Version: 2, Prot: 6, Port: 3}), false)
		}
		return xdr.AppendBool(rpcbind.AppendRPCBElement(rpcbind.AppendRPCBElement(nil, someRPCB), someRPCB), false)
	case rpcbind.ProcCallIt, rpcbind.ProcIndirect:
		if v2 {
			return xdr.AppendString(xdr.AppendUint32(nil, 2049), "results")
		}
		return xdr.AppendString(addr, "results")
	case rpcbind.ProcGetTime:
		return xdr.AppendUint32(nil, 1000)
	case rpcbind.ProcUAddr2TAddr:
		return xdr.AppendString(xdr.AppendUint32(nil, 16), "0123456789abcdef")
	case rpcbind.ProcGetAddrList:
		tcp, _ := rpcbind.TCP.Transport()
		return xdr.AppendBool(rpcbind.AppendEntryElement(nil, rpcbind.Entry{Addr: "127.0.0.1.8.1", Transport: tcp}), false)
	}
	return rpcbind.AppendStats(nil, someStats())
}

func someStats() *rpcbind.Stats {
	s := &rpcbind.Stats{}
	s[2].Lookups = []rpcbind.LookupStats{{Program: 1, Version: 2, Success: 3, Failure: 4, Netid: rpcbind.TCP}}
	s[1].Remote = []rpcbind.RemoteStats{{Program: 1, Version: 2, Procedure: 3, Success: 4, Failure: 5, Indirect: 6, Netid: rpcbind.UDP}}
	return s
}

func goodReply(call oncrpc.Call) []byte {
	return append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), goodResults(call)...)
}

// dialHostile opens a connection that is closed with the test. It takes replies of 4 MiB at most, so that a server soon has
// sent more.
func dialHostile(t testing.TB, network, address string) *rpcbind.Client {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(limited(t), network, address)
	if err != nil {
		t.Fatal(err)
	}
	c := rpcbind.NewClient(conn, oncrpc.ClientConfig{MaxReply: 4 << 20})
	t.Cleanup(func() { c.Close() })
	return c
}

// checkError holds an error to what Error promises.
func checkError(t *testing.T, what string, err error) {
	t.Helper()
	var e *rpcbind.Error
	if err != nil && (!errors.As(err, &e) || e.Op == "" || e.Addr == "" || strings.ContainsAny(err.Error(), "\n\x00")) {
		t.Errorf("%s: %q isn't an *Error of one line that tells what was asked of whom", what, err)
	}
}

// The good results are good, over both kinds of transport: else the tests below would show nothing.
func TestHonestServer(t *testing.T) {
	udp := dialHostile(t, "udp", servePacket(t, func(call oncrpc.Call) [][]byte { return [][]byte{goodReply(call)} }))
	tcp := dialHostile(t, "tcp", serveStream(t, goodReply))
	for _, p := range procedures {
		if err := p.ask(limited(t), udp); err != nil {
			t.Errorf("%s over udp: %v", p.name, err)
		}
		if err := p.ask(limited(t), tcp); err != nil && !errors.Is(err, rpcbind.ErrNeedsUDP) {
			t.Errorf("%s over tcp: %v", p.name, err)
		}
	}
}

// Each octet of each reply behind the xid, changed in every way that matters: a result or an error, and the next call on
// the same connection is answered as it should.
func TestHostileOctets(t *testing.T) {
	mutation := make(chan func([]byte) []byte, 1)
	handle := func(call oncrpc.Call) []byte {
		reply := goodReply(call)
		select {
		case m := <-mutation:
			return m(reply)
		default:
			return reply
		}
	}
	clients := []*rpcbind.Client{
		dialHostile(t, "udp", servePacket(t, func(call oncrpc.Call) [][]byte { return [][]byte{handle(call)} })),
		dialHostile(t, "tcp", serveStream(t, handle)),
	}
	ctx := limited(t)
	for _, p := range procedures {
		var size atomic.Int64
		mutation <- func(reply []byte) []byte { size.Store(int64(len(reply))); return reply }
		if err := p.ask(ctx, clients[0]); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		for _, c := range clients {
			if _, stream := c.RemoteAddr().(*net.TCPAddr); stream && (p.name == "CALLIT" || p.name == "INDIRECT") {
				continue
			}
			for i := 4; i < int(size.Load()); i++ {
				for _, value := range []byte{0, 1, 2, 4, 0x7f, 0x80, 0xff} {
					mutation <- func(reply []byte) []byte {
						if i < len(reply) {
							reply[i] = value
						}
						return reply
					}
					checkError(t, p.name, p.ask(ctx, c))
				}
			}
			if err := p.ask(ctx, c); err != nil {
				t.Errorf("%s, after the bad replies: %v", p.name, err)
			}
		}
	}
}

// Each reply cut off at each octet is an error, except behind the results of NULL.
func TestHostileTruncation(t *testing.T) {
	var size, cut atomic.Int64
	c := dialHostile(t, "tcp", serveStream(t, func(call oncrpc.Call) []byte {
		reply := goodReply(call)
		size.Store(int64(len(reply)))
		return reply[:min(len(reply), int(cut.Load()))]
	}))
	ctx := limited(t)
	for _, p := range procedures {
		if p.name == "CALLIT" || p.name == "INDIRECT" {
			continue
		}
		cut.Store(1 << 20)
		if err := p.ask(ctx, c); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		for n := int64(4); n < size.Load(); n++ { // without its xid it would be nobody's reply
			cut.Store(n)
			err := p.ask(ctx, c)
			if err == nil {
				t.Errorf("%s: cut off at %d of %d octets: no error", p.name, n, size.Load())
			}
			checkError(t, p.name, err)
		}
	}
}

// Late replies to earlier calls, duplicates and replies with another xid are passed over.
func TestHostileLateAndDuplicated(t *testing.T) {
	var last atomic.Pointer[[]byte]
	replies := func(call oncrpc.Call) [][]byte {
		other := call
		other.XID ^= 0xffffffff
		wrong := oncrpc.AppendAccepted(nil, other.XID, oncrpc.SystemErr)
		good := goodReply(call)
		all := [][]byte{wrong, good, good, {}, {1, 2}}
		late := oncrpc.AppendAccepted(nil, call.XID, oncrpc.SystemErr)
		if before := last.Swap(&late); before != nil {
			all = append([][]byte{*before}, all...)
		}
		return all
	}
	udp := dialHostile(t, "udp", servePacket(t, replies))
	for range 3 {
		for _, p := range procedures {
			if err := p.ask(limited(t), udp); err != nil {
				t.Errorf("%s over udp: %v", p.name, err)
			}
		}
	}
	tcp := dialHostile(t, "tcp", serveRaw(t, func(call oncrpc.Call) (out []byte) {
		for _, r := range replies(call) {
			if len(r) == 0 {
				continue
			}
			start := len(out)
			out = append(oncrpc.BeginRecord(out), r...)
			oncrpc.EndRecord(out, start)
		}
		return out
	}))
	for range 3 {
		for _, p := range procedures {
			if err := p.ask(limited(t), tcp); err != nil && !errors.Is(err, rpcbind.ErrNeedsUDP) {
				t.Errorf("%s over tcp: %v", p.name, err)
			}
		}
	}
}

// A reply from another address than the one asked isn't taken, though it has the right xid.
func TestHostileOtherAddress(t *testing.T) {
	elsewhere := listenPacket(t, "udp", "127.0.0.2:0")
	there := listenPacket(t, "udp", "127.0.0.1:0")
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := there.ReadFrom(buf)
			if err != nil {
				return
			}
			call, err := oncrpc.ParseCall(buf[:n])
			if err != nil {
				continue
			}
			elsewhere.WriteTo(oncrpc.AppendAccepted(nil, call.XID, oncrpc.SystemErr), from)
			there.WriteTo(goodReply(call), from)
		}
	}()
	c := dialHostile(t, "udp", there.LocalAddr().String())
	for _, p := range procedures {
		if err := p.ask(limited(t), c); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
}

// Announced lengths allocate nothing, and endless replies end at the limit.
func TestHostileSizes(t *testing.T) {
	endless := func(element []byte) func(oncrpc.Call) []byte {
		return func(call oncrpc.Call) []byte {
			b := oncrpc.AppendAccepted(oncrpc.BeginRecord(nil), call.XID, oncrpc.Success)
			for len(b)+len(element) < 5<<20 {
				b = append(b, element...)
			}
			oncrpc.EndRecord(b, 0)
			return b
		}
	}
	marks := func(mark string) func(oncrpc.Call) []byte {
		return func(oncrpc.Call) []byte { return []byte(mark + "abcd") }
	}
	announced := func(call oncrpc.Call) []byte {
		b := oncrpc.AppendAccepted(oncrpc.BeginRecord(nil), call.XID, oncrpc.Success)
		b = append(b, "\x00\x00\x00\x01\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff"...)
		oncrpc.EndRecord(b, 0)
		return b
	}
	for name, handle := range map[string]func(oncrpc.Call) []byte{
		"an endless list":      endless(rpcbind.AppendRPCBElement(nil, rpcbind.RPCB{})),
		"an endless string":    endless([]byte("\x7f\xff\xff\xff")),
		"a record of 2 GiB":    marks("\xff\xff\xff\xff"),
		"fragments of nothing": marks("\x00\x00\x00\x00"),
		"announced lengths":    announced,
		"hanging up":           func(oncrpc.Call) []byte { return nil },
	} {
		address := serveRaw(t, handle)
		for _, p := range procedures {
			if p.name == "CALLIT" || p.name == "INDIRECT" || p.name == "NULL" {
				continue
			}
			c := dialHostile(t, "tcp", address)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := p.ask(limited(t), c)
			runtime.ReadMemStats(&after)
			if err == nil && name != "announced lengths" {
				t.Errorf("%s, %s: no error", p.name, name)
			}
			checkError(t, p.name+", "+name, err)
			// The server's own 5 MiB, and what it copied to get there, are in the sum.
			if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
				t.Errorf("%s, %s: %d MiB were allocated", p.name, name, used>>20)
			}
			c.Close()
		}
	}
}

// TestCVE_2026_85977 sends the largest lists that fit below the limit: memory in proportion. Libtirpc decoded lists without a bound.
func TestCVE_2026_85977(t *testing.T) {
	const most = 4<<20 - 64
	fill := func(call oncrpc.Call, prefix, element []byte) []byte {
		b := append(oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success), prefix...)
		for len(b)+len(element)+300 < most {
			b = append(b, element...)
		}
		return append(b, make([]byte, 4)...)
	}
	c := dialHostile(t, "tcp", serveStream(t, func(call oncrpc.Call) []byte {
		switch call.Procedure {
		case rpcbind.ProcGetAddrList:
			return fill(call, nil, rpcbind.AppendEntryElement(nil, rpcbind.Entry{}))
		case rpcbind.ProcGetStat:
			element := append([]byte{0, 0, 0, 1}, make([]byte, 20)...)
			b := fill(call, make([]byte, 15*4), element)
			return append(b, make([]byte, 4+2*17*4)...) // the first version's list of remote calls, and the others
		}
		if call.Version == rpcbind.PMAPVers {
			return fill(call, nil, rpcbind.AppendMappingElement(nil, rpcbind.Mapping{}))
		}
		return fill(call, nil, rpcbind.AppendRPCBElement(nil, rpcbind.RPCB{}))
	}))
	ctx := limited(t)
	for name, ask := range map[string]func() (int, error){
		"DUMP":           func() (int, error) { l, err := c.Dump(ctx); return len(l), err },
		"DUMP version 2": func() (int, error) { l, err := c.DumpMappings(ctx); return len(l), err },
		"GETADDRLIST":    func() (int, error) { l, err := c.GetAddrList(ctx, someRPCB); return len(l), err },
		"GETSTAT": func() (int, error) {
			s, err := c.Stat(ctx)
			if err != nil {
				return 0, err
			}
			return len(s.Of(2).Lookups), nil
		},
	} {
		n, err := ask()
		if err != nil || n < most/40 {
			t.Errorf("%s: %d elements, %v", name, n, err)
		}
	}
}

// A portmapper that never answers costs no more than the context allows, and nothing stays behind.
func TestHostileSilence(t *testing.T) {
	addresses := map[string]string{
		"udp": servePacket(t, func(oncrpc.Call) [][]byte { return nil }),
		"tcp": serveRaw(t, func(oncrpc.Call) []byte { return []byte{} }),
	}
	for network, address := range addresses {
		c := dialHostile(t, network, address)
		for _, p := range procedures {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			err := p.ask(ctx, c)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, rpcbind.ErrNeedsUDP) {
				t.Errorf("%s over %s: %v", p.name, network, err)
			}
			checkError(t, p.name, err)
		}
		c.Close()
	}
}

// FuzzReplies takes a reply of any octets for every procedure: no panic, and errors that are Errors.
func FuzzReplies(f *testing.F) {
	for i := range procedures {
		for proc := range uint32(13) {
			f.Add(i, goodReply(oncrpc.Call{Procedure: proc, Version: 4})[4:])
		}
	}
	var reply atomic.Pointer[[]byte]
	address := servePacket(f, func(call oncrpc.Call) [][]byte {
		return [][]byte{append(binary.BigEndian.AppendUint32(nil, call.XID), *reply.Load()...)}
	})
	c := dialHostile(f, "udp", address)
	f.Fuzz(func(t *testing.T, i int, in []byte) {
		if i < 0 || i >= len(procedures) || len(in) > 60000 {
			return
		}
		reply.Store(&in)
		checkError(t, procedures[i].name, procedures[i].ask(limited(t), c))
	})
}

func FuzzReadStats(f *testing.F) {
	addGolden(f, rpcbind.RPCBVers4, rpcbind.ProcGetStat)
	f.Add(rpcbind.AppendStats(nil, someStats()))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := xdr.NewDecoder(in)
		s := rpcbind.ReadStats(&d, 9000)
		out := rpcbind.AppendStats(nil, s)
		if d.Err() == nil && len(out) != len(in)-len(d.Rest()) {
			t.Errorf("%d octets are written again as %d", len(in)-len(d.Rest()), len(out))
		}
	})
}
