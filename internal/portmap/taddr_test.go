package portmap

import (
	"encoding/binary"
	"strings"
	"testing"
)

// Socket addresses of Linux, made by hand; the family is in the machine's byte order.
func family(f uint16) []byte { return binary.NativeEndian.AppendUint16(nil, f) }

func sockaddrInOf(port uint16, addr string) []byte {
	return join(family(2), []byte{byte(port >> 8), byte(port)}, []byte(addr), make([]byte, 8))
}

func sockaddrIn6Of(port uint16, addr string) []byte {
	return join(family(10), []byte{byte(port >> 8), byte(port)}, make([]byte, 4), []byte(addr), make([]byte, 4))
}

func sockaddrUnOf(path string) []byte { return join(family(1), []byte(path)) }

func netbuf(maxlen uint32, addr []byte) []byte { return join(words(maxlen), str(string(addr))) }

const addr6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"

func TestUAddr2TAddr(t *testing.T) {
	junk := netbuf(0, nil)
	path := func(n int) string { return "/" + strings.Repeat("p", n-1) }
	tests := []struct {
		transports []Transport
		uaddr      string
		want       []byte
	}{
		{[]Transport{UDP, TCP}, "127.0.0.1.8.1", netbuf(16, sockaddrInOf(2049, "\x7f\x00\x00\x01"))},
		{[]Transport{UDP, TCP}, "255.255.255.255.255.255", netbuf(16, sockaddrInOf(65535, "\xff\xff\xff\xff"))},
		{[]Transport{UDP, TCP}, "0.0.0.0.0.0", netbuf(16, sockaddrInOf(0, "\x00\x00\x00\x00"))},
		{[]Transport{UDP, TCP}, "127.0.0.1.8.1\x00junk", netbuf(16, sockaddrInOf(2049, "\x7f\x00\x00\x01"))},
		{[]Transport{UDP, TCP}, "2001:db8::1.8.1", junk},
		{[]Transport{UDP, TCP}, "::ffff:127.0.0.1.8.1", junk},
		{[]Transport{UDP, TCP}, "127.0.0.1", junk},
		{[]Transport{UDP, TCP}, "127.0.0.1.256.1", junk},
		{[]Transport{UDP, TCP}, "localhost.8.1", junk},
		{[]Transport{UDP, TCP}, "/run/x", junk},
		{[]Transport{UDP6, TCP6}, "2001:db8::1.8.1", netbuf(28, sockaddrIn6Of(2049, addr6))},
		{[]Transport{UDP6, TCP6}, "::.255.255", netbuf(28, sockaddrIn6Of(65535, string(make([]byte, 16))))},
		{[]Transport{UDP6, TCP6}, "::ffff:127.0.0.1.0.1", netbuf(28, sockaddrIn6Of(1, string(make([]byte, 10))+"\xff\xff\x7f\x00\x00\x01"))},
		{[]Transport{UDP6, TCP6}, "127.0.0.1.8.1", junk},
		{[]Transport{UDP6, TCP6}, "fe80::1%eth0.8.1", junk},
		{[]Transport{UDP6, TCP6}, "2001:db8::1", junk},
		{[]Transport{Local}, "/run/x", netbuf(110, sockaddrUnOf("/run/x"))},
		{[]Transport{Local}, "/run/x.1.2", netbuf(110, sockaddrUnOf("/run/x.1.2"))},
		{[]Transport{Local}, "/run/x\x00junk", netbuf(110, sockaddrUnOf("/run/x"))},
		{[]Transport{Local}, path(107), netbuf(110, sockaddrUnOf(path(107)))},
		{[]Transport{Local}, path(108), junk},
		{[]Transport{Local}, path(300), junk},
		// What doesn't begin with a slash is an address with a port for libtirpc, and the rest is the path.
		{[]Transport{Local}, "127.0.0.1.8.1", netbuf(110, sockaddrUnOf("127.0.0.1"))},
		{[]Transport{Local}, "..", netbuf(110, sockaddrUnOf(""))},
		{[]Transport{Local}, ".", junk},
		{[]Transport{Local}, "1.2.3", netbuf(110, sockaddrUnOf("1"))},
		{[]Transport{UDP, TCP, UDP6, TCP6, Local}, "", junk},
		{[]Transport{UDP, TCP, UDP6, TCP6, Local}, "\x00127.0.0.1.8.1", junk},
		{[]Transport{UDP, TCP, UDP6, TCP6, Local}, "junk", junk},
		{[]Transport{UDP, TCP, UDP6, TCP6}, "...", junk},
		{[]Transport{UDP, TCP, UDP6, TCP6}, "\xff\xfe.1.2", junk},
	}
	p := newSubject(t)
	for _, tt := range tests {
		for _, transport := range tt.transports {
			for vers := uint32(3); vers <= 4; vers++ {
				wantReply(t, p, localCaller(transport), callTo(vers, 7, str(tt.uaddr)), success(tt.want))
			}
		}
	}
}

