package sys

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDiagSocketIsPeer(t *testing.T) {
	own, peer, other := at("127.0.0.1", 1000), at("127.0.0.1", 111), at("127.0.0.1", 53)
	const synSent, timeWait = 2, 6
	for _, test := range []struct {
		name string
		s    diagSocket
		want bool
	}{
		{"established", diagSocket{state: stateEstablished, source: own, dest: peer, inode: 7}, true},
		{"half closed", diagSocket{state: stateFinWait2, source: own, dest: peer, inode: 7}, true},
		{"still trying", diagSocket{state: synSent, source: own, dest: peer, inode: 7}, false},
		{"our end was closed", diagSocket{state: stateCloseWait, source: own, dest: peer, inode: 7}, false},
		{"TIME_WAIT", diagSocket{state: timeWait, source: own, dest: peer, inode: 7}, false},
		{"no inode", diagSocket{state: stateEstablished, source: own, dest: peer}, false},
		{"connected to another", diagSocket{state: stateEstablished, source: own, dest: other, inode: 7}, false},
		{"another's port", diagSocket{state: stateEstablished, source: other, dest: peer, inode: 7}, false},
		{"our own", diagSocket{state: stateEstablished, source: peer, dest: own, inode: 7}, false},
		{"listening", diagSocket{state: stateListen, source: own, inode: 7}, false},
	} {
		if got := test.s.isPeer(own, peer); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// The structs as the kernel's header has them; what is in the host's order is checked for the little-endian hosts.
func TestDiagWire(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the octets below are those of a little-endian host")
	}
	q := diagQuery{protocol: unix.IPPROTO_UDP, family: unix.AF_INET6, source: at("127.0.0.1", 0x1234), dest: at("::1", 111), ifindex: 3}
	want := "0a110000" + "ffffffff" + "1234006f" + "00000000000000000000ffff7f000001" + "00000000000000000000000000000001" +
		"03000000" + "ffffffffffffffff"
	got := q.append(nil)
	if hex.EncodeToString(got) != want || len(got) != diagRequestOctets {
		t.Errorf("request %x\nwant    %s", got, want)
	}
	q = diagQuery{protocol: unix.IPPROTO_TCP, family: unix.AF_INET, source: at("127.0.0.1", 1), dest: at("127.0.0.2", 2)}
	if got, want := hex.EncodeToString(q.append(nil)[8:28]), "00010002"+"7f000001"+strings.Repeat("00", 12); got != want {
		t.Errorf("IPv4 request %s, want %s", got, want)
	}
	filter := appendPortFilter(nil, 0x1234)
	if want := "14000100" + "02081400" + "00003412" + "03080c00" + "00003412"; hex.EncodeToString(filter) != want {
		t.Errorf("filter %x, want %s", filter, want)
	}
	answer, _ := hex.DecodeString("0a010000" + "1234006f" + "00000000000000000000ffff7f000001" +
		"00000000000000000000000000000000" + "01000000" + "0102030405060708" + "00000000" + "00000000" + "00000000" +
		"31d40000" + "07000000")
	s, ok := parseDiag(answer)
	if w := (diagSocket{unix.AF_INET6, stateEstablished, at("127.0.0.1", 0x1234), at("::", 111), alice, 7}); !ok || s != w {
		t.Errorf("answer %+v, %v, want %+v", s, ok, w)
	}
	for n := range answer {
		if _, ok := parseDiag(answer[:n]); ok {
			t.Errorf("an answer of %d octets was taken", n)
		}
	}
}

// The kernel says the same for a protocol without a handler as for a socket that is not there; findSocket relies on it.
func TestDiagAbsentHandler(t *testing.T) {
	c, err := dialNetlink(unix.NETLINK_SOCK_DIAG, diagOctets)
	if err != nil {
		t.Skipf("needs sock_diag: %v", err)
	}
	defer c.close()
	const experimental = 253 // RFC 3692: no protocol has this number
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		q := diagQuery{protocol: experimental, family: family, source: at("127.0.0.1", 1), dest: at("127.0.0.1", 2)}
		if s, err := q.ask(c); err != unix.ENOENT {
			t.Errorf("family %d: %+v, %v, want ENOENT", family, s, err)
		}
		if err := findSocket(c, experimental, at("127.0.0.1", 1), at("127.0.0.1", 2), func(diagSocket) bool { return true }); !errors.Is(err, unix.ENOENT) {
			t.Errorf("findSocket: %v, want ENOENT", err)
		}
	}
}

