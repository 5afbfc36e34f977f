package instance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gportmap/gportmap/internal/sys"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// What a takeover does to a portmapper is tested with real ones in package bed.

func TestRestartArgs(t *testing.T) {
	for _, test := range []struct{ path, args, want string }{
		{"/sbin/rpcbind", "", "/sbin/rpcbind -w"},
		{"/sbin/rpcbind", "rpcbind", "rpcbind -w"},
		{"/sbin/rpcbind", "/sbin/rpcbind -f -w", "/sbin/rpcbind -f -w"},
		{"/sbin/rpcbind", "/sbin/rpcbind -fw", "/sbin/rpcbind -fw"},
		{"/sbin/rpcbind", "/sbin/rpcbind -h www.example -f", "/sbin/rpcbind -w -h www.example -f"},
		{"/sbin/rpcbind", "/sbin/rpcbind -hwww.example", "/sbin/rpcbind -w -hwww.example"},
		{"/sbin/portmap", "portmap -v", "portmap -v"},
		{"/usr/sbin/gportmap", "gportmap --takeover -l", "gportmap -l"},
	} {
		if got := restartArgs(test.path, strings.Fields(test.args)); !slices.Equal(got, strings.Fields(test.want)) {
			t.Errorf("%s: %q, want %q", test.args, got, test.want)
		}
	}
}

func TestQuestions(t *testing.T) {
	h := Holder{Sockets: []sys.BoundSocket{
		{Netid: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:111"), Serving: true},
		{Netid: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:111"), Serving: true},
		{Netid: "tcp", Addr: netip.MustParseAddrPort("192.0.2.1:111")},
		{Netid: "tcp6", Addr: netip.MustParseAddrPort("[::]:111"), Serving: true},
		{Netid: "udp6", Addr: netip.MustParseAddrPort("[2001:db8::1]:111"), Serving: true},
		{Netid: "local", Path: "@/run/rpcbind.sock", Serving: true},
		{Netid: "local", Path: "/run/rpcbind.sock", Serving: true},
	}}
	want := []question{{"unix", "/run/rpcbind.sock"}, {"tcp", "127.0.0.1:111"}, {"tcp", "[::1]:111"},
		{"udp", "127.0.0.1:111"}, {"udp", "[2001:db8::1]:111"}}
	if got := questions(h); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := answers(t.Context(), nil); err == nil {
		t.Error("a portmapper without sockets answers")
	}
}

func TestFindPredecessorOfNobody(t *testing.T) {
	dir := t.TempDir()
	free := Endpoint{Netid: "local", Path: filepath.Join(dir, "rpcbind.sock")}
	if _, err := FindPredecessor(t.Context(), filepath.Join(dir, "rpcbind.lock"), nil, free); !errors.Is(err, ErrNoPredecessor) {
		t.Errorf("%v, want %v", err, ErrNoPredecessor)
	}
}

// TestChoose: whoever else has what is needed is left alone.
func TestChoose(t *testing.T) {
	s := search{lockPath: filepath.Join(t.TempDir(), "rpcbind.lock")}
	socket := []sys.BoundSocket{{Netid: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:111"), Serving: true}}
	portmapper := Holder{Process: sys.Process{PID: 4242, Command: "rpcbind"}, Sockets: socket}
	contained := portmapper
	contained.Origin = Origin{Runtime: "docker", Container: "0123456789ab"}
	second := portmapper
	second.Process.PID = 4243
	for _, test := range []struct {
		name    string
		holders []Holder
		foreign bool
		says    string
	}{
		{"another program", []Holder{{Process: sys.Process{PID: 4242, Command: "named"}, Sockets: socket}}, true, "held by named (pid 4242"},
		{"the kernel", []Holder{{Unseen: Kernel, Sockets: socket}}, true, "by the kernel itself"},
		{"unseen", []Holder{{Unseen: Denied, Sockets: socket}}, true, "only root"},
		{"beside a portmapper", []Holder{portmapper, {Process: sys.Process{PID: 1, Command: "init"}, Sockets: socket}}, true, "held by init (pid 1"},
		{"in a container", []Holder{contained}, true, "docker stop 0123456789ab"},
		{"two", []Holder{portmapper, second}, false, "several portmappers serve"},
	} {
		h, err := s.choose(test.holders)
		if err == nil {
			t.Errorf("%s: takes over from %v", test.name, h)
			continue
		}
		if errors.Is(err, syscall.EADDRINUSE) != test.foreign || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: says %q, want %q", test.name, err, test.says)
		}
	}
	if h, err := s.choose([]Holder{portmapper}); err != nil || h.Process.PID != 4242 {
		t.Errorf("a portmapper without a lock: %v, %v", h, err)
	}
}

// TestRegistrationsOfVersion2 reads those of a portmapper that speaks version 2 alone, as portmap does: their owners are
// the users who have the sockets.
func TestRegistrationsOfVersion2(t *testing.T) {
	service, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	port := service.Addr().(*net.TCPAddr).AddrPort().Port()
	old, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	go version2(old, [][4]uint32{
		{rpcbind.Program, 2, rpcbind.ProtUDP, 111},
		{100005, 1, rpcbind.ProtTCP, uint32(port)},
		{100005, 1, rpcbind.ProtUDP, 1}, // nobody's
		{100005, 2, rpcbind.ProtTCP, 70000},
	})
	got, lossy, err := registrations(t.Context(), []question{{"udp", old.LocalAddr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	owner := rpcbind.OwnerSuperuser
	if uid := os.Getuid(); uid != 0 {
		owner = strconv.Itoa(uid)
	}
	want := []rpcbind.RPCB{
		{Program: rpcbind.Program, Version: 2, Netid: rpcbind.UDP, Addr: "0.0.0.0.0.111", Owner: rpcbind.OwnerSuperuser},
		{Program: 100005, Version: 1, Netid: rpcbind.TCP, Addr: fmt.Sprintf("0.0.0.0.%d.%d", port>>8, port&0xff), Owner: owner},
		{Program: 100005, Version: 1, Netid: rpcbind.UDP, Addr: "0.0.0.0.0.1", Owner: rpcbind.OwnerSuperuser},
	}
	if !slices.Equal(got, want) || !lossy {
		t.Errorf("%+v, lossy: %v; want %+v", got, lossy, want)
	}
}

// version2 answers DUMP of version 2 with these mappings, and everything else with PROG_MISMATCH, low 2, high 2.
func version2(c net.PacketConn, mappings [][4]uint32) {
	call := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(call)
		if err != nil {
			return
		}
		if n < 24 {
			continue
		}
		const accepted, progMismatch = 0, 2
		words := []uint32{binary.BigEndian.Uint32(call), 1, accepted, 0, 0}
		if binary.BigEndian.Uint32(call[16:]) == 2 {
			words = append(words, 0)
			for _, m := range mappings {
				words = append(append(words, 1), m[:]...)
			}
			words = append(words, 0)
		} else {
			words = append(words, progMismatch, 2, 2)
		}
		var reply []byte
		for _, w := range words {
			reply = binary.BigEndian.AppendUint32(reply, w)
		}
		if _, err := c.WriteTo(reply, from); err != nil {
			return
		}
	}
}
