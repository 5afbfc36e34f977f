package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// TestCVE_2026_16277: a long entry of GETADDRLIST overflowed a buffer on rpcinfo's stack in -l. Here it is printed whole,
// and what could drive the terminal escaped.
func TestCVE_2026_16277(t *testing.T) {
	long := strings.Repeat("A", 8000)
	w := testWorld(t)
	tr := rpcbind.Transport{Netid: "tcp", Semantics: math.MaxUint32, Family: long, Proto: "\x1b[2J"}
	list := rpcbind.AppendEntryElement(nil, rpcbind.Entry{Addr: long + "\x00", Transport: tr})
	portmapper(t, &w, map[uint32]oncrpc.Procedures{4: {rpcbind.ProcGetAddrList: answering(xdr.AppendBool(list, false))}})
	expect(t, w, "-l 127.0.0.1 5 1", said{stdout: "   program vers  tp_family/name/class    address\t\t  service\n" +
		"         5  1    " + long + `/\x1b[2J/cots_ord ` + long + `\x00 ` + "-            \n"})
}

// TestCVE_2026_16461: versions of a program that together are longer than a buffer on rpcinfo's stack overflowed it in -s, and
// netids were cut at 255 octets.
func TestCVE_2026_16461(t *testing.T) {
	w := testWorld(t)
	var list []rpcbind.RPCB
	var versions, netids []string
	for i := range uint32(1000) {
		netid := fmt.Sprintf("netid%d", i%100)
		versions = append([]string{fmt.Sprint(i)}, versions...)
		if i < 100 {
			netids = append([]string{netid}, netids...)
		}
		list = append(list, rpcbind.RPCB{Program: 5, Version: i, Netid: rpcbind.Netid(netid), Addr: "x", Owner: "\u009b31m"})
	}
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: dumped(list...)})
	expect(t, w, "-s 127.0.0.1", said{stdout: "   program version(s) netid(s)                         service     owner\n" +
		"         5  " + strings.Join(versions, ",") + strings.Join(netids, ",") + ` -           \u009b31m` + "\n"})
}

// A string or a list that is longer than what came, or than what a portmapper may send, is an error.
func TestBoundedDecoding(t *testing.T) {
	tooLong := rpcbind.AppendRPCBElement(nil, rpcbind.RPCB{Netid: rpcbind.Netid(strings.Repeat("n", maxString+1))})
	huge := xdr.AppendUint32(xdr.AppendUint32(xdr.AppendUint32(xdr.AppendBool(nil, true), 1), 2), math.MaxInt32)
	for reply, want := range map[string]string{
		string(tooLong): "item is longer than its maximum",
		string(huge):    "item is longer than its maximum",
		"\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x00\x01\x00\x00\x00\x03ud": "input ends before the item does",
		"\x00\x00\x00\x07": "boolean is neither 0 nor 1",
		"":                 "input ends before the item does",
	} {
		w := testWorld(t)
		portmapper(t, &w, map[uint32]oncrpc.Procedures{3: {rpcbind.ProcDump: answering([]byte(reply))}})
		const line = "rpcinfo: can't contact rpcbind: : RPC: Can't decode result"
		expect(t, w, "", said{stderr: line + "\n", code: 1})
		w.terminal = true
		expect(t, w, "", said{stderr: line + "\n(" + want + ")\n", code: 1})
		expect(t, w, "--json", said{stdout: `{"error":"` + line + ` (` + want + `)"}` + "\n", code: 1})
	}
}

