package oncrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// mutations calls f with every message made of a reply by changing an octet or cutting it short.
func mutations(reply []byte, f func(message []byte)) {
	for at := range reply {
		f(reply[:at:at])
		for _, octet := range []byte{0, 1, 2, 0x7f, 0x80, 0xff, reply[at] ^ 0x40} {
			message := bytes.Clone(reply)
			message[at] = octet
			f(message)
		}
	}
}

// hostileReplies are the replies to mutate, of the call.
func hostileReplies(call []byte) [][]byte {
	xid := binary.BigEndian.Uint32(call)
	verified := AppendAccepted(nil, xid, Success)[:12]
	verified = append(appendAuth(verified, OpaqueAuth{Flavor: AuthShort, Body: []byte("handle")}), 0, 0, 0, 0)
	return [][]byte{
		echo(call), verified, AppendProgMismatch(nil, xid, 2, 4), AppendAuthError(nil, xid, AuthTooWeak), AppendRPCMismatch(nil, xid),
	}
}

// judge is what a client has to make of a message: not its own, or what ParseReply makes of it.
func judge(t *testing.T, message []byte, xid uint32, a answered) {
	t.Helper()
	r, err := ParseReply(message)
	if err == nil {
		err = r.Err()
	}
	switch {
	case len(message) < 4 || binary.BigEndian.Uint32(message) != xid:
		if a.err != nil || a.results != "from the next reply" {
			t.Errorf("% x, which answers another call, ended the call: %+v", message, a)
		}
	case err == nil && (a.err != nil || a.results != string(r.Results)):
		t.Errorf("% x: %+v, want the results %q", message, a, r.Results)
	case err != nil && (a.err == nil || errors.Unwrap(a.err).Error() != err.Error()):
		t.Errorf("% x: %+v, want %v", message, a, err)
	}
}

// Every reply mutated, over datagrams and a stream: an error or what was said, never a panic, and the next call works.
func TestClientMutatedReplies(t *testing.T) {
	for _, datagram := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWire()
			receive, send := w.sent, func(m []byte) { w.peer.Write(m) }
			if !datagram {
				receive, send = func() []byte { return nextRecord(w.peer) }, func(m []byte) { sendRecord(w.peer, m) }
			}
			c := NewClient(w, ClientConfig{Datagram: datagram})
			for i := range hostileReplies(make([]byte, CallHeaderSize)) {
				kinds := hostileReplies(AppendCall(nil, Call{Args: []byte("results.")}))
				n := 0
				mutations(kinds[i], func([]byte) { n++ })
				for k := range n {
					result := callLater(t.Context(), c, Call{Args: []byte("results.")})
					call := receive()
					at := 0
					mutations(hostileReplies(call)[i], func(message []byte) {
						if at == k {
							w.peer.SetWriteDeadline(time.Now().Add(time.Second)) // the call may end before it reads all
							send(message)
							next := AppendAccepted(nil, binary.BigEndian.Uint32(call), Success)
							send(append(next, "from the next reply"...))
							judge(t, message, binary.BigEndian.Uint32(call), <-result)
						}
						at++
					})
				}
			}
			c.Close()
		})
	}
}

// The marks of a stream mutated and the stream cut anywhere: the call ends, one way or the other, when the server does.
func TestClientMutatedStreams(t *testing.T) {
	size := len(fragment(fragment(nil, make([]byte, 10), false), make([]byte, AcceptedHeaderSize-10+4), true))
	for at := range size {
		for _, octet := range []int{-1, 0, 1, 0x7f, 0x80, 0xff} {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				c := NewClient(ours, ClientConfig{MaxReply: 1 << 20})
				result := callLater(t.Context(), c, Call{Args: []byte("abcd")})
				reply := echo(nextRecord(theirs))
				stream := fragment(fragment(nil, reply[:10], false), reply[10:], true)
				if octet < 0 {
					stream = stream[:at]
				} else {
					stream[at] = byte(octet)
				}
				theirs.SetWriteDeadline(time.Now().Add(time.Second))
				theirs.Write(stream)
				theirs.Close()
				a := <-result
				if a.err == nil && a.results != "abcd" && at < size-4 {
					t.Errorf("octet %d changed to %#x: %q", at, octet, a.results)
				}
				if octet < 0 && !errors.Is(a.err, io.ErrUnexpectedEOF) {
					t.Errorf("cut after %d octets: %+v", at, a)
				}
				c.Close()
			})
		}
	}
}

