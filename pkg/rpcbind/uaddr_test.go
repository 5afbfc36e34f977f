package rpcbind_test

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

func TestParseUAddr(t *testing.T) {
	tests := []struct{ in, want string }{
		{"0.0.0.0.0.111", "0.0.0.0:111"},
		{"192.168.0.1.8.1", "192.168.0.1:2049"},
		{"255.255.255.255.255.255", "255.255.255.255:65535"},
		{"::.0.111", "[::]:111"},
		{"::1.8.1", "[::1]:2049"},
		{"fe80::1.3.233", "[fe80::1]:1001"},
		{"1:2:3:4:5:6:7:8.0.0", "[1:2:3:4:5:6:7:8]:0"},
		{"1:2:3:4:5:6:7::.0.1", "[1:2:3:4:5:6:7:0]:1"},
		{"FE80::AbCd.0.1", "[fe80::abcd]:1"},
		{"0001::.0.1", "[1::]:1"},
		{"::1.2.3.4.0.1", "[::102:304]:1"},
		{"::ffff:1.2.3.4.0.1", "[::ffff:1.2.3.4]:1"}, // stays IPv6
		{"::ffff:102:304.0.1", "[::ffff:1.2.3.4]:1"},
		{"1:2:3:4:5:6:1.2.3.4.0.1", "[1:2:3:4:5:6:102:304]:1"},
	}
	for _, tt := range tests {
		got, ok := rpcbind.ParseUAddr(tt.in)
		if !ok || got != netip.MustParseAddrPort(tt.want) {
			t.Errorf("%q: %v, %v; want %s", tt.in, got, ok, tt.want)
		}
		if again, ok := rpcbind.ParseUAddr([]byte(tt.in)); !ok || again != got {
			t.Errorf("%q as octets: %v, %v", tt.in, again, ok)
		}
	}
}

func TestParseUAddrRefuses(t *testing.T) {
	for _, in := range []string{
		"", ".", "..", "...", ".....", "::", ":", "0.111", ".0.111", "1.2.3.4", "1.2.3.4.5", "1.2.3.4.5.6.7",
		"1.2.3.4.0.256", "1.2.3.4.256.0", "0.0.0.0.300.5", "256.1.1.1.0.1", "1.2.3.4.0.1000", "1.2.3.4.70000",
		"1.2.3.4.00.1", "1.2.3.4.0.01", "01.2.3.4.0.1", "1.2.3.4.0.001", "1.2.3.4..1", "1.2.3.4.0.", ".1.2.3.4.0.1",
		" 1.2.3.4.0.1", "1.2.3.4.0.1 ", "1.2.3.4.0.1\x00", "1.2.3.4.0.1\n", "1.2.3.4.-1.1", "1.2.3.4.+1.1", "1.2.3.4.0x1.1",
		"1.2.3.٤.0.1", "a.b.c.d.e.f", "1.2.3.4:111", "[::1].0.1", "/run/rpcbind.sock",
		":.0.1", "1:.0.1", "1.0.1", ":1.0.1", ":::.0.1", "1:::2.0.1", "1::2::3.0.1", "::1:.0.1", "12345::.0.1", "::g.0.1",
		"1:2:3:4:5:6:7.0.1", "1:2:3:4:5:6:7:8:9.0.1", "1:2:3:4:5:6:7:8::.0.1", "::1:2:3:4:5:6:7:8.0.1",
		"1:2:3:4:5:6:7:1.2.3.4.0.1", "1:2:3:4:5:1.2.3.4.0.1", "::1.2.3.0.1", "::01.2.3.4.0.1", "::1.2.3.4:5.0.1",
		"::a.2.3.4.0.1", "fe80::1%eth0.0.1", "fe80::1%.0.1", "1.2.3.4%eth0.0.1",
		strings.Repeat("1", 100), strings.Repeat(":", 100), strings.Repeat("1.", 100), strings.Repeat("1:", 100) + ".0.1",
	} {
		if got, ok := rpcbind.ParseUAddr(in); ok || got != (netip.AddrPort{}) {
			t.Errorf("%q is taken for %v", in, got)
		}
		if got, ok := rpcbind.ParseUAddr([]byte(in)); ok {
			t.Errorf("%q as octets is taken for %v", in, got)
		}
	}
}

