package bed_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"golang.org/x/sys/unix"
)

// service is an RPC service over UDP that the test answers for by hand.
type service struct{ conn *net.UDPConn }

func listen(t *testing.T, addr string) service {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return service{conn}
}

func (s service) close() { s.conn.Close() }

// receive returns the next call and where it came from.
func (s service) receive(t *testing.T) (oncrpc.Call, netip.AddrPort) {
	t.Helper()
	buffer := make([]byte, 65536)
	s.conn.SetReadDeadline(time.Now().Add(patience))
	n, from, err := s.conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		t.Fatalf("the service at %v got no call: %v", s.conn.LocalAddr(), err)
	}
	call, err := oncrpc.ParseCall(buffer[:n])
	if err != nil {
		t.Fatalf("the service got %x: %v", buffer[:n], err)
	}
	return call, from
}

// none tells whether no call comes within the time.
func (s service) none(t *testing.T, d time.Duration) bool {
	t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(d))
	_, _, err := s.conn.ReadFromUDPAddrPort(make([]byte, 65536))
	return err != nil
}

// reply sends an accepted reply with results, which are whole units.
func (s service) reply(t *testing.T, to netip.AddrPort, xid uint32, results []byte) {
	t.Helper()
	for len(results)%4 != 0 {
		results = append(results, 0)
	}
	if _, err := s.conn.WriteToUDPAddrPort(accepted(xid, oncrpc.Success, results), to); err != nil {
		t.Fatal(err)
	}
}

// withLength encodes what CALLIT returns of a service's results, padded as
// service.reply sends them.
func withLength(results string) []byte {
	for len(results)%4 != 0 {
		results += "\x00"
	}
	return str(results)
}

// socketState is what the kernel lists of a UDP socket.
type socketState struct{ connected bool }

// udpSocket returns the state of the IPv4 UDP socket with this port, or nil.
func udpSocket(t *testing.T, port uint16) *socketState {
	t.Helper()
	f, err := os.Open("/proc/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 2 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			return &socketState{connected: fields[2] != "00000000:0000"}
		}
	}
	return nil
}

// eventually polls until ok, for something that must happen soon.
func eventually(ok func() bool) bool {
	deadline := time.Now().Add(patience)
	for poll := time.NewTicker(5 * time.Millisecond); time.Now().Before(deadline); <-poll.C {
		if ok() {
			return true
		}
	}
	return false
}

func interfaceIndex(t *testing.T, name string) uint32 {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(i.Index)
}

// udp6Port returns the port that a descriptor is bound to, if it is a UDP
// socket of IPv6.
func udp6Port(fd int) (uint16, bool) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || err2 != nil || domain != unix.AF_INET6 || kind != unix.SOCK_DGRAM {
		return 0, false
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, false
	}
	return uint16(name.(*unix.SockaddrInet6).Port), true
}
