package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// startServer runs "calculator serve" against a portmapper of its own until the end of the test or until stop is called.
func startServer(t *testing.T) (pm *portmapper.Portmapper, stop func()) {
	t.Helper()
	pm, err := portmapper.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pm.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	said, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-host", pm.Addr(), "serve"}, &firstLine{to: said}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-said:
	case err := <-ended:
		ended <- nil // for stop
		t.Fatalf("serve: %v", err)
	}
	return pm, stop
}

type firstLine struct{ to chan string }

func (l *firstLine) Write(b []byte) (int, error) {
	l.to <- string(b)
	return len(b), nil
}

func TestCalculator(t *testing.T) {
	pm, stop := startServer(t)
	for _, tt := range []struct{ args, want string }{
		{"add 40 2", "42"},
		{"-network udp add 40 2", "42"},
		{"add -9223372036854775808 1", "-9223372036854775807"},
		{"divide 7 2", "3"},
		{"-network udp divide -7 7", "-1"},
		{"divide 7 0", "error: division by zero"},
		{"multiply 7 2", "error: " + usage},
		{"add 7", "error: " + usage},
		{"add seven 2", `error: strconv.ParseInt: parsing "seven": invalid syntax`},
	} {
		var out strings.Builder
		err := run(t.Context(), append([]string{"-host", pm.Addr()}, strings.Fields(tt.args)...), &out)
		got := strings.TrimSpace(out.String())
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want {
			t.Errorf("calculator %s: %q, want %q", tt.args, got, tt.want)
		}
	}
	stop()
	if err := run(t.Context(), []string{"-host", pm.Addr(), "add", "1", "2"}, io.Discard); !errors.Is(err, rpcbind.ErrNotRegistered) {
		t.Errorf("after the server's end: %v, want one that is %v", err, rpcbind.ErrNotRegistered)
	}
}

// What isn't two hypers is garbage, and what the version doesn't have unavailable.
func TestRefusals(t *testing.T) {
	pm, _ := startServer(t)
	c, err := dial(t.Context(), "tcp", pm.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	whole := appendOperands(nil, operands{1, 2})
	for _, proc := range []uint32{procAdd, procDivide} {
		for n := range whole {
			if _, err := c.Conn.Call(t.Context(), proc, whole[:n]); !errors.Is(err, oncrpc.ErrGarbageArgs) {
				t.Errorf("procedure %d with %d octets: %v", proc, n, err)
			}
		}
	}
	if _, err := c.Conn.Call(t.Context(), 3, nil); !errors.Is(err, oncrpc.ErrProcUnavail) {
		t.Errorf("procedure 3: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	pm, err := portmapper.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := pm.Addr()
	pm.Close()
	var e *rpcbind.Error
	for _, args := range [][]string{{"-host", at, "serve"}, {"-host", at, "add", "1", "2"}} {
		if err := run(t.Context(), args, io.Discard); !errors.As(err, &e) {
			t.Errorf("%v: %v, want an *rpcbind.Error", args, err)
		}
	}
}
