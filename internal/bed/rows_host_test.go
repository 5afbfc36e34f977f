package bed_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"golang.org/x/sys/unix"
)

// patience bounds the wait for something that must come.
const patience = 15 * time.Second

// eachSubject runs f for rpcbind and gportmap in namespaces of their own. f knows
// what each has to do.
func eachSubject(t *testing.T, opts bed.Options, f func(t *testing.T, ns *bed.NS, subject bed.Subject)) {
	t.Helper()
	for _, subject := range bed.Subjects(t) {
		t.Run(subject.String(), func(t *testing.T) {
			bed.InNamespace(t, opts, func(t *testing.T, ns *bed.NS) { f(t, ns, subject) })
		})
	}
}

// gportmapOnly is eachSubject without rpcbind.
func gportmapOnly(t *testing.T, opts bed.Options, f func(t *testing.T, ns *bed.NS, subject bed.Subject)) {
	t.Helper()
	t.Run(bed.Gportmap.String(), func(t *testing.T) {
		bed.InNamespace(t, opts, func(t *testing.T, ns *bed.NS) { f(t, ns, bed.Gportmap) })
	})
}

// must makes a call that has to be answered and returns the results.
func must(t *testing.T, ns *bed.NS, tr bed.Transport, from bed.From, call []byte) []byte {
	t.Helper()
	reply, err := ns.Call(t, tr, from, withXID(call, 1))
	if err != nil {
		t.Fatalf("call %x over %s: %v", call, tr, err)
	}
	r := results(reply)
	if r == nil {
		t.Fatalf("call %x over %s: %s", call, tr, describe(reply))
	}
	return r
}

