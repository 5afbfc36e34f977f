package sys

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func inodeOfFD(t *testing.T, fd int) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// sleeper starts cat, which lives until the function returned ends it, with files as descriptors from 3 on.
func sleeper(t *testing.T, attr *syscall.SysProcAttr, files ...*os.File) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = files
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		t.Skipf("needs cat(1): %v", err)
	}
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // cat is no longer the test binary
		t.Fatal(err)
	}
	var ended bool
	end = func() {
		if !ended {
			ended = true
			in.Close()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

func TestFindSocketProcesses(t *testing.T) {
	fd, _ := rawSocket(t, unix.SOCK_DGRAM, "127.0.0.1:0", false)
	alone, _ := rawSocket(t, unix.SOCK_DGRAM, "127.0.0.1:0", false)
	f := os.NewFile(uintptr(mustDup(t, fd)), "shared")
	defer f.Close()
	other, end := sleeper(t, nil, f)
	shared, own := inodeOfFD(t, fd), inodeOfFD(t, alone)
	found, err := FindSocketProcesses([]uint32{shared, own, 0})
	if err != nil {
		t.Fatal(err)
	}
	pids := func(inode uint32) (pids []int) {
		for _, p := range found.Processes[inode] {
			pids = append(pids, p.PID)
		}
		return pids
	}
	want := []int{os.Getpid(), other}
	slices.Sort(want)
	if got := pids(shared); !slices.Equal(got, want) {
		t.Errorf("shared: %v, want %v", got, want)
	}
	if got := pids(own); !slices.Equal(got, []int{os.Getpid()}) {
		t.Errorf("own: %v", got)
	}
	if found.Cut {
		t.Error("the search was cut")
	}
	end()
	if found, err = FindSocketProcesses([]uint32{shared}); err != nil || !slices.Equal(pids(shared), []int{os.Getpid()}) {
		t.Errorf("after its end: %v, %v", pids(shared), err)
	}
	unix.Close(alone)
	if found, err = FindSocketProcesses([]uint32{own}); err != nil || len(found.Processes) != 0 {
		t.Errorf("closed: %+v, %v", found, err)
	}
	if found, err = FindSocketProcesses(nil); err != nil || len(found.Processes) != 0 {
		t.Errorf("nothing wanted: %+v, %v", found, err)
	}
}

// A user learns that there is something that only root may see.
func TestFindSocketProcessesDenied(t *testing.T) {
	needRoot(t)
	fd, _ := rawSocket(t, unix.SOCK_DGRAM, "127.0.0.1:0", false)
	if !child(t, syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}},
		os.NewFile(uintptr(mustDup(t, fd)), "socket")) {
		return
	}
	const inherited = 3
	inode := inodeOfFD(t, inherited)
	unix.Close(inherited)
	found, err := FindSocketProcesses([]uint32{inode})
	if err != nil || !found.Denied || len(found.Processes) != 0 {
		t.Errorf("%+v, %v, want denied", found, err)
	}
}

func mustDup(t *testing.T, fd int) int {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return dup
}

func TestLookupProcess(t *testing.T) {
	before := time.Now()
	attr := &syscall.SysProcAttr{}
	wantUID := uint32(os.Geteuid())
	if wantUID == 0 {
		attr.Credential = &syscall.Credential{Uid: alice, Gid: bob}
		wantUID = alice
	}
	pid, end := sleeper(t, attr)
	p, err := LookupProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != pid || p.Command != "cat" || filepath.Base(p.Program) == "" || !slices.Equal(p.Args, []string{"cat"}) || p.UID != wantUID {
		t.Errorf("%+v", p)
	}
	// A hundredth of a second is what the kernel rounds to.
	if p.Started.Before(before.Add(-time.Second)) || p.Started.After(time.Now().Add(time.Second)) || p.StartTicks == 0 {
		t.Errorf("started %v (%d ticks), want about %v", p.Started, p.StartTicks, before)
	}
	end()
	for _, pid := range []int{pid, 0, -1, 1 << 30} {
		if p, err := LookupProcess(pid); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %+v, %v, want ESRCH", pid, p, err)
		}
	}
}

