package rpcbind_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// patience bounds the wait for something that must come.
const patience = 20 * time.Second

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func listenPacket(t testing.TB, network, address string) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc
}

func startPortmapper(t testing.TB, addresses ...string) *portmapper.Portmapper {
	t.Helper()
	pm, err := portmapper.Start(t.Context(), addresses...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pm.Close() })
	return pm
}

// registered returns the addresses of a program in a portmapper, by netid.
func registered(pm *portmapper.Portmapper, prog uint32) map[rpcbind.Netid]string {
	found := make(map[rpcbind.Netid]string)
	for _, b := range pm.Registrations() {
		if b.Program == prog {
			found[b.Netid] = b.Addr
		}
	}
	return found
}

// reports collects what a Registration reports.
type reports chan error

func (r reports) next(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r:
		return err
	case <-time.After(patience):
		t.Fatal("nothing was reported")
		return nil
	}
}

const calculator = 0x20000099

func TestRegister(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	stale := rpcbind.RPCB{Program: calculator, Version: 1, Netid: rpcbind.TCP, Addr: "127.0.0.1.200.200"}
	c, err := pm.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := c.Set(limited(t), stale); err != nil || !ok {
		t.Fatal(ok, err)
	}
	tcp, udp := listen(t, "tcp4", "127.0.0.1:0"), listenPacket(t, "udp4", "127.0.0.1:0")
	path := listen(t, "unix", filepath.Join(t.TempDir(), "calc"))
	r := rpcbind.Registrar{Dial: pm.Dial}
	reg, err := r.Register(limited(t), calculator, 1, tcp, udp, path)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	want := map[rpcbind.Netid]string{}
	for _, b := range reg.Addresses() {
		want[b.Netid] = b.Addr
	}
	if got := registered(pm, calculator); len(got) != 3 || got[rpcbind.TCP] != want[rpcbind.TCP] ||
		got[rpcbind.UDP] != want[rpcbind.UDP] || got[rpcbind.Local] != path.Addr().String() {
		t.Errorf("registered %v, want %v", got, want)
	}
	// Another server takes over one of the transports: that one isn't ours to remove any more.
	for taken := false; !taken; {
		if ok, err := c.Unset(limited(t), stale); err != nil || !ok {
			t.Fatal(ok, err)
		}
		// Between the two the watch, which looks when it begins, may have made ours again.
		if taken, err = c.Set(limited(t), stale); err != nil {
			t.Fatal(err)
		}
	}
	if err := reg.Close(); err != nil {
		t.Error(err)
	}
	if got := registered(pm, calculator); len(got) != 1 || got[rpcbind.TCP] != stale.Addr {
		t.Errorf("after Close %v is registered, want the other server's alone", got)
	}
	if err := reg.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

// If one address is refused, none is registered.
func TestRegisterAllOrNothing(t *testing.T) {
	var calls atomic.Int32
	pm := portmapper.New(portmapper.Options{MayRegister: func(portmapper.Caller) bool {
		return calls.Add(1) != 4 // UNSET twice, SET, and then no second SET
	}})
	if err := pm.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	tcp, udp := listen(t, "tcp4", "127.0.0.1:0"), listenPacket(t, "udp4", "127.0.0.1:0")
	r := rpcbind.Registrar{Dial: pm.Dial}
	_, err := r.Register(limited(t), calculator, 1, tcp, udp)
	var e *rpcbind.Error
	var denied *oncrpc.DeniedError
	if !errors.As(err, &e) || !errors.As(err, &denied) || e.Op != "SET" || e.About.Netid != rpcbind.UDP {
		t.Errorf("%v, want an *Error of the second SET", err)
	}
	if got := registered(pm, calculator); len(got) != 0 || calls.Load() != 5 {
		t.Errorf("after %d calls still registered: %v", calls.Load(), got)
	}
	// Program 100000 is the portmapper's own.
	if _, err := r.Register(limited(t), rpcbind.Program, 4, tcp); !errors.As(err, &e) || !errors.Is(err, rpcbind.ErrRefused) {
		t.Errorf("%v, want an *Error that is %v", err, rpcbind.ErrRefused)
	}
	if _, err := r.Register(limited(t), calculator, 1); err == nil {
		t.Error("no listener: no error")
	}
	nobody := rpcbind.Registrar{Dial: func(ctx context.Context) (*rpcbind.Client, error) {
		return rpcbind.DialPortmapper(ctx, "unix", "/nonexistent/sock")
	}}
	if _, err := nobody.Register(limited(t), calculator, 1, tcp); !errors.As(err, &e) {
		t.Errorf("no portmapper: %v", err)
	}
}

// A portmapper that was started again without its state is told again, at once and by itself.
func TestRegisterAgain(t *testing.T) {
	var mu sync.Mutex
	pm := startPortmapper(t, "127.0.0.1:0")
	at := pm.Addr()
	now := func() *portmapper.Portmapper { mu.Lock(); defer mu.Unlock(); return pm }
	told := make(reports, 100)
	r := rpcbind.Registrar{
		Dial:     func(ctx context.Context) (*rpcbind.Client, error) { return now().Dial(ctx) },
		Interval: time.Hour, // the broken connection is the signal
		Report:   func(err error) { told <- err },
	}
	tcp := listen(t, "tcp4", "127.0.0.1:0")
	reg, err := r.Register(limited(t), calculator, 1, tcp)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := now().Close(); err != nil {
			t.Fatal(err)
		}
		if err := told.next(t); err == nil {
			t.Error("the portmapper is gone: no error was reported")
		}
		fresh := startPortmapper(t, at)
		mu.Lock()
		pm = fresh
		mu.Unlock()
		if err := told.next(t); err != nil {
			t.Errorf("the portmapper is back: %v", err)
		}
		if got := registered(fresh, calculator); len(got) != 1 {
			t.Errorf("registered %v, want one", got)
		}
	}
	if err := reg.Close(); err != nil {
		t.Error(err)
	}
	if got := registered(now(), calculator); len(got) != 0 {
		t.Errorf("registered after Close: %v", got)
	}
	if len(told) != 0 {
		t.Errorf("reported as well: %v", <-told)
	}
}