// register makes a SET by root that has to succeed.
func register(t *testing.T, ns *bed.NS, program, version uint32, netid, addr string) {
	t.Helper()
	if got := must(t, ns, bed.Unix, root, setAddr(4, program, version, netid, addr)); !bytes.Equal(got, boolean(true)) {
		t.Fatalf("SET of %s %s was refused", netid, addr)
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func sysctl(t *testing.T, key, value string) {
	t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func addrPort(addr string) netip.AddrPort { return netip.AddrPortFrom(bed.Addr(addr), 0) }

// row07 lets the remote host send a SET whose source address is 127.0.0.1, to a
// host that was configured to accept such packets.
func row07(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		for _, device := range []string{"all", bed.HostInterface} {
			sysctl(t, "net.ipv4.conf."+device+".route_localnet", "1")
			sysctl(t, "net.ipv4.conf."+device+".accept_local", "1")
			sysctl(t, "net.ipv4.conf."+device+".rp_filter", "0")
		}
		ns.Remote(t, func() { sysctl(t, "net.ipv4.conf."+bed.PeerInterface+".route_localnet", "1") })
		ns.Start(t, subject)
		const program = 0x30070001
		spoofed := bed.From{Remote: true, Addr: bed.Addr("127.0.0.1"), Port: 700}
		c := ns.Dial(t, bed.UDP, spoofed)
		if err := c.SendCall(withXID(setPort(program, 1, rpcbind.ProtUDP, 2049), 7)); err != nil {
			t.Fatal(err)
		}
		// The answer, if any, goes to 127.0.0.1 on the host. A call that can be
		// answered and that came after it shows that it was read.
		must(t, ns, bed.UDP, bed.From{Remote: true}, message(2, rpcbind.ProcNull, nil))
		want := words(0)
		if subject == bed.Rpcbind {
			want = words(2049)
		}
		if got := must(t, ns, bed.UDP, root, getPort(program, 1, rpcbind.ProtUDP)); !bytes.Equal(got, want) {
			t.Errorf("GETPORT after the spoofed SET: %x, want %x", got, want)
		}
	})
}

// row10 looks made-up programs up until rpcbind's statistics are larger than
// gportmap's may ever be.
func row10(t *testing.T) {
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		const programs = 3000
		c := ns.Dial(t, bed.UDP, bed.From{})
		indirect := ns.Dial(t, bed.UDP, bed.From{})
		for i := range uint32(programs) {
			for _, call := range [][]byte{getPort(0x31000000+i, 1, rpcbind.ProtUDP), getAddr(3, 0x31000000+i, 1, "", ""), getVersAddr(0x31000000+i, 1, "")} {
				if _, err := c.Call(withXID(call, i)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := indirect.Call(withXID(message(4, rpcbind.ProcIndirect, remoteCall(0x31000000+i, 1, 0, nil)), i)); err != nil {
				t.Fatal(err)
			}
		}
		const limit = 8 << 10
		got := len(must(t, ns, bed.TCP, root, message(4, rpcbind.ProcGetStat, nil))) + oncrpc.AcceptedHeaderSize
		if subject == bed.Rpcbind && got < programs*24 {
			t.Errorf("rpcbind's GETSTAT has %d octets after %d programs, so it seems bounded", got, programs)
		}
		if subject == bed.Gportmap && got > limit {
			t.Errorf("GETSTAT has %d octets after %d programs, want at most %d", got, programs, limit)
		}
	})
}

// row12 watches what a service sees of a call that was forwarded to it.
func row12(t *testing.T) {
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject, "-r")
		service := listen(t, "127.0.0.1:5000")
		const program = 0x30120001
		register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		client := ns.Dial(t, bed.UDP, bed.From{})
		cred := oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: oncrpc.AppendSysCred(nil, oncrpc.SysCred{MachineName: "liar"})}
		forward := func(xid uint32) (call oncrpc.Call, from netip.AddrPort) {
			c := oncrpc.Call{XID: xid, Program: rpcbind.Program, Version: 2, Procedure: rpcbind.ProcCallIt, Cred: cred,
				Args: remoteCall(program, 1, 3, []byte("argument"))}
			if err := client.SendCall(oncrpc.AppendCall(nil, c)); err != nil {
				t.Fatal(err)
			}
			return service.receive(t)
		}
		first, from := forward(1)
		flavor := map[bed.Subject]oncrpc.Flavor{bed.Rpcbind: oncrpc.AuthSys, bed.Gportmap: oncrpc.AuthNone}[subject]
		if first.Cred.Flavor != flavor || string(first.Args) != "argument" || first.Procedure != 3 {
			t.Errorf("forwarded: %+v, want flavor %d", first, flavor)
		}
		connected := subject == bed.Gportmap
		if got := udpSocket(t, from.Port()); got == nil || got.connected != connected {
			t.Errorf("the socket of the forwarded call: %+v, want connected %v", got, connected)
		}

		// A reply from another port than the service's.
		stranger := listen(t, "127.0.0.1:5001")
		stranger.reply(t, from, first.XID, []byte("from a stranger"))
		_, err := client.Receive(300 * time.Millisecond)
		if accepts := subject == bed.Rpcbind; (err == nil) != accepts {
			t.Errorf("a reply from a stranger: %v, want it taken %v", err, accepts)
		}
		service.reply(t, from, first.XID, []byte("from it"))
		if subject == bed.Gportmap {
			reply, err := client.Receive(patience)
			if want := append(words(5000), withLength("from it")...); err != nil || !bytes.Equal(results(reply), want) {
				t.Errorf("the forwarded reply: %x, %v, want %x", reply, err, want)
			}
		}

		second, from2 := forward(2)
		if same := from.Port() == from2.Port(); same != (subject == bed.Rpcbind) {
			t.Errorf("the second call came from %v, the first from %v", from2, from)
		}
		if near := second.XID-first.XID+1024 < 2048; near != (subject == bed.Rpcbind) {
			t.Errorf("xids of two forwarded calls: %#x, %#x", first.XID, second.XID)
		}
		service.reply(t, from2, second.XID, []byte("from it"))
		if _, err := client.Receive(patience); err != nil {
			t.Errorf("the reply to the second call: %v", err)
		}
		stands := func() bool { return udpSocket(t, from2.Port()) != nil }
		if subject == bed.Gportmap && !eventually(func() bool { return !stands() }) {
			t.Errorf("the socket of the second call is still there after its reply")
		}
		if subject == bed.Rpcbind && !stands() {
			t.Errorf("rpcbind's forwarding socket is gone")
		}
	})
}