// message encodes a netlink message of the sequence number 1.
func message(typ, flags uint16, data string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(append(b, data...), make([]byte, align4(len(data))-len(data))...)
}

func TestNetlinkAnswers(t *testing.T) {
	errno := func(e unix.Errno) string { return string(binary.NativeEndian.AppendUint32(nil, uint32(-int32(e)))) }
	const multi = unix.NLM_F_MULTI
	old := message(40, 0, "old")
	old[8] ^= 0xff
	tests := []struct {
		name        string
		packet      []byte
		want        string
		last        bool
		err         error
		interrupted bool
	}{
		{"one", message(40, 0, "abc"), "abc", true, nil, false},
		{"part of a dump", bytes.Join([][]byte{message(40, multi, "abc"), message(40, multi, "d")}, nil), "abcd", false, nil, false},
		{"end of a dump", bytes.Join([][]byte{message(40, multi, "abc"), message(unix.NLMSG_DONE, multi, errno(0))}, nil), "abc", true, nil, false},
		{"interrupted", message(40, multi|unix.NLM_F_DUMP_INTR, "abc"), "abc", false, nil, true},
		{"acknowledged", message(unix.NLMSG_ERROR, 0, errno(0)), "", true, nil, false},
		{"refused", message(unix.NLMSG_ERROR, 0, errno(unix.EPERM)), "", true, unix.EPERM, false},
		{"refused dump", message(unix.NLMSG_DONE, multi, errno(unix.ENOENT)), "", true, unix.ENOENT, false},
		{"of another request", bytes.Join([][]byte{old, message(40, 0, "new")}, nil), "new", true, nil, false},
		{"nothing", nil, "", false, nil, false},
	}
	for _, test := range tests {
		c := netlinkConn{seq: 1}
		got, interrupted := "", false
		last, err := c.answers(test.packet, func(_ uint16, data []byte) { got += string(data) }, &interrupted)
		if got != test.want || last != test.last || err != test.err || interrupted != test.interrupted {
			t.Errorf("%s: %q, %v, %v, %v", test.name, got, last, err, interrupted)
		}
	}
	for _, size := range []uint32{0, 15, 17, 1 << 31, 1<<32 - 1} {
		b := message(40, 0, "")
		binary.NativeEndian.PutUint32(b, size)
		c := netlinkConn{seq: 1}
		if _, err := c.answers(b, func(uint16, []byte) {}, new(bool)); err == nil {
			t.Errorf("a length of %d was taken", size)
		}
	}
}

// No octets of the kernel's, cut anywhere, make the parsers read past the end.
func FuzzNetlinkParsers(f *testing.F) {
	f.Add(message(unix.RTM_NEWLINK, unix.NLM_F_MULTI, strings.Repeat("\x04\x00", 40)))
	f.Add(message(unix.RTM_NEWADDR, 0, "\x02\x18\x00\x00\x01\x00\x00\x00\x08\x00\x02\x00\x7f\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := netlinkConn{seq: 1}
		_, err := c.answers(b, func(_ uint16, data []byte) {
			parseLink(data)
			if _, p, ok := parseAddr(data); ok && !p.IsValid() {
				t.Errorf("an address that is none in %x", data)
			}
			parseDiag(data)
		}, new(bool))
		if errno := unix.Errno(0); errors.As(err, &errno) && errno == 0 {
			t.Error("an error that is none")
		}
		parseLink(b)
		parseAddr(b)
		parseArrival(b)
	})
}

func TestPutSource(t *testing.T) {
	for _, test := range []struct {
		local   string
		ifindex uint32
		want    arrival // as read back
		octets  int
	}{
		{"127.0.0.1", 7, arrival{local: netip.MustParseAddr("127.0.0.1"), multicast: true}, 32}, // ipi_addr is not ours to set
		{"fd00::1", 7, arrival{local: netip.MustParseAddr("fd00::1")}, 40},
		{"fe80::1", 7, arrival{local: netip.MustParseAddr("fe80::1"), ifindex: 7}, 40},
		{"0.0.0.0", 7, arrival{}, 0},
		{"::", 7, arrival{}, 0},
	} {
		b := make([]byte, controlOctets)
		n := putSource(b, netip.MustParseAddr(test.local), test.ifindex)
		if unix.SizeofPtr == 8 && n != test.octets {
			t.Errorf("%s: %d octets, want %d", test.local, n, test.octets)
		}
		if got := parseArrival(b[:n]); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.local, got, test.want)
		}
	}
	if n := putSource(make([]byte, controlOctets), netip.Addr{}, 7); n != 0 {
		t.Errorf("no address: %d octets, want 0", n)
	}
}
