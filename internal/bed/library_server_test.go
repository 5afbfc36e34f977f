package bed_test

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// TestLibraryAnswersFromTheAddressAsked calls servers of pkg/oncrpc and
// pkg/portmapper, bound to the wildcard addresses of a host with several, from
// another host and from their own: each answers from the address that was asked,
// and knows it.
func TestLibraryAnswersFromTheAddressAsked(t *testing.T) {
	t.Parallel()
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		for _, args := range []string{"10.9.9.7/24 dev veth0", "192.0.2.7/32 dev lo", "fd09::7/64 dev veth0 nodad", "fd09:7::7/128 dev lo nodad"} {
			ipCommand(t, exec.Command, "addr add "+args)
		}
		remote := func(name string, args ...string) *exec.Cmd {
			return exec.Command(name, append([]string{"-n", "peer"}, args...)...)
		}
		ipCommand(t, remote, "route add 192.0.2.7 via "+bed.HostIPv4)
		ipCommand(t, remote, "route add fd09:7::7 via "+bed.HostIPv6)

		serveWhere(t, "udp4", "0.0.0.0:900")
		serveWhere(t, "udp", "[::]:901") // takes IPv4 too
		pm, err := portmapper.Start(t.Context(), "[::]:902")
		if err != nil {
			t.Fatal(err)
		}
		defer pm.Close()
		for _, to := range []string{bed.HostIPv4, "10.9.9.7", "192.0.2.7", bed.HostIPv6, "fd09::7", "fd09:7::7", bed.HostLinkLocal} {
			if !strings.Contains(to, ":") {
				ns.Remote(t, func() { asksFrom(t, to, bed.PeerInterface, "900", askWhere) })
				asksFrom(t, to, bed.HostInterface, "900", askWhere)
			}
			ns.Remote(t, func() { asksFrom(t, to, bed.PeerInterface, "901", askWhere) })
			asksFrom(t, to, bed.HostInterface, "901", askWhere)
			ns.Remote(t, func() { asksFrom(t, to, bed.PeerInterface, "902", askWhereRegistered) })
		}
		ns.Remote(t, func() { broadcasts(t, "10.9.9.255:900", bed.HostIPv4+":900") })
	})
}

func ipCommand(t *testing.T, prepare func(string, ...string) *exec.Cmd, args string) {
	t.Helper()
	if out, err := prepare("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// serveWhere serves procedure 1 of libraryProgram over UDP, which answers the
// address that was asked.
func serveWhere(t *testing.T, network, address string) {
	t.Helper()
	s := new(oncrpc.Server)
	err := s.Register(libraryProgram, 1, oncrpc.Procedures{1: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		return xdr.AppendString(results, r.Local.String()), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServePacket(conn) }()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	// Of what arrives before ServePacket has begun, the kernel tells nothing.
	c, err := oncrpc.Dial(patient(t), "udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Call(patient(t), oncrpc.Call{Program: libraryProgram, Version: 1}); err != nil {
		t.Fatal(err)
	}
}

func askWhere(t *testing.T, c *oncrpc.Client) string {
	results, err := c.Call(patient(t), oncrpc.Call{Program: libraryProgram, Version: 1, Procedure: 1})
	if err != nil {
		t.Error(err)
	}
	d := xdr.NewDecoder(results)
	where := d.String(100)
	if at, err := netip.ParseAddrPort(where); err == nil {
		where = netip.AddrPortFrom(at.Addr().WithZone(""), at.Port()).String()
	}
	return where
}

// askWhereRegistered asks a portmapper for its own address, which is the one that
// was asked.
func askWhereRegistered(t *testing.T, c *oncrpc.Client) string {
	args := rpcbind.AppendRPCB(nil, rpcbind.RPCB{Program: rpcbind.Program, Version: 4})
	results, err := c.Call(patient(t), oncrpc.Call{Program: rpcbind.Program, Version: 4, Procedure: rpcbind.ProcGetAddr, Args: args})
	if err != nil {
		t.Error(err)
	}
	d := xdr.NewDecoder(results)
	at, _ := rpcbind.ParseUAddr(d.String(100))
	return at.String()
}

// asksFrom asks with a connected socket, which takes answers from the address
// asked alone. It makes the socket on the thread that calls it.
func asksFrom(t *testing.T, to, zone, port string, ask func(*testing.T, *oncrpc.Client) string) {
	t.Helper()
	want := net.JoinHostPort(to, port)
	if to == bed.HostLinkLocal {
		to += "%" + zone
	}
	at, err := net.ResolveUDPAddr("udp", net.JoinHostPort(to, port))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUDP("udp", nil, at)
	if err != nil {
		t.Fatal(err)
	}
	c := oncrpc.NewClient(conn, oncrpc.ClientConfig{})
	defer c.Close()
	if got := ask(t, c); got != want {
		t.Errorf("%s: it was asked at %q", want, got)
	}
}

// broadcasts asks every host of a network, and expects the answer of one.
func broadcasts(t *testing.T, to, from string) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := oncrpc.AppendCall(nil, oncrpc.Call{XID: 7, Program: libraryProgram, Version: 1, Procedure: 1})
	if _, err := conn.WriteToUDPAddrPort(call, netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
	if deadline, ok := patient(t).Deadline(); ok {
		conn.SetReadDeadline(deadline)
	}
	if _, got, err := conn.ReadFromUDPAddrPort(make([]byte, 1000)); err != nil || got.String() != from {
		t.Errorf("asked at %s, answered from %v, %v; want %s", to, got, err, from)
	}
}