func TestTAddr2UAddr(t *testing.T) {
	in, in6, un := sockaddrInOf(2049, "\x0a\x00\x00\x01"), sockaddrIn6Of(2049, addr6), sockaddrUnOf("/run/x")
	odd := join([]byte{0xff, 0xff}, in[2:]) // a family that isn't one
	long := strings.Repeat("p", 200)
	tests := []struct {
		transports []Transport
		maxlen     uint32
		addr       []byte
		want       string
	}{
		{[]Transport{UDP, TCP}, 16, in, "10.0.0.1.8.1"},
		{[]Transport{UDP, TCP}, 9000, in, "10.0.0.1.8.1"},
		{[]Transport{UDP, TCP}, 16, odd, "10.0.0.1.8.1"},
		{[]Transport{UDP, TCP}, 28, in6, "0.0.0.0.8.1"}, // the flow information, read as an address
		{[]Transport{UDP, TCP}, 16, in[:15], ""},
		{[]Transport{UDP, TCP}, 16, nil, ""},
		{[]Transport{UDP6, TCP6}, 28, in6, "2001:db8::1.8.1"},
		{[]Transport{UDP6, TCP6}, 100, join(in6, make([]byte, 9)), "2001:db8::1.8.1"},
		{[]Transport{UDP6, TCP6}, 28, in6[:27], ""},
		{[]Transport{UDP6, TCP6}, 28, in, ""},
		{[]Transport{UDP6, TCP6}, 0, nil, ""},
		{[]Transport{Local}, 110, un, "/run/x"},
		{[]Transport{Local}, 110, join(un, []byte("\x00junk")), "/run/x"},
		{[]Transport{Local}, 110, un[:2], ""},
		{[]Transport{Local}, 110, un[:1], ""},
		{[]Transport{Local}, 110, nil, ""},
		{[]Transport{Local}, 300, sockaddrUnOf(long), long}, // as rpcbind, though no socket has such a name,
		{[]Transport{Local}, 110, sockaddrUnOf("\x00abstract"), ""},
	}
	p := newSubject(t)
	for _, tt := range tests {
		for _, transport := range tt.transports {
			for vers := uint32(3); vers <= 4; vers++ {
				wantReply(t, p, localCaller(transport), callTo(vers, 8, netbuf(tt.maxlen, tt.addr)), success(str(tt.want)))
			}
		}
	}
}

// TestNetbufThatIsNone holds that a buffer has to be as large as what is in it, and not larger than any call.
func TestNetbufThatIsNone(t *testing.T) {
	in := sockaddrInOf(2049, "\x0a\x00\x00\x01")
	p := newSubject(t)
	for _, transport := range transports {
		for _, args := range [][]byte{
			netbuf(15, in), netbuf(0, in), netbuf(9001, in), netbuf(0xffffffff, in), netbuf(9001, nil),
			words(16, 0xffffffff), words(16, 16), words(16), nil,
		} {
			wantReply(t, p, localCaller(transport), callTo(4, 8, args), accepted(4))
		}
	}
}