// An endless reply ends at the limit for replies, and memory stays near it.
func TestEndlessReply(t *testing.T) {
	w := testWorld(t)
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		element := rpcbind.AppendRPCBElement(nil, rpcbind.RPCB{Netid: "tcp"})
		fragment := append(make([]byte, 4), bytes.Repeat(element, 1000)...)
		binary.BigEndian.PutUint32(fragment, uint32(len(fragment)-4)) // never the last
		for err == nil {
			_, err = conn.Write(fragment)
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.terminal = true
	expect(t, w, "-s", said{stderr: "rpcinfo: can't contact rpcbind: : RPC: Can't decode result\n(record is longer than the limit)\n", code: 1})
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8*rpcbind.DefaultMaxReply {
		t.Errorf("%d octets were allocated", grown)
	}
}

// A long reply, of versions that all differ: every mode is through with it long before a minute.
func TestLongestLists(t *testing.T) {
	w := testWorld(t)
	var list []byte
	for i := uint32(0); len(list) < oncrpc.DefaultMaxReply-100; i++ {
		list = rpcbind.AppendRPCBElement(list, rpcbind.RPCB{Program: 5, Version: i, Netid: rpcbind.Netid(fmt.Sprint(i))})
	}
	portmapper(t, &w, map[uint32]oncrpc.Procedures{3: {rpcbind.ProcDump: answering(xdr.AppendBool(list, false))}})
	for _, arguments := range []string{"", "-s", "--json", "--json -s", "--watch --count 2 --interval 10ms"} {
		if got := runIn(t, w, arguments); got.code != 0 || len(got.stdout) < 1<<20 {
			t.Errorf("rpcinfo %s: exit %d, %d octets\n%s", arguments, got.code, len(got.stdout), got.stderr)
		}
	}
}

// A server that says it has all versions is not called four billion times, and one with none isn't believed.
func TestHostileVersions(t *testing.T) {
	for _, c := range []struct {
		low, high uint32
		called    int
		want      string
	}{
		{0, math.MaxUint32, 0, "the server has, or says it has, all versions from 0 to 4294967295; name one\n"},
		{1, math.MaxUint32, maxVersions, "the server says that it has the versions 1 to 4294967295; 256 were called, name another\n"},
		{math.MaxUint32 - 1, math.MaxUint32, 2, ""},
		{4, 3, 0, "the server says that it has the versions 4 to 3\n"},
	} {
		w := testWorld(t)
		var s oncrpc.Server
		defer s.Close()
		null := func(context.Context, *oncrpc.Request, []byte) ([]byte, error) {
			return nil, &oncrpc.AcceptError{Stat: oncrpc.ProgMismatch, Low: c.low, High: c.high}
		}
		if err := s.Register(5, 0, oncrpc.Procedures{0: null}); err != nil {
			t.Fatal(err)
		}
		uaddr := rpcbind.UAddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), serve(t, &s)))
		got := runIn(t, w, "-a "+uaddr+" -T tcp 5")
		if n := strings.Count(got.stdout, "\n"); n != c.called || !strings.HasSuffix(got.stderr, c.want) || got.code != 1 {
			t.Errorf("%d to %d: %d versions were called: exit %d\n%s", c.low, c.high, n, got.code, got.stderr)
		}
	}
}

// What isn't RPC at all is told quickly and clearly.
func TestNotRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2p1\r\n"))
			_ = conn.Close()
		}
	}()
	uaddr := rpcbind.UAddr(l.Addr().(*net.TCPAddr).AddrPort())
	got := runIn(t, testWorld(t), "-a "+uaddr+" -T tcp 5 1")
	if got.code != 1 || got.stdout != "program 5 version 1 is not available\n" || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}

// FuzzReplies lets a portmapper answer anything to every mode: rpcinfo ends, with 0 or 1, and prints nothing that drives a
// terminal.
func FuzzReplies(f *testing.F) {
	modes := []string{"", "-s", "-p", "-m", "-l 127.0.0.1 5 1", "-T udp 127.0.0.1 5", "-t 127.0.0.1 5 1", "-d 5 1", "-p 127.0.0.1"}
	list := rpcbind.AppendRPCBElement(nil, registered[0])
	entry := rpcbind.AppendEntryElement(nil, rpcbind.Entry{Addr: "1.2.3.4.5.6", Transport: rpcbind.Transport{Netid: "tcp", Family: "inet", Proto: "tcp"}})
	for i := range modes {
		f.Add(i, xdr.AppendBool(list, false), uint8(0))
		f.Add(i, xdr.AppendBool(entry, false), uint8(0))
		f.Add(i, rpcbind.AppendStats(nil, &rpcbind.Stats{}), uint8(0))
		f.Add(i, xdr.AppendString(nil, "127.0.0.1.0.1"), uint8(0))
		f.Add(i, []byte("\x1b[2J\xff\xff\xff\xff"), uint8(i))
	}
	w := testWorld(f)
	type saying struct {
		reply []byte
		stat  uint8
	}
	var now atomic.Pointer[saying]
	hostile := func(_ context.Context, r *oncrpc.Request, dst []byte) ([]byte, error) {
		reply, stat := now.Load().reply, now.Load().stat
		d := xdr.NewDecoder(reply)
		if at, ok := rpcbind.ParseUAddr(d.String(maxString)); ok && !at.Addr().IsLoopback() && r.Procedure == rpcbind.ProcGetAddr {
			return xdr.AppendString(dst, ""), nil // rpcinfo would call other hosts
		}
		switch stat % 8 {
		case 0, 1, 2, 3:
			return append(dst, reply...), nil
		case 4:
			return nil, &oncrpc.AcceptError{Stat: oncrpc.ProgMismatch, Low: uint32(len(reply)), High: uint32(stat)}
		case 5:
			return nil, &oncrpc.DeniedError{Stat: oncrpc.AuthError, Auth: oncrpc.AuthStat(stat)}
		}
		return nil, &oncrpc.AcceptError{Stat: oncrpc.AcceptStat(1 + stat%5)}
	}
	all := make(oncrpc.Procedures)
	for proc := range uint32(rpcbind.StatProcs) {
		all[proc] = hostile
	}
	portmapper(f, &w, map[uint32]oncrpc.Procedures{2: all, 3: all, 4: all})
	f.Fuzz(func(t *testing.T, mode int, results []byte, s uint8) {
		if len(results) > 2000 {
			return
		}
		now.Store(&saying{results, s})
		got := runIn(t, w, "--timeout 200ms "+modes[(mode%len(modes)+len(modes))%len(modes)])
		if got.code != exitOK && got.code != exitFailed {
			t.Errorf("exit code %d", got.code)
		}
		harmless(t, got.stdout+got.stderr)
	})
}