// A zombie is only a number.
func TestLookupProcessZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Skipf("needs true(1): %v", err)
	}
	defer cmd.Wait()
	h, err := OpenProcess(cmd.Process.Pid)
	if err == nil { // it may not have ended yet
		defer h.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		_, err = LookupProcess(cmd.Process.Pid)
	}
	if !errors.Is(err, syscall.ESRCH) {
		t.Errorf("%v, want ESRCH", err)
	}
}

func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2 3\n"
	for _, test := range []struct {
		stat, command string
		ok            bool
	}{
		{"42 (rpcbind)" + rest, "rpcbind", true},
		{"42 (a) S 1 (b)" + rest, "a) S 1 (b", true},
		{"42 (a\nb \x1b)" + rest, "a\nb \x1b", true},
		{"42 ()" + rest, "", true},
		{"42 (x) S 1 2", "", false},
		{"42 x" + rest, "", false},
		{"42 )x(" + rest, "", false},
		{"42 (x)" + strings.Replace(rest, "4711", "soon", 1), "", false},
		{"", "", false},
	} {
		var p Process
		state, ok := p.parseStat([]byte(test.stat))
		if ok != test.ok || ok && (state != 'S' || p.Command != test.command || p.StartTicks != 4711) {
			t.Errorf("%q: %c, %v, %+v", test.stat, state, ok, p)
		}
	}
}

func TestProcessHandle(t *testing.T) {
	for _, name := range []string{"pidfd", "without pidfd"} {
		t.Run(name, func(t *testing.T) {
			pid, end := sleeper(t, nil)
			h, err := OpenProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			if name != "pidfd" {
				h.Close() // leaves -1, as on a kernel without
			}
			defer h.Close()
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			if err := h.Wait(ended); !errors.Is(err, context.Canceled) {
				t.Errorf("Wait for a live one: %v", err)
			}
			if err := h.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := h.Wait(ctx); err != nil {
				t.Error(err)
			}
			end()
			if err := h.Signal(syscall.SIGTERM); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("Signal to an ended one: %v, want ESRCH", err)
			}
			if h, err := OpenProcess(pid); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("OpenProcess of an ended one: %+v, %v, want ESRCH", h, err)
			}
		})
	}
}

// Without a pidfd a number that was given away again is recognised.
func TestProcessHandleNumberReused(t *testing.T) {
	pid, _ := sleeper(t, nil)
	now, err := LookupProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	h := &ProcessHandle{Process: now, fd: -1}
	h.StartTicks--
	if err := h.Signal(syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("Signal: %v, want ESRCH", err)
	}
	if err := h.Wait(context.Background()); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if _, err := LookupProcess(pid); err != nil {
		t.Errorf("another process was killed: %v", err)
	}
}

func TestUserName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	text := "root:x:0:0::/:/bin/sh\n+::::::\n_rpc:x:107:65534::/:/x\nagain:x:107:1::/:\n:x:5:5::/:\nshort:x\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{0: "root", 107: "_rpc", 5: "5", 4294967294: "4294967294"} {
		if got := userName(path, uid); got != want {
			t.Errorf("%d: %q, want %q", uid, got, want)
		}
	}
	if got := userName(path+"x", 7); got != "7" {
		t.Errorf("without the file: %q", got)
	}
}

// Recorded from Linux 6.18 and, for the words' order, checked on little-endian hosts only.
func TestReadProcNet(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the text below is that of a little-endian host")
	}
	const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  381: 00000000:006F 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 26372 2 0000000000000000 0
  381: 0100007F:006F 0200007F:1234 01 00000000:00000000 00:00000000 00000000   107        0 26373 2 0000000000000000 0
  382: 0100007F:0070 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 26374 2 0000000000000000 0
  bad: 0100007F 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 26374 2 0000000000000000 0
  bad: 0100007F:006F
