package bed_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
	"golang.org/x/sys/unix"
)

var soak = flag.Duration("bed.soak", 3*time.Second, "how long to send mutated calls (make soak)")

// TestCVE holds the daemon to what went wrong in other portmappers. The same is tested of the rooms inside, where a test of
// that name is quicker; SECURITY.md lists all of them.
func TestCVE(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"2021-46828_idle_connections", idleConnections},
		{"2018-14621_2018-14622_no_descriptors", noDescriptors},
		{"2015-7236_remote_calls_at_once", remoteCallsAtOnce},
		{"2013-1950_remote_call_arguments", remoteCallArguments},
		{"2002-1516_links_for_state", linksForState},
		{"2003-1079_2009-2754_2009-5153_mutated_calls", mutatedCalls},
		{"1999-0168_1999-0493_forwarding", forwarding},
		{"1999-0189_1999-0632_unexpected_ports", unexpectedPorts},
		{"1999-0195_1999-0461_2020-8558_spoofed_loopback", row07},
	} {
		t.Run(c.name, c.run)
	}
}

// served holds that root can register, and that it can be looked up over UDP and TCP.
func served(t *testing.T, ns *bed.NS, program uint32) {
	t.Helper()
	register(t, ns, program, 1, "udp", "0.0.0.0.8.1")
	for _, tr := range []bed.Transport{bed.UDP, bed.TCP, bed.UDP6, bed.TCP6} {
		if got := must(t, ns, tr, root, getPort(program, 1, rpcbind.ProtUDP)); !bytes.Equal(got, words(2049)) {
			t.Errorf("GETPORT over %s: %x", tr, got)
		}
	}
}

// cpuTime returns how long a process has computed.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var user, system int64
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * (time.Second / 100)
}

// calm holds that a daemon that has nothing to do does nothing: a loop that spins takes all of the time.
func calm(t *testing.T, d *bed.Daemon) {
	t.Helper()
	const pause = 500 * time.Millisecond
	before := cpuTime(t, d.PID())
	time.Sleep(pause)
	if took := cpuTime(t, d.PID()) - before; took > pause/2 {
		t.Errorf("the daemon computed %v of %v in which nothing came", took, pause)
	}
}

// idleConnections opens 10,000 connections that say nothing.
func idleConnections(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		const many = 10_000
		limit := unix.Rlimit{Cur: 2*many + 1000, Max: 2*many + 1000}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Skipf("needs %d descriptors: %v", limit.Max, err)
		}
		d := ns.Start(t, bed.Gportmap)
		var open []*bed.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for range many {
			c, err := ns.TryDial(bed.TCP, root)
			if err != nil {
				t.Fatalf("connection %d: %v", len(open), err)
			}
			open = append(open, c)
		}
		served(t, ns, 0x30210001)
		calm(t, d)
		// One address of another host has its bound, and takes nobody's place.
		const bound = 256
		for range bound + 50 {
			c, err := ns.TryDial(bed.TCP, bed.From{Remote: true})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		for _, c := range open[many+bound:] {
			if err := c.WaitClosed(patience); err != nil {
				t.Fatalf("a connection beyond the bound of its address: %v", err)
			}
		}
		for _, c := range []*bed.Conn{open[0], open[many/2], open[many]} {
			if _, err := c.Call(withXID(message(2, rpcbind.ProcNull, nil), 5)); err != nil {
				t.Errorf("a connection that idled: %v", err)
			}
		}
		served(t, ns, 0x30210002)
	})
}

// highestDescriptor returns the highest number of a process's descriptors, those of Go's race detector left out.
func highestDescriptor(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	highest := 0
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n < 200 {
			highest = max(highest, n)
		}
	}
	return highest
}

// noDescriptors leaves the daemon four descriptors beside those that it has, some 34, and makes more connections than that, by every
// transport.
func noDescriptors(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		prlimit, err := exec.LookPath("prlimit")
		if err != nil {
			t.Skip("needs prlimit(1): apt-get install util-linux")
		}
		d := ns.Start(t, bed.Gportmap)
		var out []byte
		if !eventually(func() bool {
			// As the daemon's user, which may change while we look: not every root may do that to others' processes.
			limit := highestDescriptor(t, d.PID()) + 5
			cmd := exec.Command(prlimit, "--pid", fmt.Sprint(d.PID()), fmt.Sprintf("--nofile=%d:%[1]d", limit))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credentialOf(t, d.PID())}
			out, err = cmd.CombinedOutput()
			return err == nil
		}) {
			t.Fatalf("prlimit: %v: %s", err, out)
		}
		var open []*bed.Conn
		for i := range 120 {
			from := []bed.From{{Remote: true}, {}, {UID: 1000}}[i%3]
			tr := []bed.Transport{bed.TCP, bed.TCP6, bed.Unix}[i%3]
			c, err := ns.TryDial(tr, from)
			if errors.Is(err, unix.EAGAIN) {
				continue // the local socket's queue is full
			}
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		calm(t, d)
		if got := must(t, ns, bed.UDP, root, message(2, rpcbind.ProcNull, nil)); len(got) != 0 {
			t.Errorf("NULL over UDP: %x", got)
		}
		for _, c := range open {
			c.Close()
		}
		if !eventually(func() bool {
			c, err := ns.TryDial(bed.Unix, root)
			if err != nil {
				return false
			}
			defer c.Close()
			_, err = c.Call(withXID(message(2, rpcbind.ProcNull, nil), 3))
			return err == nil
		}) {
			t.Fatal("nothing is served after the storm")
		}
		served(t, ns, 0x30220001)
	})
}

