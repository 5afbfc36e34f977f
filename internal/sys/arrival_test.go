package sys

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestArrivalInterface(t *testing.T) {
	if !netns(t) {
		return
	}
	there, ifindex := pair(t)
	tcp, tcp6 := mustTCP(t, "0.0.0.0:1111"), mustTCP(t, "[::]:1111")
	l, err := listen(dualStack(t, unix.SOCK_STREAM), "dual stack")
	if err != nil {
		t.Fatal(err)
	}
	dual := tcpSocket(l)
	defer dual.Close()
	tests := []struct {
		name      string
		server    *Socket
		to        string
		neighbour bool
		want      uint32
	}{
		{"tcp, loopback", tcp, "127.0.0.1", false, 1},
		{"tcp, own address", tcp, "192.0.2.1", false, ifindex},
		{"tcp, neighbour", tcp, "192.0.2.1", true, ifindex},
		{"tcp6, loopback", tcp6, "::1", false, 1},
		{"tcp6, own address", tcp6, "fd00::1", false, ifindex},
		{"tcp6, neighbour", tcp6, "fd00::1", true, ifindex},
		{"tcp6, link-local neighbour", tcp6, "fe80::1", true, ifindex},
		{"dual stack, IPv4 loopback", dual, "127.0.0.1", false, 1},
		{"dual stack, IPv4 neighbour", dual, "192.0.2.1", true, ifindex},
		{"dual stack, IPv6 loopback", dual, "::1", false, 1},
		{"dual stack, IPv6 neighbour", dual, "fd00::1", true, ifindex},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fd int
			connect := func() (err error) {
				sa := raw(at(test.to, test.server.Addr.Port()))
				family := unix.AF_INET
				if v6, ok := sa.(*unix.SockaddrInet6); ok {
					family = unix.AF_INET6
					if test.to == "fe80::1" {
						i, err := net.InterfaceByName("gpb")
						if err != nil {
							return err
						}
						v6.ZoneId = uint32(i.Index)
					}
				}
				if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				return unix.Connect(fd, sa)
			}
			if test.neighbour {
				there(t, connect)
			} else {
				onThread(t, connect)
			}
			defer unix.Close(fd)
			conn, err := test.server.Listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 2 { // asking changes nothing
				if got, err := ArrivalInterface(conn.(*net.TCPConn)); err != nil || got != test.want {
					t.Errorf("ArrivalInterface = %d, %v, want %d", got, err, test.want)
				}
			}
			conn.Close()
			if got, err := ArrivalInterface(conn.(*net.TCPConn)); err == nil {
				t.Errorf("closed: ArrivalInterface = %d, want an error", got)
			}
		})
	}
}

// A neighbour that spoofs 127.0.0.1, where route_localnet allows it, does not pass for loopback.
func TestArrivalSpoofedLoopback(t *testing.T) {
	if !netns(t) {
		return
	}
	there, ifindex := pair(t)
	for _, name := range []string{"route_localnet", "accept_local"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/gpa/"+name, []byte("1"), 0); err != nil {
			t.Skipf("needs to set %s: %v", name, err)
		}
	}
	for _, scope := range []string{"all", "gpa"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+scope+"/rp_filter", []byte("0"), 0); err != nil {
			t.Skipf("needs to set rp_filter: %v", err)
		}
	}
	server := mustUDP(t, "0.0.0.0:1111")
	there(t, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/gpb/route_localnet", []byte("1"), 0); err != nil {
			return err
		}
		ip(t, "link set lo up")
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		control := make([]byte, controlOctets)
		control = control[:putSource(control, netip.MustParseAddr("127.0.0.1"), 0)]
		return unix.Sendmsg(fd, []byte("spoof"), control, raw(at("192.0.2.1", 1111)), 0)
	})
	d := read(t, NewBatch(1, 100), server.Packet)[0]
	if d.Remote.Addr() != netip.MustParseAddr("127.0.0.1") || d.Ifindex != ifindex {
		t.Errorf("Read: %+v, want a source of 127.0.0.1 by interface %d", d, ifindex)
	}
}