`
	const tcp6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:006F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 26375 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:006F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 26376 1 0000000000000000 100 0 0 10 0
   2: B80D01200000000000000000FE000000:006F 00000000000000000000000001000000:0011 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0000000000000000
`
	for _, test := range []struct {
		text             string
		protocol, family uint8
		states           uint32
		want             []BoundSocket
	}{
		{udp, unix.IPPROTO_UDP, unix.AF_INET, diagAnyState, []BoundSocket{
			{Netid: "udp", Addr: at("0.0.0.0", 111), Serving: true, Inode: 26372, HasUID: true},
			{Netid: "udp", Addr: at("127.0.0.1", 111), Inode: 26373, UID: 107, HasUID: true},
		}},
		{udp, unix.IPPROTO_UDP, unix.AF_INET, servingStates(unix.IPPROTO_UDP), []BoundSocket{
			{Netid: "udp", Addr: at("0.0.0.0", 111), Serving: true, Inode: 26372, HasUID: true},
		}},
		{tcp6, unix.IPPROTO_TCP, unix.AF_INET6, diagAnyState, []BoundSocket{
			{Netid: "tcp6", Addr: at("::", 111), DualStack: true, Serving: true, Inode: 26375, HasUID: true},
			{Netid: "tcp", Addr: at("127.0.0.1", 111), Serving: true, Inode: 26376, HasUID: true},
			{Netid: "tcp6", Addr: at("2001:db8::fe", 111)},
		}},
	} {
		got, err := readProcNet(strings.NewReader(test.text), test.protocol, test.family, test.states, 111)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%+v, %v\nwant %+v", got, err, test.want)
		}
	}
}

func TestReadProcUnix(t *testing.T) {
	const text = `Num               RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 26370 /run/rpcbind.sock
0000000000000000: 00000003 00000000 00000000 0001 03    71 /run/rpcbind.sock
0000000000000000: 00000002 00000000 00000000 0002 01    72 /run/a  b
0000000000000000: 00000002 00000000 00010000 0001 01    73 @/run/rpcbind.sock
0000000000000000: 00000002 00000000 00000000 0002 01    74
short
`
	got, err := readProcUnix(strings.NewReader(text))
	want := []localSocket{
		{BoundSocket: BoundSocket{Netid: "local", Path: "/run/rpcbind.sock", Serving: true, Inode: 26370}},
		{BoundSocket: BoundSocket{Netid: "local", Path: "/run/a  b", Inode: 72}},
		{BoundSocket: BoundSocket{Netid: "local", Path: "@/run/rpcbind.sock", Serving: true, Inode: 73}},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}

// No octets of the kernel's, cut anywhere, make the parsers read past the end.
func FuzzSocketParsers(f *testing.F) {
	f.Add([]byte(strings.Repeat("\x0a\x01\x0a\x00", 20)), " 7: 0100007F:006F 00000000:0000 07 0:0 0:0 0 0 0 1")
	f.Fuzz(func(t *testing.T, b []byte, line string) {
		if s, ok := parseBound(unix.IPPROTO_TCP, b); ok && !s.Addr.IsValid() {
			t.Errorf("%+v has no address", s)
		}
		parseLocalDiag(b)
		var p Process
		p.parseStat(b)
		processUIDs(b)
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			if d, _, ok := parseProcNet(line, family); ok && !d.source.IsValid() {
				t.Errorf("%q: no address", line)
			}
		}
		if _, err := readProcUnix(strings.NewReader(line)); err != nil && len(line) < 1<<16 {
			t.Error(err)
		}
	})
}

// The cost of naming who has a socket, on a host whose processes have many descriptors.
func BenchmarkFindSocketProcesses(b *testing.B) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	found, err := Conflicts("udp", netip.MustParseAddrPort(c.LocalAddr().String()))
	if err != nil || len(found) != 1 {
		b.Fatalf("%+v, %v", found, err)
	}
	for b.Loop() {
		if _, err := FindSocketProcesses([]uint32{found[0].Inode}); err != nil {
			b.Fatal(err)
		}
	}
}
