package oncrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/pkg/xdr"
)

const (
	testProgram = 0x20000001
	testVersion = 3
)

// The procedures of the program under test.
const (
	procEcho = iota + 1
	procOwnSlice
	procGarbage
	procPlainError
	procForwardedError
	procTooWeak
	procPanic
	procMismatch
	procGoexit
	procSuccessAsError
	procGrow
	procWhoami
)

var errPlain = errors.New("the disk is full")

func echoArgs(_ context.Context, r *Request, results []byte) ([]byte, error) {
	return append(results, r.Args...), nil
}

func fails(err error) Handler {
	return func(_ context.Context, _ *Request, results []byte) ([]byte, error) {
		return append(results, "junk"...), err
	}
}

func testProcedures() Procedures {
	return Procedures{
		procEcho:           echoArgs,
		procOwnSlice:       func(context.Context, *Request, []byte) ([]byte, error) { return []byte("mine"), nil },
		procGarbage:        fails(ErrGarbageArgs),
		procPlainError:     fails(errPlain),
		procForwardedError: fails(&CallError{Err: ErrProgUnavail}),
		procTooWeak:        fails(&DeniedError{Stat: AuthError, Auth: AuthTooWeak}),
		procPanic:          func(context.Context, *Request, []byte) ([]byte, error) { panic(errPlain) },
		procMismatch:       fails(&AcceptError{Stat: ProgMismatch, Low: 7, High: 9}),
		procGoexit:         func(context.Context, *Request, []byte) ([]byte, error) { runtime.Goexit(); return nil, nil },
		procSuccessAsError: fails(&AcceptError{Stat: Success}),
		procGrow: func(_ context.Context, _ *Request, results []byte) ([]byte, error) {
			return append(results, bytes.Repeat([]byte{5}, 100_000)...), nil
		},
		procWhoami: func(_ context.Context, r *Request, results []byte) ([]byte, error) {
			c, ok := r.SysCred()
			if !ok {
				return xdr.AppendString(results, "nobody"), nil
			}
			results = xdr.AppendString(results, c.MachineName)
			return xdr.AppendUint32(results, c.UID), nil
		},
	}
}

// reports collects what a Server reports.
type reports struct {
	mu  sync.Mutex
	all []error
}

func (r *reports) add(_ *Request, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, err)
}