// While the connection stays, the registration is looked at from time to time; what another server has put in its place
// is left alone.
func TestRegisterLooks(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	told := make(reports, 100)
	r := rpcbind.Registrar{Dial: pm.Dial, Interval: time.Millisecond, Report: func(err error) { told <- err }}
	tcp := listen(t, "tcp4", "127.0.0.1:0")
	reg, err := r.Register(limited(t), calculator, 1, tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	ours := registered(pm, calculator)[rpcbind.TCP]
	if n := pm.Unregister(calculator, 1, ""); n != 1 {
		t.Fatalf("%d unregistered", n)
	}
	if err := told.next(t); err != nil {
		t.Error(err)
	}
	if got := registered(pm, calculator)[rpcbind.TCP]; got != ours {
		t.Errorf("registered again: %q, want %q", got, ours)
	}
	other := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 99}
	if err := pm.Register(calculator, 1, other); err != nil {
		t.Fatal(err)
	}
	// Between the removal and the replacement it may have been looked at.
	for err = told.next(t); err == nil; err = told.next(t) {
		if err := pm.Register(calculator, 1, other); err != nil {
			t.Fatal(err)
		}
	}
	if !errors.Is(err, rpcbind.ErrReplaced) && !errors.Is(err, rpcbind.ErrRefused) {
		t.Errorf("reported %v, want %v", err, rpcbind.ErrReplaced)
	}
	if got := registered(pm, calculator)[rpcbind.TCP]; got != "127.0.0.9.0.99" {
		t.Errorf("registered: %q, want the other server's", got)
	}
	pm.Unregister(calculator, 1, "")
	if err := told.next(t); err != nil {
		t.Errorf("the other server is gone: %v", err)
	}
}