// FuzzTexts decodes anything as each kind of answer and prints it, as text and as JSON: nothing drives a terminal.
func FuzzTexts(f *testing.F) {
	f.Add(xdr.AppendBool(rpcbind.AppendRPCBElement(nil, registered[0]), false))
	f.Add(xdr.AppendBool(rpcbind.AppendMappingElement(nil, rpcbind.Mapping{Program: 1, Prot: 6}), false))
	f.Add(rpcbind.AppendStats(nil, &rpcbind.Stats{}))
	f.Add(xdr.AppendString(nil, "127.0.0.1.\x1b[2J"))
	w := testWorld(f)
	n := readNames(w.rpcFile)
	f.Fuzz(func(t *testing.T, results []byte) {
		decoder := func() *xdr.Decoder { d := xdr.NewDecoder(results); return &d }
		list := rpcbind.ReadRPCBList(decoder(), maxString)
		uaddr := decoder().String(maxString)
		_, failed := parseService(transport{netid: "udp"}, uaddr, netip.IPv4Unspecified())
		for _, a := range []answer{
			listed{uaddr, list}, inShort{"", list}, mapped{"", rpcbind.ReadMappingList(decoder())},
			addressed{list: rpcbind.ReadEntryList(decoder(), maxString)}, counted{"", rpcbind.ReadStats(decoder(), maxString)},
		} {
			var out bytes.Buffer
			printer := &asker{out: &out}
			if err := printer.print(a.text(n)); err != nil {
				t.Fatal(err)
			}
			if err := printer.printJSON(a.json(n)); err != nil {
				t.Fatal(err)
			}
			if failed != nil {
				out.WriteString(printable(explain(notCreated("rpcinfo", failed))))
			}
			harmless(t, out.String())
		}
	})
}

// harmless fails the test if the text has anything in it that could drive a terminal.
func harmless(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			t.Fatalf("%U is printed:\n%q", r, text)
		}
	}
}

// FuzzOctets lets servers answer any octets at all, over a local socket, TCP and UDP: with the call's xid in them, or without.
func FuzzOctets(f *testing.F) {
	reply := oncrpc.AppendAccepted(nil, 0, oncrpc.Success)
	record := oncrpc.BeginRecord(nil)
	record = append(append(record, reply...), 0, 0, 0, 0)
	oncrpc.EndRecord(record, 0)
	w := testWorld(f)
	var now atomic.Pointer[[]byte]
	anything := &anythingServer{say: func(xid []byte, at int) []byte {
		octets := bytes.Clone(*now.Load())
		if len(octets) >= at+4 && octets[len(octets)-1]&1 == 0 {
			copy(octets[at:], xid)
		}
		return octets
	}}
	w.port = anything.serve(f, w.socket)
	uaddr := rpcbind.UAddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.port))
	modes := []string{"-s", "-m", "-a " + uaddr + " -T tcp 5", "-a " + uaddr + " -T udp 5 1", "-p", "-T udp 127.0.0.1", "-l 127.0.0.1 5 1"}
	for i := range modes {
		f.Add(i, record)
		f.Add(i, append(reply, 0, 0, 0, 0))
		f.Add(i, []byte("\x7f\xff\xff\xff\x00"))
		f.Add(i, []byte("SSH-2.0-OpenSSH_9.2p1\r\n"))
	}
	f.Fuzz(func(t *testing.T, mode int, octets []byte) {
		if len(octets) > 2000 {
			return
		}
		now.Store(&octets)
		got := runIn(t, w, "--timeout 50ms "+modes[(mode%len(modes)+len(modes))%len(modes)])
		if got.code != exitOK && got.code != exitFailed {
			t.Errorf("exit code %d", got.code)
		}
		harmless(t, got.stdout+got.stderr)
	})
}

// anythingServer answers each call by what say returns, which is told the call's xid and where that stands in a reply, and
// then hangs up.
type anythingServer struct {
	say func(xid []byte, at int) []byte
}

func (s *anythingServer) serve(t testing.TB, socket string) uint16 {
	t.Helper()
	local, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stream, packets := listenBoth(t)
	t.Cleanup(func() { _, _, _ = local.Close(), stream.Close(), packets.Close() })
	go s.accept(local)
	go s.accept(stream)
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			if n >= 4 {
				_, _ = packets.WriteTo(s.say(buf[:4], 0), from)
			}
		}
	}()
	return netip.MustParseAddrPort(stream.Addr().String()).Port()
}

func (s *anythingServer) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 2000)
			if n, err := conn.Read(buf); err == nil && n >= 8 {
				_, _ = conn.Write(s.say(buf[4:8], 4))
			}
		}()
	}
}