// netipUAddr reads a universal address by the standard library alone. The differences from ParseUAddr that are wanted:
// a zone, and nothing else.
func netipUAddr(s string) (netip.AddrPort, bool) {
	host, port := s, 0
	for _, shift := range []int{0, 8} {
		i := strings.LastIndexByte(host, '.')
		if i < 0 {
			return netip.AddrPort{}, false
		}
		octet, err := strconv.ParseUint(host[i+1:], 10, 8)
		if err != nil || strconv.FormatUint(octet, 10) != host[i+1:] {
			return netip.AddrPort{}, false
		}
		port |= int(octet) << shift
		host = host[:i]
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// FuzzParseUAddr: ParseUAddr and net/netip agree, the octets are read as the string is, and what AppendUAddr writes of
// an address is read as that address.
func FuzzParseUAddr(f *testing.F) {
	for _, s := range []string{
		"0.0.0.0.0.111", "127.0.0.1.8.1", "0.0.0.0.300.5", "::.0.111", "::1.8.1", "fe80::1.3.233", "fe80::1%lo.0.1",
		"::ffff:1.2.3.4.0.1", "1:2:3:4:5:6:1.2.3.4.0.1", "1::2:3:4:5:6:7.1.2", "::1:2:3:4:5:6:7:8.0.1", "junk\n\x1b[31m", "/run/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := rpcbind.ParseUAddr(s)
		want, wantOK := netipUAddr(s)
		if got != want || ok != wantOK {
			t.Fatalf("%q: %v, %v; net/netip: %v, %v", s, got, ok, want, wantOK)
		}
		if octets, octetsOK := rpcbind.ParseUAddr([]byte(s)); octets != got || octetsOK != ok {
			t.Fatalf("%q: %v as a string, %v as octets", s, got, octets)
		}
		if !ok {
			return
		}
		written := rpcbind.UAddr(got)
		if again, ok := rpcbind.ParseUAddr(written); again != got || !ok || len(written) > rpcbind.MaxUAddrSize {
			t.Fatalf("%q: %v is written %q and read %v, %v", s, got, written, again, ok)
		}
	})
}

// What inet_ntop of the GNU C library 2.36 makes of addresses, recorded.
var inetNtop = []struct{ addr, text string }{
	{"00000000000000000000000000000000", "::"},
	{"00000000000000000000000000000001", "::1"},
	{"00000000000000000000000000000002", "::2"},
	{"0000000000000000000000000000ffff", "::ffff"},
	{"00000000000000000000000000010000", "::0.1.0.0"},
	{"00000000000000000000000001020304", "::1.2.3.4"},
	{"00000000000000000000000001020000", "::1.2.0.0"},
	{"000000000000000000000000ffffffff", "::255.255.255.255"},
	{"00000000000000000000ffff01020304", "::ffff:1.2.3.4"},
	{"00000000000000000000ffff00000000", "::ffff:0.0.0.0"},
	{"0000000000000000ffff000001020304", "::ffff:0:102:304"},
	{"00000000000000000000fffe01020304", "::fffe:102:304"},
	{"00000000000000000000000100000000", "::1:0:0"},
	{"00000000000000000001000000000000", "::1:0:0:0"},
	{"00010000000000020000000000000000", "1:0:0:2::"},
	{"00010000000000020000000000030004", "1::2:0:0:3:4"},
	{"00010000000200030004000500060007", "1:0:2:3:4:5:6:7"},
	{"00000001000200030004000500060007", "0:1:2:3:4:5:6:7"},
	{"00010002000300040005000600070000", "1:2:3:4:5:6:7:0"},
	{"00010002000300040005000600000000", "1:2:3:4:5:6::"},
	{"00000000000100020003000400050006", "::1:2:3:4:5:6"},
	{"20010db8000000010001000100010001", "2001:db8:0:1:1:1:1:1"},
	{"20010db800000000000000000000000a", "2001:db8::a"},
	{"fe8000000000000000005efe01020304", "fe80::5efe:102:304"},
	{"0064ff9b000000000000000001020304", "64:ff9b::102:304"},
	{"ffffffffffffffffffffffffffffffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	{"00000000000000010000000000000000", "0:0:0:1::"},
	{"00010000000000000001000000000000", "1::1:0:0:0"},
	{"ff020000000000000000000000000202", "ff02::202"},
	{"00000000", "0.0.0.0"},
	{"7f000001", "127.0.0.1"},
	{"ffffffff", "255.255.255.255"},
}

func TestAppendUAddr(t *testing.T) {
	for _, tt := range inetNtop {
		b, err := hex.DecodeString(tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(b)
		for port, suffix := range map[uint16]string{0: ".0.0", 111: ".0.111", 2049: ".8.1", 65535: ".255.255"} {
			ap := netip.AddrPortFrom(addr, port)
			got := rpcbind.UAddr(ap)
			if got != tt.text+suffix || len(got) > rpcbind.MaxUAddrSize {
				t.Errorf("%v: %q, want %q", ap, got, tt.text+suffix)
			}
			if back, ok := rpcbind.ParseUAddr(got); back != ap || !ok {
				t.Errorf("%q is read %v, %v; want %v", got, back, ok, ap)
			}
		}
	}
	if got := string(rpcbind.AppendUAddr([]byte("x"), netip.MustParseAddrPort("[fe80::1%lo]:111"))); got != "xfe80::1.0.111" {
		t.Errorf("with a zone, behind x: %q", got)
	}
	if _, ok := rpcbind.ParseUAddr(rpcbind.UAddr(netip.AddrPort{})); ok {
		t.Error("no address is written as a valid one")
	}
}

func TestUAddrAllocations(t *testing.T) {
	in := []byte("2001:db8:0:1:1:1:1:1.8.1")
	v4 := []byte("192.168.100.100.8.1")
	junk := []byte("junk junk junk")
	ap := netip.MustParseAddrPort("[::1.2.3.4]:2049")
	zone := netip.MustParseAddrPort("[fe80::1%lo]:111")
	buf := make([]byte, 0, rpcbind.MaxUAddrSize)
	sink := 0
	for name, f := range map[string]func(){
		"ParseUAddr IPv6":  func() { a, _ := rpcbind.ParseUAddr(in); sink += int(a.Port()) },
		"ParseUAddr IPv4":  func() { a, _ := rpcbind.ParseUAddr(v4); sink += int(a.Port()) },
		"ParseUAddr junk":  func() { a, _ := rpcbind.ParseUAddr(junk); sink += int(a.Port()) },
		"AppendUAddr":      func() { sink += len(rpcbind.AppendUAddr(buf, ap)) },
		"AppendUAddr zone": func() { sink += len(rpcbind.AppendUAddr(buf, zone)) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	if sink == 0 {
		t.Error("nothing was done")
	}
}
