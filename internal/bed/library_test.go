package bed_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"golang.org/x/sys/unix"
)

// libraryProgram is what the tests of pkg/rpcbind register.
const libraryProgram = 0x20000070

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// libraryDial opens a connection that is closed with the test.
func libraryDial(t *testing.T, network, address string) *rpcbind.Client {
	t.Helper()
	c, err := rpcbind.DialPortmapper(patient(t), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestLibraryProcedures asks every portmapper every question that pkg/rpcbind
// has, over every transport.
func TestLibraryProcedures(t *testing.T) {
	t.Parallel()
	// On a host with a loopback interface alone, rpcbind answers no remote call.
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject, "-r")
		serve(t, "0.0.0.0:40001") // and [::]: package net takes both
		register(t, ns, libraryProgram+100, 1, "udp", "0.0.0.0.156.65")
		register(t, ns, libraryProgram+100, 1, "udp6", "::1.156.65")
		for i, at := range [][2]string{{"unix", rpcbind.SocketPath}, {"unix", rpcbind.SocketAbstract}, {"tcp", "127.0.0.1"},
			{"udp", "127.0.0.1"}, {"tcp", "::1"}, {"udp", "::1"}} {
			if at[1] == rpcbind.SocketAbstract && subject == bed.Rpcbind {
				continue // 1.2.6 has none
			}
			libraryProcedures(t, libraryDial(t, at[0], at[1]), libraryProgram+uint32(i))
		}
	})
}

func libraryProcedures(t *testing.T, c *rpcbind.Client, program uint32) {
	ctx := patient(t)
	n := c.Netid()
	own := map[rpcbind.Netid]string{rpcbind.UDP: "127.0.0.1.0.111", rpcbind.TCP: "127.0.0.1.0.111",
		rpcbind.UDP6: "::1.0.111", rpcbind.TCP6: "::1.0.111", rpcbind.Local: rpcbind.SocketPath}[n]
	b := rpcbind.RPCB{Program: program, Version: 2, Netid: n, Addr: strings.Replace(own, ".0.111", ".8.1", 1)}
	m := rpcbind.Mapping{Program: program, Version: 5, Prot: rpcbind.ProtTCP, Port: 2049}
	for _, step := range []struct {
		what string
		ask  func() (any, error)
		want any
	}{
		{"NULL version 2", func() (any, error) { return nil, c.Null(ctx, 2) }, nil},
		{"NULL version 3", func() (any, error) { return nil, c.Null(ctx, 3) }, nil},
		{"NULL version 4", func() (any, error) { return nil, c.Null(ctx, 4) }, nil},
		{"SET", func() (any, error) { return c.Set(ctx, b) }, true},
		{"SET version 2", func() (any, error) { return c.SetMapping(ctx, m) }, true},
		{"GETADDR", func() (any, error) { return c.GetAddr(ctx, b) }, b.Addr},
		{"GETADDR of the portmapper", func() (any, error) {
			return c.GetAddr(ctx, rpcbind.RPCB{Program: rpcbind.Program, Version: 4, Netid: n})
		}, own},
		{"GETVERSADDR", func() (any, error) { return c.GetVersAddr(ctx, b) }, b.Addr},
		{"GETVERSADDR of another version", func() (any, error) {
			return c.GetVersAddr(ctx, rpcbind.RPCB{Program: program, Version: 9, Netid: n})
		}, ""},
		{"GETPORT", func() (any, error) { return c.GetPort(ctx, m) }, uint32(2049)},
		{"DUMP", func() (any, error) {
			all, err := c.Dump(ctx)
			for _, r := range all {
				if r.Program == b.Program && r.Version == b.Version {
					return r.Addr, err
				}
			}
			return all, err
		}, b.Addr},
		{"DUMP version 2", func() (any, error) {
			all, err := c.DumpMappings(ctx)
			for _, have := range all {
				if have == m {
					return true, err
				}
			}
			return all, err
		}, true},
		{"GETADDRLIST", func() (any, error) {
			list, err := c.GetAddrList(ctx, rpcbind.RPCB{Program: rpcbind.Program, Version: 4, Netid: n})
			return len(list), err
		}, map[bool]int{true: 0, false: 2}[n == rpcbind.Local]},
		{"GETTIME", func() (any, error) {
			now, err := c.GetTime(ctx)
			return time.Since(now).Abs() < time.Minute, err
		}, true},
		{"GETSTAT", func() (any, error) {
			s, err := c.Stat(ctx)
			return err == nil && s.Of(4).Calls[rpcbind.ProcNull] > 0 && s.Of(4).Sets > 0 && len(s.Of(4).Lookups) > 0 && s.Of(2).Sets > 0, err
		}, true},
		{"UADDR2TADDR and back", func() (any, error) {
			taddr, err := c.UAddr2TAddr(ctx, b.Addr)
			if err != nil {
				return nil, err
			}
			return c.TAddr2UAddr(ctx, taddr)
		}, b.Addr},
		{"UNSET", func() (any, error) { return c.Unset(ctx, b) }, true},
		{"UNSET version 2", func() (any, error) { return c.UnsetMapping(ctx, m) }, true},
		{"GETADDR after", func() (any, error) { return c.GetAddr(ctx, b) }, ""},
	} {
		if got, err := step.ask(); err != nil || got != step.want {
			t.Errorf("%s over %s %v: %v, %v; want %v", step.what, n, c.RemoteAddr(), got, err, step.want)
		}
	}
	libraryRemoteCalls(t, c)
}