// credentialOf returns the user and group that a process runs as, as the status of the process has it.
func credentialOf(t *testing.T, pid int) *syscall.Credential {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var user syscall.Credential
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "Uid: %d", &user.Uid)
		fmt.Sscanf(line, "Gid: %d", &user.Gid)
	}
	return &user
}

// remoteCallsAtOnce has many callers, who repeat their calls, a service that comes and goes, and registrations that do;
// rpcbind freed what it went on to use. Built with the race detector, the daemon reports what isn't guarded.
func remoteCallsAtOnce(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		const program = 0x30230001
		ns.Start(t, bed.Gportmap, "-r")
		register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		var all sync.WaitGroup
		for n := range 8 {
			c := ns.Dial(t, bed.UDP, bed.From{Patient: true})
			all.Go(func() {
				for i := range uint32(60) {
					call := message(2, rpcbind.ProcCallIt, remoteCall(program, 1, 0, make([]byte, 4*i)))
					if i%2 == 1 {
						call = message(4, rpcbind.ProcIndirect, remoteCall(program, 1, 7, nil))
					}
					for range 2 {
						if err := c.SendCall(withXID(call, uint32(n)<<16|i/2)); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		for range 5 {
			service := listen(t, "127.0.0.1:5000")
			for range 10 {
				service.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				buffer := make([]byte, 9000)
				n, from, err := service.conn.ReadFromUDPAddrPort(buffer)
				if err != nil {
					break
				}
				if call, err := oncrpc.ParseCall(buffer[:n]); err == nil {
					service.reply(t, from, call.XID, []byte("answer"))
					service.reply(t, from, call.XID, []byte("another"))
				}
			}
			service.close()
			must(t, ns, bed.Unix, root, unsetAddr(4, program, 1, ""))
			register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		}
		all.Wait()
		served(t, ns, 0x30230002)
	})
}

// remoteCallArguments sends arguments of every size that a datagram may have, in steps above rpcbind's limit.
func remoteCallArguments(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		const program = 0x30240001
		ns.Start(t, bed.Gportmap, "-r")
		register(t, ns, program, 1, "udp", "0.0.0.0.19.136")
		service := listen(t, "127.0.0.1:5000")
		go func() { // so that its queue doesn't fill
			for buffer := make([]byte, 65536); ; {
				if _, _, err := service.conn.ReadFromUDPAddrPort(buffer); err != nil {
					return
				}
			}
		}()
		c := ns.Dial(t, bed.UDP, root)
		const largest = (65507 - 56) &^ 3 // of the arguments in a datagram
		step := 4
		for size := 0; size <= largest; size += step {
			if size > 9000 {
				step = min(404, max(4, largest-size)) // to the largest
			}
			for _, call := range [][]byte{
				message(2, rpcbind.ProcCallIt, remoteCall(program, 1, 1, make([]byte, size))),
				message(4, rpcbind.ProcIndirect, remoteCall(program, 9, 1, make([]byte, size))),
			} {
				if err := c.SendCall(withXID(call, uint32(size))); err != nil {
					t.Fatalf("%d octets: %v", size, err)
				}
			}
		}
		served(t, ns, 0x30240002)
	})
}

// linksForState puts links where the daemon keeps its state, as another user of a directory that all may write could.
func linksForState(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		if err := os.WriteFile("/run/victim", []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"rpcbind.xdr", "portmap.xdr", "rpcbind.xdr.new", "portmap.xdr.new"} {
			if err := os.Symlink("/run/victim", "/run/rpcbind/"+name); err != nil {
				t.Fatal(err)
			}
		}
		ns.Start(t, bed.Gportmap)
		served(t, ns, 0x30250001)
		if b, err := os.ReadFile("/run/victim"); err != nil || string(b) != "precious" {
			t.Errorf("the file behind the links: %q, %v", b, err)
		}
	})
}