// Replies that come late, twice, in another order, or for nobody reach the call they belong to, or nobody.
func TestClientLateDoubleForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := NewClient(ours, ClientConfig{})
		const n = 8
		var results [n]chan answered
		var calls [n][]byte
		for i := range n {
			results[i] = callLater(t.Context(), c, Call{Args: []byte{byte(i)}})
			calls[i] = nextRecord(theirs)
		}
		var stream []byte
		for i := n - 1; i >= 0; i-- {
			foreign := echo(calls[i])
			binary.BigEndian.PutUint32(foreign, binary.BigEndian.Uint32(foreign)+1) // in use by chance once in 10^8 runs
			for _, message := range [][]byte{foreign, echo(calls[i]), echo(calls[i]), AppendRPCMismatch(nil, binary.BigEndian.Uint32(calls[i]))} {
				stream = fragment(stream, message, true)
			}
		}
		theirs.Write(stream)
		for i := range n {
			if a := <-results[i]; a.err != nil || a.results != string([]byte{byte(i)}) {
				t.Errorf("call %d: %+v", i, a)
			}
		}
		result := callLater(t.Context(), c, Call{Args: []byte("last")})
		call := nextRecord(theirs)
		stream = nil
		for _, old := range calls {
			stream = fragment(stream, echo(old), true)
		}
		theirs.Write(fragment(stream, echo(call), true))
		if a := <-result; a.err != nil || a.results != "last" {
			t.Errorf("%+v", a)
		}
		c.Close()
		theirs.Close()
	})
}

// Calls that are given up while their replies arrive: no reply, and no error, reaches another call.
func TestClientGivesUpWhileAnswered(t *testing.T) {
	answering := make(chan struct{}, 1000)
	address := packetServer(t, func(call []byte) [][]byte {
		answering <- struct{}{}
		return [][]byte{echo(call)}
	})
	c := dialWith(t, ClientConfig{FirstWait: time.Hour, LongestWait: time.Hour}, "udp", address)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for k := range 500 {
				args := binary.BigEndian.AppendUint64(nil, uint64(i)<<32|uint64(k))
				ctx, cancel := context.WithCancel(t.Context())
				if k%2 == 0 {
					go func() {
						<-answering
						cancel()
					}()
				} else {
					go func() { <-answering }()
				}
				got, err := c.Call(ctx, Call{Args: args})
				if err != nil && !errors.Is(err, context.Canceled) || err == nil && !bytes.Equal(got, args) || err != nil && k%2 == 1 && ctx.Err() == nil {
					t.Errorf("% x, %v; want % x", got, err, args)
				}
				cancel()
			}
		})
	}
	group.Wait()
}