func (r *reports) take() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// register gives the server the program under test: versions 3 and 5, so that there is a gap.
func register(t testing.TB, s *Server) *Server {
	t.Helper()
	if err := s.Register(testProgram, testVersion, testProcedures()); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(testProgram, testVersion+2, Procedures{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func testCall(procedure uint32, args string) Call {
	return Call{XID: 9, Program: testProgram, Version: testVersion, Procedure: procedure, Args: []byte(args)}
}

func TestServerAnswers(t *testing.T) {
	var told reports
	s := register(t, &Server{Report: told.add})
	change := func(f func(*Call)) []byte {
		c := testCall(0, "")
		f(&c)
		return AppendCall(nil, c)
	}
	call := func(procedure uint32, args string) []byte { return AppendCall(nil, testCall(procedure, args)) }
	accepted := func(stat AcceptStat) []byte { return AppendAccepted(nil, 9, stat) }
	success := func(results string) []byte { return append(accepted(Success), results...) }
	tests := []struct {
		name     string
		call     []byte
		want     []byte // nil: no reply
		reported error
	}{
		{"procedure 0", call(0, ""), accepted(Success), nil},
		{"procedure 0 with arguments", call(0, "args"), accepted(Success), nil},
		{"echo", call(procEcho, "abcd"), success("abcd"), nil},
		{"a slice of the handler's own", call(procOwnSlice, ""), success("mine"), nil},
		{"results that outgrow the buffer", call(procGrow, ""), success(strings.Repeat("\x05", 100_000)), nil},
		{"arguments that can't be decoded", call(procGarbage, ""), accepted(GarbageArgs), nil},
		{"an error", call(procPlainError, ""), accepted(SystemErr), errPlain},
		{"the error of another server", call(procForwardedError, ""), accepted(SystemErr), ErrProgUnavail},
		{"SUCCESS as an error", call(procSuccessAsError, ""), accepted(SystemErr), &AcceptError{Stat: Success}},
		{"AUTH_TOOWEAK", call(procTooWeak, ""), AppendAuthError(nil, 9, AuthTooWeak), nil},
		{"PROG_MISMATCH of a handler", call(procMismatch, ""), AppendProgMismatch(nil, 9, 7, 9), nil},
		{"a panic", call(procPanic, ""), accepted(SystemErr), errPlain},
		{"unknown procedure", call(99, ""), accepted(ProcUnavail), nil},
		{"version below", change(func(c *Call) { c.Version = 2 }), AppendProgMismatch(nil, 9, 3, 5), nil},
		{"version between", change(func(c *Call) { c.Version = 4 }), AppendProgMismatch(nil, 9, 3, 5), nil},
		{"version above", change(func(c *Call) { c.Version = 6 }), AppendProgMismatch(nil, 9, 3, 5), nil},
		{"version without procedures", change(func(c *Call) { c.Version = 5 }), accepted(Success), nil},
		{"unknown program", change(func(c *Call) { c.Program++ }), accepted(ProgUnavail), nil},
		{"RPC version 3", change(func(c *Call) { c.RPCVersion = 3 }), AppendRPCMismatch(nil, 9), nil},
		{"RPC version 3 of an unknown flavor", change(func(c *Call) { c.RPCVersion, c.Cred.Flavor = 3, 77 }), AppendRPCMismatch(nil, 9), nil},
		{"AUTH_SHORT", change(func(c *Call) { c.Cred.Flavor = AuthShort }), AppendAuthError(nil, 9, AuthRejectedCred), nil},
		{"flavor before program", change(func(c *Call) { c.Cred.Flavor, c.Program = 77, 1 }), AppendAuthError(nil, 9, AuthRejectedCred), nil},
		{"AUTH_SYS cut short", change(func(c *Call) { c.Cred.Flavor = AuthSys }), AppendAuthError(nil, 9, AuthBadCred), nil},
		{"AUTH_DH", change(func(c *Call) { c.Cred.Flavor = AuthDES }), AppendAuthError(nil, 9, AuthFailed), nil},
		{"a reply", accepted(Success), nil, nil},
		{"a header cut short", call(0, "")[:39], nil, nil},
	}
	var request Request
	for _, tt := range tests {
		const before = "in front"
		got, err := s.answer(t.Context(), []byte(before), tt.call, &request)
		if tt.want == nil {
			if err != ErrNotACall {
				t.Errorf("%s: % x, %v; want %v", tt.name, got, err, ErrNotACall)
			}
		} else if err != nil || !bytes.Equal(got, append([]byte(before), tt.want...)) {
			t.Errorf("%s: %v\n% x, want\n% x", tt.name, err, got, tt.want)
		}
		switch all := told.take(); {
		case tt.reported == nil && len(all) != 0, len(all) > 1:
			t.Errorf("%s: reported %v", tt.name, all)
		case tt.reported != nil && (len(all) == 0 || !errors.Is(all[0], tt.reported)):
			t.Errorf("%s: reported %v, want %v", tt.name, all, tt.reported)
		}
	}
}

// Every octet of a call changed, and every length: there is an answer with the call's xid, or ErrNotACall.
func TestServerMutatedCalls(t *testing.T) {
	s := register(t, &Server{})
	auth, err := SysCred{MachineName: "host", UID: 1, GIDs: []uint32{1, 2}}.Auth()
	if err != nil {
		t.Fatal(err)
	}
	c := testCall(procWhoami, "arguments...")
	c.Cred = auth
	whole := AppendCall(nil, c)
	check := func(message []byte) {
		t.Helper()
		var request Request
		reply, err := s.answer(t.Context(), nil, message, &request)
		if err == ErrNotACall {
			return
		}
		if err != nil {
			t.Fatalf("% x: %v", message, err)
		}
		if r, err := ParseReply(reply); err != nil || !bytes.Equal(reply[:4], message[:4]) {
			t.Fatalf("% x is answered by % x: %+v, %v", message, reply, r, err)
		}
	}
	for at := range whole {
		check(whole[:at:at])
		for _, octet := range []byte{0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 1} {
			message := bytes.Clone(whole)
			message[at] = octet
			check(message)
		}
	}
}

func TestServerAuthorize(t *testing.T) {
	var told reports
	s := register(t, &Server{
		Report: told.add,
		Authorize: func(_ context.Context, r *Request) AuthStat {
			switch c, ok := r.SysCred(); {
			case ok && c.UID == 0:
				return AuthOK
			case ok && c.UID == 13:
				panic("13")
			case r.Procedure == 0:
				return AuthOK
			}
			return AuthTooWeak
		},
	})
	root, _ := SysCred{}.Auth()
	unlucky, _ := SysCred{UID: 13}.Auth()
	for _, tt := range []struct {
		name      string
		cred      OpaqueAuth
		procedure uint32
		program   uint32
		want      []byte
	}{
		{"root", root, procEcho, testProgram, append(AppendAccepted(nil, 9, Success), "args"...)},
		{"anybody, procedure 0", OpaqueAuth{}, 0, testProgram, AppendAccepted(nil, 9, Success)},
		{"anybody", OpaqueAuth{}, procEcho, testProgram, AppendAuthError(nil, 9, AuthTooWeak)},
		{"anybody, unknown program", OpaqueAuth{}, procEcho, 1, AppendAuthError(nil, 9, AuthTooWeak)},
		{"panic", unlucky, procEcho, testProgram, AppendAccepted(nil, 9, SystemErr)},
	} {
		c := testCall(tt.procedure, "args")
		c.Cred, c.Program = tt.cred, tt.program
		got, err := s.answer(t.Context(), nil, AppendCall(nil, c), &Request{})
		if err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("%s: % x, %v; want % x", tt.name, got, err, tt.want)
		}
	}
	var panicked *PanicError
	if all := told.take(); len(all) != 1 || !errors.As(all[0], &panicked) || panicked.Value != "13" || len(panicked.Stack) == 0 {
		t.Errorf("reported %v", all)
	} else if want := "oncrpc: a handler panicked: 13"; panicked.Error() != want {
		t.Errorf("%q, want %q", panicked, want)
	}
}

func TestRegister(t *testing.T) {
	s := register(t, &Server{})
	if err := s.Register(testProgram, testVersion, nil); err == nil || !strings.Contains(err.Error(), "registered already") {
		t.Errorf("the same again: %v", err)
	}
	if err := s.Register(testProgram, 8, Procedures{4: nil}); err == nil || !strings.Contains(err.Error(), "procedure 4 is nil") {
		t.Errorf("a nil handler: %v", err)
	}
	// A version that is registered while calls are answered shows in the next answer.
	if err := s.Register(testProgram, 1, nil); err != nil {
		t.Fatal(err)
	}
	c := testCall(0, "")
	c.Version = 2
	if got, _ := s.answer(t.Context(), nil, AppendCall(nil, c), &Request{}); !bytes.Equal(got, AppendProgMismatch(nil, 9, 1, 5)) {
		t.Errorf("% x", got)
	}
}

// started serves on the network and returns the address.
func started(t *testing.T, s *Server, network string) string {
	t.Helper()
	address := "127.0.0.1:0"
	switch network {
	case "tcp6", "udp6":
		address = "[::1]:0"
	case "unix":
		address = filepath.Join(t.TempDir(), "sock")
	}
	served := make(chan error, 1)
	if strings.HasPrefix(network, "udp") {
		conn, err := net.ListenPacket(network, address)
		if err != nil {
			t.Skipf("needs %s: %v", network, err)
		}
		address = conn.LocalAddr().String()
		go func() { served <- s.ServePacket(conn) }()
	} else {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Skipf("needs %s: %v", network, err)
		}
		address = l.Addr().String()
		go func() { served <- s.Serve(l) }()
	}
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != ErrServerClosed {
			t.Errorf("serving %s ended with %v, want %v", network, err, ErrServerClosed)
		}
	})
	return address
}