// mutatedCalls sends random octets, calls with damage and records with damaged marks for a while. Memory stays where it is,
// and everything is served afterwards.
func mutatedCalls(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		d := ns.Start(t, bed.Gportmap, "-r", "--answer-rate=0")
		seed := rand.Uint64()
		t.Logf("seed %d, for %v", seed, *soak)
		random := rand.New(rand.NewPCG(seed, 3))
		whole := wholeCalls()
		packets := []*bed.Conn{ns.Dial(t, bed.UDP, bed.From{Remote: true}), ns.Dial(t, bed.UDP6, root)}
		sent, floor := 0, 0
		for end := time.Now().Add(*soak); time.Now().Before(end); sent++ {
			call := damage(random, whole[random.IntN(len(whole))])
			if random.IntN(4) == 0 {
				call = make([]byte, random.IntN(2000))
				for i := range call {
					call[i] = byte(random.Uint32())
				}
			}
			if err := packets[sent%2].Send(call); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if sent%64 != 0 {
				continue
			}
			// In step with the daemon, and a stream now and then.
			must(t, ns, bed.UDP, root, message(2, rpcbind.ProcNull, nil))
			c := ns.Dial(t, []bed.Transport{bed.TCP, bed.Unix}[random.IntN(2)], root)
			record := append(words(1<<31|uint32(len(call))), call...)
			_ = c.Send(damage(random, record))
			c.Close()
			if sent == 64*20 {
				floor = peakMemory(t, d.PID())
			}
		}
		if now := peakMemory(t, d.PID()); floor > 0 && now > floor+32<<20 {
			t.Errorf("seed %d: memory grew from %d to %d octets", seed, floor, now)
		}
		t.Logf("%d datagrams were sent", sent)
		served(t, ns, 0x30260001)
	})
}

// forwarding makes the remote calls by which a stranger borrowed this host's trust.
func forwarding(t *testing.T) {
	gportmapOnly(t, bed.Options{Remote: true}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		const program = 0x30270001
		remote := bed.From{Remote: true}
		for _, flags := range [][]string{nil, {"-r"}} {
			d := ns.Start(t, bed.Gportmap, flags...)
			service := listen(t, "127.0.0.1:5000")
			for _, p := range []uint32{program, 100003, 100005, 100009} {
				register(t, ns, p, 1, "udp", "0.0.0.0.19.136")
			}
			c := ns.Dial(t, bed.UDP, remote)
			// A SET through the portmapper's own door, and calls of NFS, mountd and yppasswdd.
			inner := rpcb(0x30270002, 1, "udp", "0.0.0.0.8.1")
			for _, args := range [][]byte{
				remoteCall(rpcbind.Program, 4, rpcbind.ProcSet, inner), remoteCall(100003, 1, 1, nil), remoteCall(100005, 1, 1, nil), remoteCall(100009, 1, 1, nil),
			} {
				for _, call := range [][]byte{message(2, rpcbind.ProcCallIt, args), message(4, rpcbind.ProcCallIt, args), message(4, rpcbind.ProcIndirect, args)} {
					if err := c.SendCall(withXID(call, 8)); err != nil {
						t.Fatal(err)
					}
				}
			}
			cred := oncrpc.OpaqueAuth{Flavor: oncrpc.AuthSys, Body: oncrpc.AppendSysCred(nil, oncrpc.SysCred{MachineName: "root"})}
			if err := c.SendCall(oncrpc.AppendCall(nil, oncrpc.Call{XID: 9, Program: rpcbind.Program, Version: 2, Procedure: rpcbind.ProcCallIt,
				Cred: cred, Args: remoteCall(program, 1, 1, nil)})); err != nil {
				t.Fatal(err)
			}
			if flags == nil {
				if !service.none(t, 300*time.Millisecond) {
					t.Error("without -r a call was forwarded")
				}
			} else if call, _ := service.receive(t); call.Program != program || call.Cred.Flavor != oncrpc.AuthNone {
				t.Errorf("forwarded: %+v", call)
			}
			if got := must(t, ns, bed.UDP, root, getPort(0x30270002, 1, rpcbind.ProtUDP)); !bytes.Equal(got, words(0)) {
				t.Error("a SET was forwarded to the portmapper itself")
			}
			service.close()
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// unexpectedPorts lets ss(8) show every socket of the daemon, also while it makes a remote call.
func unexpectedPorts(t *testing.T) {
	gportmapOnly(t, bed.Options{}, func(t *testing.T, ns *bed.NS, _ bed.Subject) {
		if _, err := exec.LookPath("ss"); err != nil {
			t.Skip("needs ss(8): apt-get install iproute2")
		}
		for _, c := range []struct {
			flags []string
			want  string
		}{
			{nil, "tcp 0.0.0.0:111,tcp [::]:111,udp 0.0.0.0:111,udp [::]:111"},
			{[]string{"-r"}, "tcp 0.0.0.0:111,tcp [::]:111,udp 0.0.0.0:111,udp [::]:111"},
			{[]string{"-h", "127.0.0.1", "--metrics", "9111"}, "tcp 127.0.0.1:111,tcp 127.0.0.1:9111,tcp [::1]:111,udp 127.0.0.1:111,udp [::1]:111"},
		} {
			d := ns.Start(t, bed.Gportmap, c.flags...)
			if got := socketsOf(t, d.PID()); got != c.want {
				t.Errorf("%q: ss shows %s, want %s", c.flags, got, c.want)
			}
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// socketsOf returns the IP sockets of a process that wait for somebody, as ss(8) shows them, sorted.
func socketsOf(t *testing.T, pid int) string {
	t.Helper()
	out, err := exec.Command("ss", "-H", "-n", "-l", "-t", "-u", "-p").CombinedOutput()
	if err != nil {
		t.Fatalf("ss: %v: %s", err, out)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) {
			continue
		}
		list = append(list, f[0]+" "+f[4])
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
