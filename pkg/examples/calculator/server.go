package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// procedures are those of version 1. Each decodes its arguments, asks once whether they were whole, and appends its results.
var procedures = oncrpc.Procedures{
	procAdd: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		d := r.Decoder()
		o := readOperands(&d)
		if d.Err() != nil {
			return nil, oncrpc.ErrGarbageArgs
		}
		return xdr.AppendInt64(results, o.a+o.b), nil
	},
	procDivide: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		d := r.Decoder()
		o := readOperands(&d)
		switch {
		case d.Err() != nil:
			return nil, oncrpc.ErrGarbageArgs
		case o.b == 0:
			return appendQuotient(results, quotient{reason: "division by zero"}), nil
		}
		return appendQuotient(results, quotient{defined: true, value: o.a / o.b}), nil
	},
}

// serve answers calls over TCP and UDP, and is registered, until ctx ends. Then the calls that have come are answered.
func serve(ctx context.Context, registrar *rpcbind.Registrar, out io.Writer) error {
	stream, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", ":0")
	if err != nil {
		_ = stream.Close()
		return err
	}
	s := &oncrpc.Server{
		IdleTimeout: 5 * time.Minute,
		Report:      func(_ *oncrpc.Request, err error) { log.Print(err) },
	}
	if err := s.Register(program, version, procedures); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- s.Serve(stream) }()
	go func() { ended <- s.ServePacket(packets) }()

	registration, err := registrar.Register(ctx, program, version, stream, packets)
	if err != nil {
		_ = s.Close()
		return err
	}
	fmt.Fprintln(out, "serving at", stream.Addr(), "and", packets.LocalAddr())
	select {
	case <-ctx.Done():
		err = nil
	case err = <-ended: // a socket failed
	}
	_ = registration.Close() // before the server goes: nobody shall be sent to a port where nobody is
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if late := s.Shutdown(finish); err == nil {
		err = late
	}
	return err
}