// One Server on every transport at once, called by Client, with and without AUTH_SYS.
func TestServerTransports(t *testing.T) {
	var told reports
	s := register(t, &Server{Report: told.add})
	cred, err := SysCred{MachineName: "client", UID: 1000, GID: 100, GIDs: []uint32{4}}.Auth()
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := started(t, s, network)
			t.Run("client", func(t *testing.T) {
				c := dialWith(t, ClientConfig{Cred: cred}, network, address)
				got, err := c.Call(t.Context(), testCall(procWhoami, ""))
				d := xdr.NewDecoder(got)
				if name, uid := d.String(255), d.Uint32(); err != nil || name != "client" || uid != 1000 {
					t.Errorf("AUTH_SYS: %q %d, %v", name, uid, err)
				}
				if _, err := dial(t, network, address).Call(t.Context(), testCall(procPanic, "")); !errors.Is(err, ErrSystemErr) {
					t.Errorf("panic: %v, want %v", err, ErrSystemErr)
				}
				_, err = c.Call(t.Context(), testCall(procGrow, ""))
				if large := strings.HasPrefix(network, "udp"); large && !errors.Is(err, ErrSystemErr) || !large && err != nil {
					t.Errorf("100,000 octets: %v", err)
				}
				var group sync.WaitGroup
				for i := range 8 {
					group.Go(func() {
						args := strings.Repeat("abcd", i*100)
						if got, err := c.Call(t.Context(), testCall(procEcho, args)); err != nil || string(got) != args {
							t.Errorf("echo of %d octets: %d, %v", len(args), len(got), err)
						}
					})
				}
				group.Wait()
			})
			for _, err := range told.take() {
				var panicked *PanicError
				if !errors.As(err, &panicked) && err != errReplyTooLong {
					t.Errorf("reported %v", err)
				}
			}
		})
		s = register(t, &Server{Report: told.add}) // the end of the subtest closed it
	}
}

