package sys

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair makes a veth pair whose far end is in another namespace, and returns a function that runs on a thread there. Here is
// gpa, 192.0.2.1/24, fd00::1/64, fe80::1/64; there gpb, the same with 2. It also gives the near interface's index.
func pair(t *testing.T) (there func(*testing.T, func() error), ifindex uint32) {
	t.Helper()
	// A process to keep the far namespace, which ends with us: cat, at the end of its input. Not by Pdeathsig, which means
	// the death of the thread that started it, and those of onThread die.
	far := exec.Command("cat")
	far.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	hold, err := far.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hold.Close()
		far.Wait()
	})
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", far.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	there = func(t *testing.T, f func() error) {
		t.Helper()
		onThread(t, func() error {
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		})
	}
	ip(t, fmt.Sprintf("link add gpa address 02:00:00:00:00:0a type veth peer name gpb netns %d", far.Process.Pid))
	configure := func(dev, n string) {
		for _, a := range []string{"192.0.2." + n + "/24 brd 192.0.2.255", "fd00::" + n + "/64 nodad", "fe80::" + n + "/64 nodad"} {
			ip(t, "addr add "+a+" dev "+dev)
		}
		ip(t, "link set "+dev+" addrgenmode none up") // or there would be addresses under duplicate detection
		ip(t, "-6 route add multicast ff00::/8 dev "+dev+" table local")
	}
	configure("gpa", "1")
	there(t, func() error { configure("gpb", "2"); return nil })
	i, err := net.InterfaceByName("gpa")
	if err != nil {
		t.Fatal(err)
	}
	return there, uint32(i.Index)
}

// send sends one datagram from a new socket on this thread's namespace; it may broadcast.
func send(to unix.Sockaddr, payload string) error {
	family := unix.AF_INET
	if _, ok := to.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte(payload), 0, to)
}

// exchange sends one datagram from this thread's namespace and returns the source of the answer to it.
func exchange(to unix.Sockaddr) (from netip.AddrPort, err error) {
	family := unix.AF_INET
	if _, ok := to.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return from, err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(patience))
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err != nil {
		return from, err
	}
	if err := unix.Sendto(fd, []byte("call"), 0, to); err != nil {
		return from, err
	}
	_, sa, err := unix.Recvfrom(fd, make([]byte, 100), 0)
	if err != nil {
		return from, err
	}
	return addrPort(sa), nil
}

// Calls from a neighbour: unicast, broadcast, multicast, link-local. The answers leave from the right address.
func TestBatchNeighbour(t *testing.T) {
	if !netns(t) {
		return
	}
	there, ifindex := pair(t)
	ip(t, "addr add 192.0.2.11/24 dev gpa")
	udp, udp6, dual := mustUDP(t, "0.0.0.0:1111").Packet, mustUDP(t, "[::]:1111").Packet, dualStackUDP(t)
	group := netip.MustParseAddr("ff02::202")
	for range 2 { // the second time it is a member
		if err := udp6.JoinGroup(group, ifindex); err != nil {
			t.Fatal(err)
		}
	}
	if err := udp6.JoinGroup(netip.MustParseAddr("fd00::1"), ifindex); err == nil {
		t.Error("JoinGroup of a unicast address succeeded")
	}
	if err := udp6.JoinGroup(group, 9999); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("JoinGroup on a missing interface: %v, want ENODEV", err)
	}
	if err := udp.JoinGroup(group, ifindex); err == nil {
		t.Error("JoinGroup on an IPv4 socket succeeded")
	}
	scoped := func(a string) *unix.SockaddrInet6 { // gpb is the far namespace's interface 2
		return &unix.SockaddrInet6{Addr: netip.MustParseAddr(a).As16()}
	}
	addr := netip.MustParseAddr
	tests := []struct {
		name      string
		server    *PacketConn
		to        unix.Sockaddr
		local     netip.Addr
		multicast bool
		answer    netip.Addr
	}{
		{"unicast", udp, raw(at("192.0.2.1", 1111)), addr("192.0.2.1"), false, addr("192.0.2.1")},
		{"second address", udp, raw(at("192.0.2.11", 1111)), addr("192.0.2.11"), false, addr("192.0.2.11")},
		{"subnet broadcast", udp, raw(at("192.0.2.255", 1111)), addr("192.0.2.1"), true, addr("192.0.2.1")},
		{"udp6", udp6, raw(at("fd00::1", 1111)), addr("fd00::1"), false, addr("fd00::1")},
		{"link-local", udp6, scoped("fe80::1"), addr("fe80::1"), false, addr("fe80::1")},
		{"multicast", udp6, scoped("ff02::202"), netip.Addr{}, true, addr("fd00::1")},
		{"dual stack broadcast", dual, raw(at("192.0.2.255", 0)), addr("192.0.2.1"), true, addr("192.0.2.1")},
		{"dual stack link-local", dual, scoped("fe80::1"), addr("fe80::1"), false, addr("fe80::1")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			switch sa := test.to.(type) {
			case *unix.SockaddrInet4:
				sa.Port = int(test.server.LocalAddr().Port())
			case *unix.SockaddrInet6:
				sa.Port = int(test.server.LocalAddr().Port())
			}
			served := make(chan Datagram, 1)
			failed := make(chan error, 1)
			if err := test.server.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			go func() {
				b := NewBatch(1, 100)
				got, err := b.Read(test.server)
				if err == nil {
					served <- got[0]
					err = b.Write(test.server, got)
				}
				failed <- err
			}()
			var from netip.AddrPort
			there(t, func() (err error) {
				if sa, ok := test.to.(*unix.SockaddrInet6); ok {
					i, err := net.InterfaceByName("gpb")
					if err != nil {
						return err
					}
					sa.ZoneId = uint32(i.Index)
				}
				from, err = exchange(test.to)
				return err
			})
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
			d := <-served
			if d.Local != test.local || d.Multicast != test.multicast || d.Ifindex != ifindex {
				t.Errorf("Read: %+v, want Local %v, Multicast %v, Ifindex %d", d, test.local, test.multicast, ifindex)
			}
			want := netip.AddrPortFrom(test.answer, test.server.LocalAddr().Port())
			if test.name == "multicast" {
				// The kernel chooses; either of the two addresses is right.
				if from.Port() != want.Port() || !from.Addr().Is6() {
					t.Errorf("the answer came from %v", from)
				}
			} else if from != want {
				t.Errorf("the answer came from %v, want %v", from, want)
			}
		})
	}
}

// Datagrams that wait for a neighbour's hardware address fill the send buffer. Write must drop, not wait.
func TestBatchWriteNeverWaits(t *testing.T) {
	if !netns(t) {
		return
	}
	pair(t)
	s := mustUDP(t, "0.0.0.0:0")
	err := control(s.Packet.file, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) })
	if err != nil {
		t.Fatal(err)
	}
	out := make([]Datagram, 100)
	for i := range out {
		out[i] = Datagram{Payload: make([]byte, 1000), Remote: at("192.0.2.77", 9)} // nobody has this address
	}
	if err := NewBatch(16, 100).Write(s.Packet, out); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("Write: %v, want EAGAIN", err)
	}
}
