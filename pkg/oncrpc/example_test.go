package oncrpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// A program of one's own takes a number from 0x20000000 to 0x3fffffff (RFC 5531 section 13.2).
const (
	calculator        = 0x20000001
	calculatorVersion = 1
	procAdd           = 1
	procDivide        = 2
)

// operands reads the arguments of both procedures: two hypers.
func operands(r *oncrpc.Request) (a, b int64, err error) {
	d := r.Decoder()
	a, b = d.Int64(), d.Int64()
	if d.Err() != nil {
		return 0, 0, oncrpc.ErrGarbageArgs
	}
	return a, b, nil
}

func addNumbers(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	a, b, err := operands(r)
	return xdr.AppendInt64(results, a+b), err
}

func divideNumbers(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
	a, b, err := operands(r)
	if err == nil && b == 0 {
		err = errors.New("division by zero") // becomes SYSTEM_ERR; a program of one's own says such things in its results
	}
	if err != nil {
		return nil, err
	}
	return xdr.AppendInt64(results, a/b), nil
}

// A calculator over TCP and UDP on the same port, and its clients.
func Example() {
	ctx := context.Background()
	s := &oncrpc.Server{Report: func(r *oncrpc.Request, err error) { fmt.Println("server:", err) }}
	err := s.Register(calculator, calculatorVersion, oncrpc.Procedures{procAdd: addNumbers, procDivide: divideNumbers})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	address := listener.Addr().String()
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(listener)
	go s.ServePacket(packets)
	defer s.Shutdown(ctx)

	for _, network := range []string{"tcp", "udp"} {
		c, err := oncrpc.Dial(ctx, network, address)
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		args := xdr.AppendInt64(xdr.AppendInt64(nil, 40), 2)
		results, err := c.Call(ctx, oncrpc.Call{Program: calculator, Version: calculatorVersion, Procedure: procAdd, Args: args})
		if err != nil {
			log.Fatal(err)
		}
		d := xdr.NewDecoder(results)
		fmt.Println(network, d.Int64(), d.Err())
	}
	// Output:
	// tcp 42 <nil>
	// udp 42 <nil>
}

// What a server that doesn't carry out a call says.
func ExampleClient_Call() {
	ctx := context.Background()
	s := new(oncrpc.Server)
	if err := s.Register(calculator, calculatorVersion, oncrpc.Procedures{procDivide: divideNumbers}); err != nil {
		log.Fatal(err)
	}
	ours, theirs := net.Pipe()
	go s.ServeConn(theirs)
	c := oncrpc.NewClient(ours, oncrpc.ClientConfig{})
	defer c.Close()

	_, err := c.Call(ctx, oncrpc.Call{Program: calculator, Version: 4})
	fmt.Println(err)
	var refused *oncrpc.AcceptError
	if errors.As(err, &refused) && refused.Stat == oncrpc.ProgMismatch {
		fmt.Println("the newest version there is", refused.High)
	}
	byZero := xdr.AppendInt64(xdr.AppendInt64(nil, 1), 0)
	_, err = c.Call(ctx, oncrpc.Call{Program: calculator, Version: 1, Procedure: procDivide, Args: byZero})
	fmt.Println(errors.Is(err, oncrpc.ErrSystemErr))
	// Output:
	// oncrpc: program 536870913 version 4 procedure 0 at pipe pipe: PROG_MISMATCH: the server has version 1
	// the newest version there is 1
	// true
}

// A server that carries out calls of root only, but answers procedure 0 to everybody, as clients expect. What AUTH_SYS says
// isn't proven: a server on a network has to look at r.Remote as well.
func ExampleServer_authorize() {
	ctx := context.Background()
	s := &oncrpc.Server{Authorize: func(_ context.Context, r *oncrpc.Request) oncrpc.AuthStat {
		if r.Procedure == 0 {
			return oncrpc.AuthOK
		}
		if c, ok := r.SysCred(); ok && c.UID == 0 {
			return oncrpc.AuthOK
		}
		return oncrpc.AuthTooWeak
	}}
	if err := s.Register(calculator, calculatorVersion, oncrpc.Procedures{procAdd: addNumbers}); err != nil {
		log.Fatal(err)
	}
	for _, uid := range []uint32{0, 1000} {
		cred, err := oncrpc.SysCred{MachineName: "client.example", UID: uid}.Auth()
		if err != nil {
			log.Fatal(err)
		}
		ours, theirs := net.Pipe()
		go s.ServeConn(theirs)
		c := oncrpc.NewClient(ours, oncrpc.ClientConfig{Cred: cred})
		args := xdr.AppendInt64(xdr.AppendInt64(nil, 40), 2)
		_, err = c.Call(ctx, oncrpc.Call{Program: calculator, Version: calculatorVersion, Procedure: procAdd, Args: args})
		var denied *oncrpc.DeniedError
		fmt.Println(uid, errors.As(err, &denied))
		c.Close()
	}
	// Output:
	// 0 false
	// 1000 true
}

// Messages and records without Client and Server, for transports of one's own.
func ExampleParseCall() {
	stream := oncrpc.BeginRecord(nil)
	stream = oncrpc.AppendCall(stream, oncrpc.Call{XID: 7, Program: 100000, Version: 2, Procedure: 3})
	for _, v := range []uint32{100003, 3, 6, 0} { // arguments can be appended behind the header
		stream = xdr.AppendUint32(stream, v)
	}
	oncrpc.EndRecord(stream, 0)

	records := oncrpc.RecordReader{Limit: 9000}
	records.Feed(stream)
	for {
		record, ok, err := records.Next()
		if err != nil {
			log.Fatal(err)
		}
		if !ok {
			break
		}
		call, err := oncrpc.ParseCall(record)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(call.XID, call.Program, call.Version, call.Procedure, len(call.Args))
	}
	// Output: 7 100000 2 3 16
}