// A reply from another address than the server's doesn't count, whatever its xid.
func TestClientOtherAddress(t *testing.T) {
	stranger, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	var c *Client
	dialled := make(chan struct{})
	address := packetServer(t, func(call []byte) [][]byte {
		<-dialled
		forged := append(AppendAccepted(nil, binary.BigEndian.Uint32(call), Success), "forged"...)
		if _, err := stranger.WriteTo(forged, c.LocalAddr()); err != nil {
			t.Error(err)
		}
		return [][]byte{echo(call)}
	})
	c = dial(t, "udp", address)
	close(dialled)
	for range 10 {
		if got, err := c.Call(t.Context(), Call{Args: []byte("real")}); err != nil || string(got) != "real" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// MaxReply is the largest record to the octet.
func TestClientMaxReply(t *testing.T) {
	const limit = 200
	for results, want := range map[int]error{limit - AcceptedHeaderSize: nil, limit - AcceptedHeaderSize + 1: ErrRecordTooLong} {
		c := dialWith(t, ClientConfig{MaxReply: limit}, "tcp", streamServer(t, "tcp", echoRecords))
		_, err := c.Call(t.Context(), Call{Args: make([]byte, results)})
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d octets of results: %v, want %v", results, err, want)
		}
	}
}

func TestCallErrorText(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := NewClient(ours, ClientConfig{})
	c.Close()
	_, err := c.Call(t.Context(), Call{Program: 100003, Version: 3, Procedure: 1})
	var e *CallError
	want := "oncrpc: program 100003 version 3 procedure 1 at pipe pipe: use of closed network connection"
	if !errors.As(err, &e) || err.Error() != want || e.Program != 100003 || e.Version != 3 || e.Procedure != 1 || e.Addr != "pipe" {
		t.Errorf("%q, want %q", err, want)
	}
	e = &CallError{Program: math.MaxUint32, Err: ErrGarbageArgs}
	want = "oncrpc: program 4294967295 version 0 procedure 0: GARBAGE_ARGS: the server can't decode the arguments"
	if e.Error() != want {
		t.Errorf("%q, want %q", e, want)
	}
	if !errors.Is(e, ErrGarbageArgs) || !errors.Is(e, &AcceptError{Stat: GarbageArgs}) || errors.Is(e, ErrSystemErr) {
		t.Error("errors.Is doesn't compare the accept_stat")
	}
	mismatch := &AcceptError{Stat: ProgMismatch, Low: 2, High: 3}
	if !errors.Is(mismatch, &AcceptError{Stat: ProgMismatch}) || errors.Is(mismatch, &AcceptError{Stat: ProgMismatch, Low: 2, High: 4}) {
		t.Error("errors.Is doesn't compare the versions")
	}
}

// Credentials: that of the call, else that of the configuration; what is too long is never sent.
func TestClientCredentials(t *testing.T) {
	configured, err := SysCred{UID: 1}.Auth()
	if err != nil {
		t.Fatal(err)
	}
	own, err := SysCred{UID: 2}.Auth()
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan Call, 1)
	c := dialWith(t, ClientConfig{Cred: configured}, "udp", packetServer(t, func(call []byte) [][]byte {
		parsed, _ := ParseCall(call)
		sent <- parsed
		return [][]byte{echo(call)}
	}))
	for _, tt := range []struct {
		name      string
		cred      OpaqueAuth
		wantBody  []byte
		wantError bool
	}{
		{"none", OpaqueAuth{}, configured.Body, false},
		{"own", own, own.Body, false},
		{"AUTH_NONE on purpose", OpaqueAuth{Body: []byte{}}, nil, false},
		{"400 octets", OpaqueAuth{Flavor: AuthShort, Body: make([]byte, MaxAuthBody)}, make([]byte, MaxAuthBody), false},
		{"401 octets", OpaqueAuth{Flavor: AuthShort, Body: make([]byte, MaxAuthBody+1)}, nil, true},
	} {
		_, err := c.Call(t.Context(), Call{Cred: tt.cred})
		if (err != nil) != tt.wantError {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil {
			continue
		}
		if got := <-sent; !bytes.Equal(got.Cred.Body, tt.wantBody) {
			t.Errorf("%s: % x was sent, want % x", tt.name, got.Cred.Body, tt.wantBody)
		}
	}
	if len(sent) != 0 {
		t.Error("a credential of 401 octets was sent")
	}
	if _, err := (SysCred{MachineName: string(make([]byte, 256))}).Auth(); err != ErrBadSysCred {
		t.Errorf("a name of 256 octets: %v", err)
	}
	if _, err := (SysCred{GIDs: make([]uint32, 17)}).Auth(); err != ErrBadSysCred {
		t.Errorf("17 groups: %v", err)
	}
}

// FuzzServer: whatever a stream brings in whatever segments, the server answers each whole call before what isn't one, with
// a reply that has its xid, and ends.
func FuzzServer(f *testing.F) {
	for _, s := range seeds {
		f.Add(fragment(nil, []byte(s), true), uint8(0), false)
	}
	f.Add(fragment(nil, AppendCall(nil, testCall(procEcho, "abcd")), true), uint8(3), true)
	f.Fuzz(func(t *testing.T, stream []byte, segment uint8, several bool) {
		s := register(t, &Server{MaxRecord: 1 << 16})
		delete((*s.programs.Load())[testProgram].versions[testVersion], procGoexit)
		if several {
			s.CallsPerConnection = 4
		}
		conn := &scriptedConn{stream: stream, segment: max(int(segment), 1)}
		err := s.ServeConn(conn)
		if err != nil && !misbehaved(err) {
			t.Fatalf("ServeConn: %v", err)
		}
		records, _ := cutRecords(stream, 1<<16)
		var want []uint32
		for _, record := range records {
			call, err := ParseCall([]byte(record))
			if err != nil {
				break
			}
			want = append(want, call.XID)
		}
		replies, cutErr := cutRecords(conn.written, math.MaxInt32)
		if cutErr != nil || len(replies) != len(want) {
			t.Fatalf("%d replies, %v; want %d", len(replies), cutErr, len(want))
		}
		for i, reply := range replies {
			r, err := ParseReply([]byte(reply))
			if err != nil || !several && r.XID != want[i] {
				t.Fatalf("reply %d: %+v, %v; want xid %d", i, r, err, want[i])
			}
		}
	})
}

// scriptedConn brings a stream in segments and then its end, and keeps what is written. Writes come one at a time.
type scriptedConn struct {
	stream  []byte
	segment int
	written []byte
}

func (c *scriptedConn) Read(b []byte) (int, error) {
	if len(c.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.segment)], c.stream)
	c.stream = c.stream[n:]
	return n, nil
}