func libraryRemoteCalls(t *testing.T, c *rpcbind.Client) {
	call := rpcbind.RemoteCall{Program: libraryProgram + 100, Version: 1, Procedure: echoProcedure, Args: []byte("argument")}
	n := c.Netid()
	if n != rpcbind.UDP && n != rpcbind.UDP6 {
		if _, err := c.CallIt(patient(t), call); !errors.Is(err, rpcbind.ErrNeedsUDP) {
			t.Errorf("CALLIT over %s: %v", n, err)
		}
		return
	}
	for what, ask := range map[string]func(context.Context, rpcbind.RemoteCall) (rpcbind.Answer, error){
		"BCAST": c.CallIt, "INDIRECT": c.Indirect,
	} {
		a, err := ask(patient(t), call)
		at, ok := rpcbind.ParseUAddr(a.Addr)
		if err != nil || !ok || at.Port() != 40001 || string(a.Results) != "argument" {
			t.Errorf("%s over %s: %+v, %v", what, n, a, err)
		}
	}
	call.Version = 2
	var refused *oncrpc.AcceptError
	if _, err := c.Indirect(patient(t), call); !errors.As(err, &refused) || refused.Stat != oncrpc.ProgMismatch || refused.High != 1 {
		t.Errorf("INDIRECT of another version over %s: %v", n, err)
	}
}