// row17 sends a call in fragments.
func row17(t *testing.T) {
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		for _, tr := range []bed.Transport{bed.TCP, bed.TCP6, bed.Unix} {
			call := withXID(getPort(rpcbind.Program, 2, rpcbind.ProtTCP), 17)
			stream := bed.AppendFragment(nil, call[:20], false)
			stream = bed.AppendFragment(stream, call[20:44], false)
			stream = bed.AppendFragment(stream, call[44:], true)
			c := ns.Dial(t, tr, bed.From{})
			if err := c.Send(stream); err != nil {
				t.Fatal(err)
			}
			reply, err := c.Receive(patience)
			if subject == bed.Rpcbind {
				if !errors.Is(err, bed.ErrClosed) {
					t.Errorf("%s: %x, %v, want the connection closed", tr, reply, err)
				}
				continue
			}
			if want := accepted(17, oncrpc.Success, words(rpcbind.Port)); err != nil || !bytes.Equal(reply, want) {
				t.Errorf("%s: %x, %v, want %x", tr, reply, err, want)
			}
		}
	})
}

// row23 makes the table larger than a fragment of rpcbind's.
func row23(t *testing.T) {
	eachSubject(t, bed.Options{}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject)
		for i := range uint32(500) {
			must(t, ns, bed.Unix, root, setPort(0x30230000+i, 1, rpcbind.ProtUDP, 2049))
		}
		for _, tr := range []bed.Transport{bed.TCP, bed.Unix} {
			c := ns.Dial(t, tr, bed.From{})
			if err := c.SendCall(withXID(dump(2), 23)); err != nil {
				t.Fatal(err)
			}
			lengths, reply, err := c.ReceiveFragments(patience)
			if err != nil {
				t.Fatal(err)
			}
			whole := oncrpc.AcceptedHeaderSize + (6+500)*5*4 + 4
			want := []int{whole}
			if subject == bed.Rpcbind {
				want = []int{8996, whole - 8996}
			}
			if fmt.Sprint(lengths) != fmt.Sprint(want) || len(reply) != whole {
				t.Errorf("%s: fragments of %v octets, want %v", tr, lengths, want)
			}
		}
	})
}

// row25 watches which address a forwarded reply comes from.
func row25(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		ns.Start(t, subject, "-r")
		const program = 0x30250001
		register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		register(t, ns, program, 1, "udp6", "::.19.137")
		for _, c := range []struct {
			tr                 bed.Transport
			service, host      string
			version, procedure uint32
			want               []byte
		}{
			{bed.UDP, "127.0.0.1:5000", bed.HostIPv4, 2, rpcbind.ProcCallIt, words(5000)},
			{bed.UDP, "127.0.0.1:5000", bed.HostIPv4, 3, rpcbind.ProcCallIt, str("10.9.9.1.19.136")},
			{bed.UDP6, "[::1]:5001", bed.HostIPv6, 4, rpcbind.ProcBcast, str("fd09::1.19.137")},
			{bed.UDP6, "[::1]:5001", bed.HostIPv6, 4, rpcbind.ProcIndirect, str("fd09::1.19.137")},
		} {
			service := listen(t, c.service)
			client := ns.Dial(t, c.tr, bed.From{Remote: true})
			if err := client.SendCall(withXID(message(c.version, c.procedure, remoteCall(program, 1, 0, nil)), 25)); err != nil {
				t.Fatal(err)
			}
			call, from := service.receive(t)
			service.reply(t, from, call.XID, []byte("done"))
			reply, sender, err := client.ReceiveFrom(patience)
			if want := append(c.want, withLength("done")...); err != nil || !bytes.Equal(results(reply), want) {
				t.Errorf("v%d procedure %d: %x, %v, want results %x", c.version, c.procedure, reply, err, want)
			}
			if fromPort := sender.Port() == rpcbind.Port; sender.Addr() != bed.Addr(c.host) || fromPort != (subject == bed.Gportmap) {
				t.Errorf("v%d procedure %d: the reply came from %v", c.version, c.procedure, sender)
			}
			service.close()
		}
	})
}