func (c *scriptedConn) Write(b []byte) (int, error) {
	c.written = append(c.written, b...)
	return len(b), nil
}

func (c *scriptedConn) Close() error                     { return nil }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }
func (c *scriptedConn) LocalAddr() net.Addr              { return nil }
func (c *scriptedConn) RemoteAddr() net.Addr             { return nil }

// FuzzClient: whatever a server sends back, a call ends when the connection does, and by then or before every limit holds.
func FuzzClient(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 28}, []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abcd"), false)
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff}, []byte("\x00\x00\x00\x01"), false)
	f.Add([]byte{}, []byte("\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05"), true)
	f.Fuzz(func(t *testing.T, mark, rest []byte, datagram bool) {
		ours, theirs := net.Pipe()
		c := NewClient(ours, ClientConfig{MaxReply: 1000, Datagram: datagram})
		result := callLater(t.Context(), c, Call{Args: []byte("abcd")})
		in := make([]byte, 200)
		n, err := theirs.Read(in)
		if err != nil {
			t.Fatal(err)
		}
		xid := in[:4]
		if !datagram {
			xid = in[4:8:n]
		}
		theirs.SetWriteDeadline(time.Now().Add(10 * time.Second))
		theirs.Write(append(append(bytes.Clone(mark), xid...), rest...))
		theirs.Close()
		a := <-result
		if a.err == nil && len(a.results) > 1000 {
			t.Fatalf("%d octets of results", len(a.results))
		}
		c.Close()
	})
}

// FuzzParseSysCred: what is parsed is within the limits, agrees with CheckCred, and written again parses as the same.
func FuzzParseSysCred(f *testing.F) {
	f.Add(AppendSysCred(nil, SysCred{Stamp: 1, MachineName: "host", UID: 2, GID: 3, GIDs: []uint32{4, 5}}))
	f.Add(AppendSysCred(nil, SysCred{MachineName: string(make([]byte, 255)), GIDs: make([]uint32, 16)}))
	f.Add(AppendSysCred(nil, SysCred{GIDs: make([]uint32, 17)}))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := ParseSysCred(body)
		if _, ok := CheckCred(OpaqueAuth{Flavor: AuthSys, Body: body}); ok != (err == nil) {
			t.Fatalf("ParseSysCred: %v, CheckCred: %v", err, ok)
		}
		if err != nil {
			return
		}
		auth, err := c.Auth()
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		again, err := ParseSysCred(auth.Body)
		if err != nil || !bytes.Equal(AppendSysCred(nil, again), auth.Body) || len(auth.Body) > len(body) {
			t.Fatalf("%+v is written as % x", c, auth.Body)
		}
	})
}

// An answer that came when its call was given up doesn't stay for the next call.
func TestReleaseTakesTheAnswer(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := NewClient(ours, ClientConfig{})
	defer c.Close()
	p, err := c.register()
	if err != nil {
		t.Fatal(err)
	}
	if !c.deliver(AppendAccepted(nil, p.xid, Success)) {
		t.Fatal("the reply found no call")
	}
	c.release(p)
	next, err := c.register()
	if err != nil {
		t.Fatal(err)
	}
	if next != p || len(next.answer) != 0 || next.answered {
		t.Errorf("the next call begins with %d answers; the same memory: %v", len(next.answer), next == p)
	}
	c.release(next)
}