// Without watching there is neither a connection nor a goroutine.
func TestRegisterUnwatched(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	dials := 0
	r := rpcbind.Registrar{Interval: -1, Dial: func(ctx context.Context) (*rpcbind.Client, error) {
		dials++
		return pm.Dial(ctx)
	}}
	reg, err := r.Register(limited(t), calculator, 1, listen(t, "tcp4", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Unregister(limited(t)); err != nil || len(registered(pm, calculator)) != 0 || dials != 2 {
		t.Errorf("%v, %v, %d connections", err, registered(pm, calculator), dials)
	}
}

// A portmapper of version 2 alone takes what it knows of.
func TestRegisterVersion2(t *testing.T) {
	var mu sync.Mutex
	var mappings []rpcbind.Mapping
	at := serveOld(t, func(proc uint32, m rpcbind.Mapping) []rpcbind.Mapping {
		mu.Lock()
		defer mu.Unlock()
		switch proc {
		case rpcbind.ProcSet:
			mappings = append(mappings, m)
		case rpcbind.ProcUnset:
			mappings = slices.DeleteFunc(mappings, func(have rpcbind.Mapping) bool {
				return have.Program == m.Program && have.Version == m.Version
			})
		}
		return slices.Clone(mappings)
	})
	all := func() []rpcbind.Mapping { mu.Lock(); defer mu.Unlock(); return slices.Clone(mappings) }
	r := rpcbind.Registrar{Dial: func(ctx context.Context) (*rpcbind.Client, error) { return rpcbind.DialPortmapper(ctx, "tcp", at) }}
	dual := &net.TCPAddr{IP: net.IPv6unspecified, Port: 2049}
	reg, err := r.Register(limited(t), calculator, 1, dual)
	if err != nil {
		t.Fatal(err)
	}
	want := []rpcbind.Mapping{{Program: calculator, Version: 1, Prot: rpcbind.ProtTCP, Port: 2049}}
	if got := all(); !slices.Equal(got, want) || len(reg.Addresses()) != 1 {
		t.Errorf("registered %v and %v, want %v", got, reg.Addresses(), want)
	}
	if err := reg.Close(); err != nil || len(all()) != 0 {
		t.Errorf("after Close: %v, %v", err, all())
	}
	_, err = r.Register(limited(t), calculator, 1, &net.TCPAddr{IP: net.IPv6loopback, Port: 2049})
	if !errors.Is(err, rpcbind.ErrNotVersion2) {
		t.Errorf("IPv6 alone: %v, want %v", err, rpcbind.ErrNotVersion2)
	}
}

// serveOld is a portmapper that has version 2 alone.
func serveOld(t *testing.T, do func(proc uint32, m rpcbind.Mapping) []rpcbind.Mapping) (address string) {
	return serveStream(t, func(call oncrpc.Call) []byte {
		if call.Version != rpcbind.PMAPVers {
			return oncrpc.AppendProgMismatch(nil, call.XID, 2, 2)
		}
		d := decoder(call.Args)
		m := rpcbind.ReadMapping(&d)
		list := do(call.Procedure, m)
		reply := oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success)
		if call.Procedure != rpcbind.ProcDump {
			return append(reply, 0, 0, 0, 1)
		}
		for _, m := range list {
			reply = rpcbind.AppendMappingElement(reply, m)
		}
		return append(reply, 0, 0, 0, 0)
	})
}

// Everything that went wrong is told in one line, and found in it.
func TestReportOfSeveral(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	told := make(chan error, 10)
	r := rpcbind.Registrar{Dial: pm.Dial, Interval: time.Millisecond, Report: func(err error) { told <- err }}
	reg, err := r.Register(limited(t), calculator, 1, listen(t, "tcp4", "127.0.0.1:0"), listenPacket(t, "udp4", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	for {
		// Another server takes over both; until it has, one may be told alone, or as made again.
		if pm.Register(calculator, 1, &net.TCPAddr{IP: net.IPv4zero, Port: 1}, &net.UDPAddr{IP: net.IPv4zero, Port: 1}) != nil {
			continue // the watch was faster
		}
		select {
		case err = <-told:
		case <-limited(t).Done():
			t.Fatal("nothing was reported")
		}
		if err != nil && strings.Count(err.Error(), rpcbind.ErrReplaced.Error()) == 2 {
			break
		}
		pm.Unregister(calculator, 1, "")
	}
	var e *rpcbind.Error
	if strings.Contains(err.Error(), "\n") || !errors.Is(err, rpcbind.ErrReplaced) || !errors.As(err, &e) || e.About.Program != calculator {
		t.Errorf("%q", err)
	}
}

// Nothing is left running after Close: of Registrations, and of Clients whose portmapper says nothing.
func TestNoGoroutineLeaks(t *testing.T) {
	pm := startPortmapper(t, "127.0.0.1:0")
	silent := serveRaw(t, func(oncrpc.Call) []byte { return []byte{} })
	for range 5 {
		r := rpcbind.Registrar{Dial: pm.Dial}
		reg, err := r.Register(limited(t), calculator, 1, listen(t, "tcp4", "127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := rpcbind.DialPortmapper(limited(t), "tcp", silent)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := c.Dump(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
		c.Close()
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, of := range []string{"rpcbind.(*Registration)", "oncrpc.(*Client)"} {
		if stacks := stillRunning(of); stacks != "" {
			t.Errorf("still running, of %s:\n%s", of, stacks)
		}
	}
}

// stillRunning returns all stacks if after a while there still is one with the given text in it: a goroutine that is done
// may have yet to return.
func stillRunning(text string) string {
	buf := make([]byte, 1<<20)
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		switch {
		case !strings.Contains(stacks, text):
			return ""
		case time.Now().After(end):
			return stacks
		}
	}
}