func TestServerAtOnceOnSeveralTransports(t *testing.T) {
	s := register(t, &Server{})
	for _, network := range []string{"tcp", "udp", "unix"} {
		c := dial(t, network, started(t, s, network))
		if got, err := c.Call(t.Context(), testCall(procEcho, "abcd")); err != nil || string(got) != "abcd" {
			t.Errorf("%s: %q, %v", network, got, err)
		}
	}
}

// A record is answered however it is fragmented and segmented, and a client that half-closes gets all its replies.
func TestServerHalfClose(t *testing.T) {
	for name, perConnection := range map[string]int{"in order": 0, "several": 4} {
		t.Run(name, func(t *testing.T) {
			s := register(t, &Server{CallsPerConnection: perConnection})
			conn, err := net.Dial("tcp", started(t, s, "tcp"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var stream []byte
			want := make(map[uint32]string)
			for xid := range uint32(20) {
				c := testCall(procEcho, strings.Repeat("x", int(xid)*100))
				c.XID = xid
				want[xid] = string(c.Args)
				message := AppendCall(nil, c)
				stream = fragment(stream, message[:xid+1], false)
				stream = fragment(stream, message[xid+1:], true)
			}
			if _, err := conn.Write(stream); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			answers, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			replies, err := cutRecords(answers, 1<<20)
			if err != nil || len(replies) != len(want) {
				t.Fatalf("%d replies, %v; want %d", len(replies), err, len(want))
			}
			for i, reply := range replies {
				r, err := ParseReply([]byte(reply))
				if err != nil || want[r.XID] != string(r.Results) || perConnection == 0 && r.XID != uint32(i) {
					t.Errorf("reply %d has xid %d, %d octets, %v", i, r.XID, len(r.Results), err)
				}
				delete(want, r.XID)
			}
		})
	}
}

// What the client sends that is no call closes the connection, behind the replies to what came before.
func TestServerHostileStreams(t *testing.T) {
	good := fragment(nil, AppendCall(nil, testCall(procEcho, "abcd")), true)
	for name, bad := range map[string][]byte{
		"a reply":         fragment(nil, AppendAccepted(nil, 9, Success), true),
		"too short":       fragment(nil, []byte("abc"), true),
		"empty":           fragment(nil, nil, true),
		"2^31-1 octets":   {0xff, 0xff, 0xff, 0xff},
		"over the limit":  {0x80, 0, 0x10, 1},
		"empty fragments": make([]byte, 400),
		"HTTP":            []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
	} {
		for _, perConnection := range []int{1, 4} {
			s := register(t, &Server{MaxRecord: 4096, CallsPerConnection: perConnection})
			conn, err := net.Dial("tcp", started(t, s, "tcp"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(append(bytes.Clone(good), bad...)); err != nil {
				t.Fatal(err)
			}
			answers, err := io.ReadAll(conn)
			want := fragment(nil, append(AppendAccepted(nil, 9, Success), "abcd"...), true)
			if err != nil || !bytes.Equal(answers, want) {
				t.Errorf("%s: % x, %v; want % x", name, answers, err, want)
			}
			conn.Close()
		}
	}
}

// A handler that ends its goroutine ends its connection, and no other.
func TestServerGoexit(t *testing.T) {
	for _, perConnection := range []int{1, 4} {
		s := register(t, &Server{CallsPerConnection: perConnection})
		address := started(t, s, "tcp")
		if _, err := dial(t, "tcp", address).Call(t.Context(), testCall(procGoexit, "")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d at a time: %v, want %v", perConnection, err, io.ErrUnexpectedEOF)
		}
		if _, err := dial(t, "tcp", address).Call(t.Context(), testCall(procEcho, "")); err != nil {
			t.Errorf("%d at a time, another connection: %v", perConnection, err)
		}
	}
}

// Answering allocates nothing, whoever asks: the daemon's promise, kept by the library.
func TestServerZeroAllocations(t *testing.T) {
	s := register(t, &Server{})
	cred, err := SysCred{MachineName: "host", GIDs: []uint32{1, 2, 3}}.Auth()
	if err != nil {
		t.Fatal(err)
	}
	c := testCall(procEcho, "sixteen octets..")
	c.Cred = cred
	message := AppendCall(nil, c)
	out := make([]byte, 0, 256)
	var request Request
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.answer(ctx, out, message, &request); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
