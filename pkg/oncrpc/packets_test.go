package oncrpc

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/xdr"
)

// whereAsked answers the addresses of the two ends.
func whereAsked(_ context.Context, r *Request, results []byte) ([]byte, error) {
	return xdr.AppendString(xdr.AppendString(results, r.Local.String()), r.Remote.String()), nil
}

// A socket that is bound to the wildcard address answers from the address that was asked: a client whose socket is connected
// gets nothing else to see. A host has many addresses on its loopback interface alone.
func TestServerAnswersFromTheAddressAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: elsewhere the system chooses the address that a reply leaves from")
	}
	s := new(Server)
	if err := s.Register(testProgram, testVersion, Procedures{procEcho: whereAsked}); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp4", "udp6", "udp"} {
		conn, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Logf("%s: %v", network, err) // a host without IPv6
			continue
		}
		served := make(chan error, 1)
		go func() { served <- s.ServePacket(conn) }()
		port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		if c, err := Dial(t.Context(), "udp", conn.LocalAddr().String()); err == nil {
			// Of what arrives before ServePacket has begun, the kernel tells nothing.
			if _, err := c.Call(t.Context(), testCall(0, "")); err != nil {
				t.Error(err)
			}
			c.Close()
		}
		for _, to := range []string{"127.0.0.1", "127.0.0.5", "127.3.2.1", "::1"} {
			at := netip.AddrPortFrom(netip.MustParseAddr(to), port)
			if at.Addr().Is4() && network == "udp6" || at.Addr().Is6() && network == "udp4" {
				continue
			}
			askWhere(t, at)
		}
		conn.Close()
		<-served
	}
}

func askWhere(t *testing.T, at netip.AddrPort) {
	t.Helper()
	c, err := Dial(t.Context(), "udp", at.String())
	if err != nil {
		t.Logf("%v: %v", at, err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	results, err := c.Call(ctx, testCall(procEcho, ""))
	d := xdr.NewDecoder(results)
	local, remote := d.String(100), d.String(100)
	if err != nil || local != at.String() || remote != c.LocalAddr().String() {
		t.Errorf("%v: asked at %q from %q, %v; the client is %v", at, local, remote, err, c.LocalAddr())
	}
}

// A client with a local datagram socket that doesn't read keeps a worker for WriteTimeout, and no longer: Shutdown ends.
func TestServerDatagramsToWhoDoesNotRead(t *testing.T) {
	dir := t.TempDir()
	at := &net.UnixAddr{Name: filepath.Join(dir, "server"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", at)
	if err != nil {
		t.Skipf("needs local datagram sockets: %v", err)
	}
	full := make(chan error, 1)
	s := register(t, &Server{WriteTimeout: time.Millisecond, Report: func(_ *Request, err error) {
		select {
		case full <- err:
		default:
		}
	}})
	served := make(chan error, 1)
	go func() { served <- s.ServePacket(conn) }()
	deaf, err := net.DialUnix("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "deaf"), Net: "unixgram"}, at)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for err == nil {
		if _, err := deaf.Write(AppendCall(nil, testCall(procEcho, "sixteen octets.."))); err != nil {
			t.Fatal(err)
		}
		select {
		case err = <-full:
		default:
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reported %v, want %v", err, os.ErrDeadlineExceeded)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != ErrServerClosed {
		t.Errorf("%v, want %v", err, ErrServerClosed)
	}
}

// Datagrams that are no calls get no answer and end nothing.
func TestServerHostileDatagrams(t *testing.T) {
	s := register(t, &Server{MaxRecord: 200, DatagramWorkers: 1})
	conn, err := net.Dial("udp", started(t, s, "udp"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, message := range [][]byte{
		nil,
		[]byte("abc"),
		AppendAccepted(nil, 9, Success),
		AppendCall(nil, testCall(procEcho, strings.Repeat("x", 161))), // one octet over the limit
		AppendCall(nil, testCall(procGoexit, "")),                     // its worker is replaced
		AppendCall(nil, testCall(procEcho, strings.Repeat("y", 160))),
	} {
		if _, err := conn.Write(message); err != nil {
			t.Fatal(err)
		}
	}
	in := make([]byte, 65536)
	n, err := conn.Read(in)
	if want := append(AppendAccepted(nil, 9, Success), strings.Repeat("y", 160)...); err != nil || !bytes.Equal(in[:n], want) {
		t.Errorf("% x, %v; want the one answer\n% x", in[:n], err, want)
	}
}