// row26 asks the kernel whether the host and which of the daemon's sockets are
// members of the multicast group, and calls the group.
func row26(t *testing.T) {
	eachSubject(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, subject bed.Subject) {
		d := ns.Start(t, subject, "-r")
		group := bed.Addr(rpcbind.MulticastGroup).As16()
		igmp6, err := os.ReadFile("/proc/net/igmp6")
		if err != nil {
			t.Fatal(err)
		}
		joined := false
		for line := range strings.Lines(string(igmp6)) {
			fields := strings.Fields(line)
			joined = joined || fields[1] == bed.HostInterface && fields[2] == hex.EncodeToString(group[:])
		}
		if joined != (subject == bed.Gportmap) {
			t.Errorf("%s has joined %s: %v\n%s", bed.HostInterface, rpcbind.MulticastGroup, joined, igmp6)
		}
		sockets := members(t, d.PID())
		if _, found := sockets[rpcbind.Port]; !found {
			t.Errorf("no UDP socket of IPv6 with port %d: %v", rpcbind.Port, sockets)
		}
		for port, member := range sockets {
			// rpcbind has one for forwarded calls besides.
			if want := subject == bed.Gportmap && port == rpcbind.Port; member != want {
				t.Errorf("the UDP socket with port %d is a member: %v", port, member)
			}
		}
		from := bed.From{Remote: true, To: addrPort(rpcbind.MulticastGroup + "%" + bed.PeerInterface)}
		c := ns.Dial(t, bed.UDP6, from)
		if err := c.SendCall(withXID(message(4, rpcbind.ProcNull, nil), 26)); err != nil {
			t.Fatal(err)
		}
		if subject == bed.Rpcbind {
			// The socket that joined is closed: the group is not heard.
			if reply, _, err := c.ReceiveFrom(300 * time.Millisecond); !errors.Is(err, bed.ErrSilence) {
				t.Errorf("NULL to the group: %x, %v, want silence", reply, err)
			}
			return
		}
		reply, sender, err := c.ReceiveFrom(patience)
		if err != nil || !bytes.Equal(reply, accepted(26, oncrpc.Success, nil)) || sender.Port() != rpcbind.Port {
			t.Errorf("NULL to the group: %x from %v, %v", reply, sender, err)
		}
	})
}

// members returns, for each UDP socket of IPv6 of a process, its port and
// whether it is a member of the RPC multicast group on the host's interface.
func members(t *testing.T, pid int) map[uint16]bool {
	t.Helper()
	index := interfaceIndex(t, bed.HostInterface)
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint16]bool{}
	for _, entry := range descriptors {
		number, _ := strconv.Atoi(entry.Name())
		fd, err := unix.PidfdGetfd(process, number, 0)
		if errors.Is(err, unix.EBADF) {
			continue // closed since the directory was read, as the connection of a caller who has left
		}
		if err != nil {
			t.Fatalf("take descriptor %d of process %d: %v", number, pid, err)
		}
		if port, ok := udp6Port(fd); ok {
			// The kernel refuses to join twice.
			mreq := unix.IPv6Mreq{Multiaddr: bed.Addr(rpcbind.MulticastGroup).As16(), Interface: index}
			err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &mreq)
			if err == nil {
				unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, &mreq)
			}
			found[port] = errors.Is(err, unix.EADDRINUSE)
		}
		unix.Close(fd)
	}
	return found
}