// TestLibraryRegister registers with the portmapper of the host, which is killed
// and started again without its state.
func TestLibraryRegister(t *testing.T) {
	t.Parallel()
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		if _, err := rpcbind.DialLocal(patient(t)); !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), rpcbind.SocketPath) {
			t.Errorf("without a portmapper: %v", err)
		}
		first := ns.Start(t, subject)
		register(t, ns, libraryProgram, 1, "tcp", "0.0.0.0.200.200") // left behind by a server that was killed
		told := make(chan error, 100)
		registrar := rpcbind.Registrar{Interval: time.Hour, Report: func(err error) { told <- err }}
		tcp, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		r, err := registrar.Register(patient(t), libraryProgram, 1, tcp, udp)
		if err != nil {
			t.Fatal(err)
		}
		libraryRegistered(t, r.Addresses())
		if err := first.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		first.Wait()
		libraryTold(t, told, false)
		ns.Start(t, subject)
		libraryTold(t, told, true)
		libraryRegistered(t, r.Addresses())

		for _, network := range []string{"tcp", "udp"} {
			addr, err := rpcbind.Lookup(patient(t), network, "127.0.0.1", libraryProgram, 1)
			if err != nil || !strings.HasPrefix(addr.String(), "127.0.0.1:") {
				t.Errorf("%s: %v, %v", network, addr, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		libraryRegistered(t, nil)
		if _, err := rpcbind.Dial(patient(t), "tcp", "127.0.0.1", libraryProgram, 1); !errors.Is(err, rpcbind.ErrNotRegistered) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// libraryTold waits for the next report.
func libraryTold(t *testing.T, told <-chan error, good bool) {
	t.Helper()
	select {
	case err := <-told:
		if (err == nil) != good {
			t.Errorf("reported: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("nothing was reported")
	}
}

// libraryRegistered compares what is registered of libraryProgram.
func libraryRegistered(t *testing.T, want []rpcbind.RPCB) {
	t.Helper()
	c, err := rpcbind.DialLocal(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Dump(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, have := range all {
		if have.Program != libraryProgram {
			continue
		}
		found++
		ok := false
		for _, w := range want {
			ok = ok || have.Netid == w.Netid && have.Addr == w.Addr && have.Version == w.Version
		}
		if !ok || have.Owner != rpcbind.OwnerSuperuser {
			t.Errorf("registered: %+v, want %+v of %s", have, want, rpcbind.OwnerSuperuser)
		}
	}
	if found != len(want) {
		t.Errorf("%d are registered, want %d: %v", found, len(want), all)
	}
}

// TestLibraryBroadcast asks from another host for a service of ours.
func TestLibraryBroadcast(t *testing.T) {
	t.Parallel()
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject, "-r")
		serve(t, "0.0.0.0:40001") // and [::]: package net takes both
		register(t, ns, libraryProgram, 1, "udp", "0.0.0.0.156.65")
		register(t, ns, libraryProgram, 1, "udp6", "::.156.65")
		want := map[netip.Addr]bool{bed.Addr(bed.HostIPv4): true}
		if subject == bed.Gportmap { // rpcbind doesn't hear the group: row 26
			want[bed.Addr(bed.HostLinkLocal)] = true
		}
		call := rpcbind.RemoteCall{Program: libraryProgram, Version: 1, Procedure: echoProcedure, Args: []byte("argument")}
		answers := make(map[netip.Addr]rpcbind.Answer)
		ns.Remote(t, func() {
			for a, err := range rpcbind.Broadcast(patient(t), call) {
				if err != nil {
					t.Error(err)
					return
				}
				answers[a.From.Addr().WithZone("")] = a
				if len(answers) == len(want) {
					return
				}
			}
		})
		for from := range want {
			a := answers[from]
			at, ok := rpcbind.ParseUAddr(a.Addr)
			if !ok || at != netip.AddrPortFrom(from, 40001) || string(a.Results) != "argument" {
				t.Errorf("from %v: %+v; all: %v", from, a, answers)
			}
		}
	})
}

// TestLibrarySquatter registers while another user has the portmapper's abstract
// name, which rpcbind 1.2.6 leaves free.
func TestLibrarySquatter(t *testing.T) {
	t.Parallel()
	t.Run(bed.Rpcbind.String(), func(t *testing.T) {
		bed.NeedRpcbind(t)
		bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
			ns.Start(t, bed.Rpcbind)
			squat(t, 65534, rpcbind.SocketAbstract)
			c, err := rpcbind.DialLocal(patient(t))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.RemoteAddr().String(); got != rpcbind.SocketPath {
				t.Errorf("connected to %s, which is another user's", got)
			}
		})
	})
}

// squat listens on a local socket as another user, until the test ends.
func squat(t *testing.T, uid int, name string) {
	t.Helper()
	type listener struct {
		fd  int
		err error
	}
	made := make(chan listener)
	go func() {
		// The thread changes its user: it ends with the goroutine.
		runtime.LockOSThread()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		}
		if err == nil {
			err = unix.Listen(fd, 16)
		}
		made <- listener{fd, err}
	}()
	l := <-made
	if l.err != nil {
		t.Fatal(l.err)
	}
	t.Cleanup(func() { unix.Close(l.fd) })
	// Who doesn't look is taken in.
	c, err := net.Dial("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
